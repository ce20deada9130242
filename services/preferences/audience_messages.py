"""Translates between the contract's messages about audiences and the preferences service's own values."""

from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1 import audience_pb2, common_pb2

from services.preferences.audiences import Access, Lookup, Question, Targeting, WeddingAccess
from services.preferences.changes import Changes
from services.preferences.domain import (
    DECIDED_CHANNELS,
    Category,
    Outcome,
    Priority,
    Reason,
    Rules,
    Slice,
)
from services.preferences.messages import CHANNELS, CHANNELS_TOLD, date_message, timestamp, to_uuids
from services.preferences.weddings import unpack
from shared.audience import Audience, BrokenAudience
from shared.errors import FieldViolation, InvalidField

_CATEGORIES_TOLD: Final = {common_pb2.Category.Value(f"CATEGORY_{each.name}"): each for each in Category}
_OUTCOMES: Final = {each: common_pb2.DeliveryState.Value(f"DELIVERY_STATE_{each.name}") for each in Outcome}
_REASONS: Final = {
    each: common_pb2.SuppressionReason.Value(f"SUPPRESSION_REASON_{each.name}") for each in Reason
}
_PACK_BYTES: Final = 256 * 1024
_MOST_WEDDINGS: Final = 1_000


def to_targeting(message: common_pb2.Targeting) -> Targeting:
    """Who is meant."""
    return Targeting(
        message.everyone,
        to_uuids(message.user_ids),
        tuple(message.roles),
        tuple(message.tiers),
        to_uuids(message.segment_ids),
        to_uuids(message.wedding_ids),
    )


def to_question(
    rules: audience_pb2.DeliveryRules, channels: Iterable["common_pb2.Channel.ValueType"]
) -> Question:
    """What is to be decided; on realtime and in_app when no channel is named. Raises InvalidField."""
    named = [CHANNELS_TOLD.get(channel) for channel in channels]
    violations = [
        FieldViolation(f"channels[{position}]", "is not decided about: only realtime and in_app are")
        for position, channel in enumerate(named)
        if channel not in DECIDED_CHANNELS
    ]
    if violations:
        raise InvalidField(violations=violations)
    about = Rules(
        rules.type,
        _CATEGORIES_TOLD[rules.category],
        Priority(rules.priority),
        rules.essential,
        UUID(rules.wedding_id) if rules.wedding_id else None,
    )
    wall = to_uuids(rules.wall_wedding_ids)
    return Question(about, wall, tuple(filter(None, named)) or DECIDED_CHANNELS)


def to_members(serialised: bytes) -> Audience:
    """The members of a request. Raises InvalidField."""
    try:
        return Audience.from_bytes(serialised)
    except BrokenAudience as error:
        raise InvalidField(
            violations=[FieldViolation("members", "must be a serialised bitmap of recipient numbers")]
        ) from error


def packs(
    slices: Iterator[Slice], version: int, *, counts_only: bool = False
) -> Iterator[list[audience_pb2.AudienceSlice]]:
    """Slices in groups, each for one message and made when it is asked for; one empty group when there are none.

    A message costs gRPC more than most slices do, and a group is small enough to be made without anybody noticing.
    """
    pack: list[audience_pb2.AudienceSlice] = []
    size, is_first = 0, True
    for part in slices:
        message = _slice_message(part, version, counts_only)
        pack.append(message)
        size += len(message.members)
        if size >= _PACK_BYTES:
            yield pack
            pack, size, is_first = [], 0, False
    if pack or is_first:
        yield pack


def changes_message(changes: Changes, version: int) -> audience_pb2.ListChangesResponse:
    """Whom the log is about up to a version; anybody, when it is about more weddings than can be named."""
    if changes.is_reload or len(changes.weddings) > _MOST_WEDDINGS:
        return audience_pb2.ListChangesResponse(directory_version=version, anybody=True)
    return audience_pb2.ListChangesResponse(
        directory_version=version,
        recipients=changes.recipients.to_bytes(),
        wedding_ids=map(str, changes.weddings),
    )


def access_message(access: Access) -> audience_pb2.CheckWeddingAccessResponse:
    """Who a user is and where they belong."""
    return audience_pb2.CheckWeddingAccessResponse(
        known=access.number is not None,
        number=access.number or 0,
        role=access.role or "",
        weddings=[_wedding_access(str(wedding_id), found) for wedding_id, found in access.weddings.items()],
    )


def lookup_message(lookup: Lookup) -> audience_pb2.LookupRecipientsResponse:
    """Users with their numbers and roles, weddings with their teams."""
    return audience_pb2.LookupRecipientsResponse(
        recipients=[
            audience_pb2.RecipientNumber(
                user_id=str(user_id), number=number, role=role, display_name=lookup.names.get(user_id, "")
            )
            for user_id, (number, role) in lookup.recipients.items()
        ],
        teams=[
            audience_pb2.WeddingTeam(
                wedding_id=str(entry.wedding_id),
                team_version=entry.team_version,
                members=unpack([entry.team]).to_bytes(),
            )
            for entry in lookup.weddings
        ],
        directory_version=lookup.version,
    )


def _wedding_access(wedding_id: str, found: WeddingAccess) -> audience_pb2.WeddingAccess:
    entry = found.entry
    if entry is None:
        return audience_pb2.WeddingAccess(wedding_id=wedding_id)
    return audience_pb2.WeddingAccess(
        wedding_id=wedding_id,
        exists=True,
        on_team=found.on_team,
        couple_name=entry.couple_name,
        wedding_date=date_message(entry.wedding_date),
        team_size=found.team_size,
    )


def _slice_message(part: Slice, version: int, counts_only: bool) -> audience_pb2.AudienceSlice:
    """One slice, with its members unless only counts were asked for."""
    return audience_pb2.AudienceSlice(
        channel=CHANNELS[part.channel],
        outcome=_OUTCOMES[part.outcome],
        reason=_REASONS[part.reason]
        if part.reason is not None
        else common_pb2.SUPPRESSION_REASON_UNSPECIFIED,
        release_at=timestamp(part.release_at) if part.release_at is not None else None,
        members=b"" if counts_only else part.members.to_bytes(),
        count=len(part.members),
        directory_version=version,
    )
