"""Translates between the contract's messages of people, weddings and preferences and this service's own values."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1 import common_pb2, directory_pb2, preferences_pb2

from services.preferences.directory import KnownPerson, Person, UserType, WeddingDetails, WeddingStatus
from services.preferences.domain import Category, Channel
from services.preferences.editing import GivenPreferences, GivenQuietHours
from services.preferences.presets import (
    PersonalPreferences,
    Preferences,
    QuietHours,
    RoleSetting,
    WeddingFilter,
)
from services.preferences.recommendations import Why, recommendations, recommended
from shared.errors import FieldViolation

CHANNELS: Final = {each: common_pb2.Channel.Value(f"CHANNEL_{each.name}") for each in Channel}
CHANNELS_TOLD: Final = {number: each for each, number in CHANNELS.items()}
_REASONS: Final = {
    each: preferences_pb2.RecommendationReason.Value(f"RECOMMENDATION_REASON_{each.name}") for each in Why
}
USER_TYPES: Final = {each: directory_pb2.UserType.Value(f"USER_TYPE_{each.name}") for each in UserType}
USER_TYPES_TOLD: Final = {number: each for each, number in USER_TYPES.items()}
STATUSES: Final = {
    each: directory_pb2.WeddingStatus.Value(f"WEDDING_STATUS_{each.name}") for each in WeddingStatus
}
STATUSES_TOLD: Final = {number: each for each, number in STATUSES.items()}


def to_given(message: preferences_pb2.Preferences) -> GivenPreferences:
    """Preferences as a request has them."""
    return GivenPreferences(
        categories=frozenset(category for category in Category if getattr(message, category.value)),
        critical_only=message.critical_only,
        channels=_channels(message.channels),
        quiet_hours=_given_quiet_hours(message.quiet_hours) if message.HasField("quiet_hours") else None,
        role_settings=tuple(
            RoleSetting(each.role, tuple(each.muted_types), _replacing_channels(each.channels))
            for each in message.role_settings
        ),
        wedding_filters=tuple(
            WeddingFilter(UUID(each.wedding_id), each.muted, _replacing_channels(each.channels))
            for each in message.wedding_filters
        ),
    )


def masked_paths(request: preferences_pb2.UpdatePreferencesRequest) -> list[str]:
    """What an update is to change: the mask's paths, or without any, the fields that are set (AIP-134)."""
    return list(request.update_mask.paths) or list(_set_paths(request.preferences))


def preferences_message(personal: PersonalPreferences) -> preferences_pb2.Preferences:
    """A person's preferences as they apply."""
    message = _values_message(personal.values)
    message.etag, message.edited = personal.etag, personal.is_edited
    if personal.update_time is not None:
        message.update_time.FromDatetime(personal.update_time)
    return message


def recommended_message(personal: PersonalPreferences) -> preferences_pb2.GetRecommendedPreferencesResponse:
    """What is recommended to a person, under the etag of what applies, and why."""
    role, values = personal.role, personal.values
    preferences = _values_message(recommended(role, values))
    preferences.etag = personal.etag
    return preferences_pb2.GetRecommendedPreferencesResponse(
        preferences=preferences,
        recommendations=[
            preferences_pb2.Recommendation(
                path=each.path, reason=_REASONS[each.why], explanation=each.why, differs=each.differs
            )
            for each in recommendations(role, values)
        ],
    )


def _values_message(values: Preferences) -> preferences_pb2.Preferences:
    return preferences_pb2.Preferences(
        system=Category.SYSTEM in values.categories,
        business=Category.BUSINESS in values.categories,
        collaboration=Category.COLLABORATION in values.categories,
        wedding=Category.WEDDING in values.categories,
        critical_only=values.critical_only,
        channels=_channel_numbers(values.channels),
        quiet_hours=_quiet_hours_message(values.quiet_hours),
        role_settings=[
            preferences_pb2.RoleSetting(
                role=each.role, muted_types=each.muted_types, channels=_channel_numbers(each.channels)
            )
            for each in values.role_settings
        ],
        wedding_filters=[
            preferences_pb2.WeddingFilter(
                wedding_id=str(each.wedding_id), muted=each.muted, channels=_channel_numbers(each.channels)
            )
            for each in values.wedding_filters
        ],
    )


