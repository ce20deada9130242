"""Translates between the contract's messages of segments and the preferences service's own values."""

from collections.abc import Iterator

from wedsync.broadcast.v1 import directory_pb2

from services.preferences.messages import STATUSES, STATUSES_TOLD, USER_TYPES, USER_TYPES_TOLD, timestamp
from services.preferences.segments import Criteria, GivenSegment, Segment


def to_given(message: directory_pb2.Segment) -> GivenSegment:
    """A segment as a request has it."""
    return GivenSegment(
        message.name,
        message.description,
        _to_criteria(message.criteria),
        message.is_active if message.HasField("is_active") else None,
    )


def masked_paths(request: directory_pb2.UpdateSegmentRequest) -> list[str]:
    """What an update is to change: the mask's paths, or without any, the fields that are set (AIP-134)."""
    return list(request.update_mask.paths) or list(_set_paths(request.segment))


def segment_message(segment: Segment) -> directory_pb2.Segment:
    """A segment as it is kept."""
    values, counted_at = segment.values, segment.user_count_time
    return directory_pb2.Segment(
        segment_id=str(segment.segment_id),
        name=values.name,
        description=values.description,
        criteria=_criteria_message(values.criteria),
        is_active=values.is_active,
        user_count=segment.user_count,
        user_count_time=timestamp(counted_at) if counted_at is not None else None,
        create_time=timestamp(segment.create_time),
        update_time=timestamp(segment.update_time),
        etag=segment.etag,
    )


def _set_paths(message: directory_pb2.Segment) -> Iterator[str]:
    for field, _ in message.ListFields():
        if field.name == "criteria":
            yield from (f"criteria.{inner.name}" for inner, _ in message.criteria.ListFields())
        else:
            yield field.name


def _to_criteria(message: directory_pb2.SegmentCriteria) -> Criteria:
    """In one order, so that the same criteria are equal however they were listed."""
    return Criteria(
        tuple(sorted(message.roles)),
        tuple(sorted(message.tiers)),
        tuple(USER_TYPES_TOLD[number] for number in sorted(message.user_types)),
        tuple(STATUSES_TOLD[number] for number in sorted(message.wedding_statuses)),
        message.wedding_within_days if message.HasField("wedding_within_days") else None,
    )


def _criteria_message(criteria: Criteria) -> directory_pb2.SegmentCriteria:
    return directory_pb2.SegmentCriteria(
        roles=criteria.roles,
        tiers=criteria.tiers,
        user_types=[USER_TYPES[each] for each in criteria.user_types],
        wedding_statuses=[STATUSES[each] for each in criteria.wedding_statuses],
        wedding_within_days=criteria.wedding_within_days,
    )