def to_person(message: directory_pb2.Recipient) -> Person:
    """Somebody as a request describes them."""
    return Person(
        UUID(message.user_id),
        message.display_name,
        message.role,
        USER_TYPES_TOLD[message.user_type],
        message.tier,
        message.email or None,
        message.phone or None,
        message.time_zone,
    )


def recipient_message(known: KnownPerson) -> directory_pb2.Recipient:
    """Somebody as the caller may see them."""
    person = known.person
    return directory_pb2.Recipient(
        user_id=str(person.user_id),
        number=known.number,
        display_name=person.display_name,
        role=person.role,
        user_type=USER_TYPES[person.user_type],
        tier=person.tier,
        email=person.email or "",
        phone=person.phone or "",
        time_zone=person.time_zone,
        update_time=timestamp(known.update_time),
    )


def to_wedding(message: directory_pb2.WeddingEntry) -> WeddingDetails:
    """A wedding as a request describes it; without a date when that day does not exist, which `broken_dates` tells."""
    return WeddingDetails(
        UUID(message.wedding_id),
        message.couple_name,
        _to_date(message.wedding_date) if message.HasField("wedding_date") else None,
        STATUSES_TOLD[message.status],
        message.time_zone or "UTC",
    )


def broken_dates(weddings: Iterable[directory_pb2.WeddingEntry]) -> Iterator[FieldViolation]:
    """The dates that are no whole day of the calendar."""
    for position, wedding in enumerate(weddings):
        if wedding.HasField("wedding_date") and _to_date(wedding.wedding_date) is None:
            yield FieldViolation(
                f"weddings[{position}].wedding_date", "must be a day with year, month and day"
            )


def to_uuids(texts: Iterable[str]) -> tuple[UUID, ...]:
    """Ids in their order; one that is there twice counts once."""
    return tuple(dict.fromkeys(map(UUID, texts)))


def to_time(message: Timestamp) -> datetime:
    """An aware time in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def timestamp(moment: datetime) -> Timestamp:
    """The message of an aware time."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def date_message(day: date | None) -> Date | None:
    """The message of a day, None for none."""
    return Date(year=day.year, month=day.month, day=day.day) if day is not None else None


def _set_paths(message: preferences_pb2.Preferences) -> Iterator[str]:
    for field, _ in message.ListFields():
        if field.name == "quiet_hours":
            yield from (f"quiet_hours.{inner.name}" for inner, _ in message.quiet_hours.ListFields())
        else:
            yield field.name


def _given_quiet_hours(message: preferences_pb2.QuietHours) -> GivenQuietHours:
    return GivenQuietHours(
        message.enabled,
        time(message.start.hours, message.start.minutes) if message.HasField("start") else None,
        time(message.end.hours, message.end.minutes) if message.HasField("end") else None,
        message.time_zone,
    )


def _quiet_hours_message(quiet_hours: QuietHours) -> preferences_pb2.QuietHours:
    start, end = quiet_hours.start, quiet_hours.end
    return preferences_pb2.QuietHours(
        enabled=quiet_hours.enabled,
        start=TimeOfDay(hours=start.hour, minutes=start.minute),
        end=TimeOfDay(hours=end.hour, minutes=end.minute),
        time_zone=quiet_hours.time_zone or "",
    )


def _channels(numbers: Iterable["common_pb2.Channel.ValueType"]) -> frozenset[Channel]:
    return frozenset(CHANNELS_TOLD[number] for number in numbers)


def _replacing_channels(numbers: Iterable["common_pb2.Channel.ValueType"]) -> frozenset[Channel]:
    """Channels that replace others have in_app as well; none replace nothing."""
    channels = _channels(numbers)
    return channels | {Channel.IN_APP} if channels else channels


def _channel_numbers(channels: Iterable[Channel]) -> list["common_pb2.Channel.ValueType"]:
    return sorted(CHANNELS[channel] for channel in channels)


def _to_date(message: Date) -> date | None:
    try:
        return date(message.year, message.month, message.day)
    except ValueError:
        return None
