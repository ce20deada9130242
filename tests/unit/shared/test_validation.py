"""Reading requests: every broken rule at once, hostile bytes refused, and long lists refused before they cost."""

import time

import pytest
from google.protobuf.struct_pb2 import Struct
from wedsync.broadcast.v1 import common_pb2, inbox_pb2, preferences_pb2, sender_pb2

from shared.errors import FieldViolation, InvalidField, ServiceError, TooLarge
from shared.validation import RequestReader

SEND = RequestReader(sender_pb2.SendBroadcastRequest)
A_UUID = "3f2b7c8e-1111-4222-8333-444455556666"


def good_send() -> sender_pb2.SendBroadcastRequest:
    """A request that keeps every rule."""
    return sender_pb2.SendBroadcastRequest(
        type="timeline.changed",
        title="Dinner at eight",
        message="An hour later than planned.",
        wedding_id=A_UUID,
        targeting=common_pb2.Targeting(wedding_ids=[A_UUID]),
    )


def violations_of(request: sender_pb2.SendBroadcastRequest) -> tuple[FieldViolation, ...]:
    """What is wrong with a request; nothing when it is right."""
    raw = request.SerializeToString()
    try:
        SEND.check(SEND.parse(raw), raw)
    except ServiceError as error:
        return error.violations
    return ()


def broken_fields(request: sender_pb2.SendBroadcastRequest) -> list[str]:
    """The paths of the broken fields, sorted."""
    return sorted({violation.field for violation in violations_of(request)})


def test_good_request_is_read() -> None:
    """A request that keeps its rules comes out as it went in."""
    raw = good_send().SerializeToString()
    request = SEND.parse(raw)
    SEND.check(request, raw)
    assert request == good_send()


def test_every_broken_field_is_told_at_once() -> None:
    """All violations in one answer, with paths into messages and lists."""
    request = good_send()
    request.title = ""
    request.message = "x" * 1001
    request.wedding_id = "not a UUID"
    request.action.url = "/weddings"
    request.targeting.user_ids.extend([A_UUID, "nobody", A_UUID, "no one"])
    assert broken_fields(request) == [
        "action.label", "message", "targeting.user_ids[1]", "targeting.user_ids[3]", "title", "wedding_id",
    ]  # fmt: skip


def test_rule_is_told_in_words() -> None:
    """A violation says what the rule is, and does not repeat the value."""
    request = good_send()
    request.targeting.user_ids.append("somebody's secret")
    assert violations_of(request) == (FieldViolation("targeting.user_ids[0]", "must be a valid UUID"),)


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xff\xff", b"\x0a\x05ab", b"\x22\x03\xed\xa0\x80", b"\x22\x02\xff\xfe", b"\x22\x01\xc0"],
    ids=["noise", "cut", "lone surrogate", "not UTF-8", "overlong"],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(raw: bytes) -> None:
    """Broken wire format and text that is not UTF-8 are the caller's fault, and told as such."""
    with pytest.raises(
        InvalidField, match=r"The request is not a wedsync\.broadcast\.v1\.SendBroadcastRequest\."
    ):
        SEND.parse(raw)


def test_rule_of_the_service_is_told_with_those_of_the_proto() -> None:
    """What only a service can know is told in the same answer, once for each field."""
    request = good_send()
    request.title = ""
    raw = request.SerializeToString()
    own = [FieldViolation("title", "is dull"), FieldViolation("type", "is unknown")]
    with pytest.raises(InvalidField) as refused:
        SEND.check(request, raw, lambda _request: own)
    assert [each.field for each in refused.value.violations] == ["title", "type"]
    assert refused.value.violations[1] == own[1]


def test_nul_is_found_in_a_list_of_texts() -> None:
    """By the position of the text that holds it."""
    request = good_send()
    request.targeting.roles.extend(["couple", "dj\0"])
    assert broken_fields(request) == ["targeting.roles[1]"]


@pytest.mark.parametrize("field", ["title", "message", "type", "wedding_id"])
def test_nul_is_refused_in_any_text(field: str) -> None:
    """Postgres cannot store it, so it never gets that far."""
    request = good_send()
    setattr(request, field, "before\0after")
    assert field in broken_fields(request)


def test_nul_is_found_wherever_text_can_be() -> None:
    """In messages, lists of messages, lists of texts, and in the keys and values of maps."""
    struct = Struct()
    struct.update({"a": "b\0", "c\0": {"d": ["e", "f\0"]}})
    reader = RequestReader(Struct)
    raw = struct.SerializeToString()
    with pytest.raises(InvalidField) as refused:
        reader.check(reader.parse(raw), raw)
    assert sorted(violation.field for violation in refused.value.violations) == [
        "fields",
        "fields['a'].string_value",
        "fields['c\\x00'].struct_value.fields['d'].list_value.values[1].string_value",
    ]


def test_zero_bytes_that_are_no_text_are_fine() -> None:
    """Bitmaps, zeros and empty messages hold zero bytes and no NUL."""
    request = inbox_pb2.ListReadersRequest(broadcast_id=A_UUID, members=b"\0\0\0")
    reader = RequestReader(inbox_pb2.ListReadersRequest)
    raw = request.SerializeToString()
    assert b"\0" in raw
    reader.check(reader.parse(raw), raw)


def test_list_longer_than_its_rule_is_too_large() -> None:
    """1,001 values where 1,000 may be: told by the list's path, whatever else is wrong."""
    request = good_send()
    request.targeting.user_ids.extend([A_UUID] * 1001)
    request.targeting.roles.extend(["couple"] * 1001)
    request.title = ""
    with pytest.raises(TooLarge) as refused:
        SEND.check(request, b"")
    assert refused.value.violations == (
        FieldViolation("targeting.user_ids", "must have at most 1000 values"),
        FieldViolation("targeting.roles", "must have at most 1000 values"),
    )


def test_list_of_the_greatest_length_is_read() -> None:
    """1,000 values are 1,000 values."""
    request = good_send()
    request.targeting.user_ids.extend([A_UUID] * 1000)
    assert violations_of(request) == ()


def test_list_within_a_list_is_measured_too() -> None:
    """A request with few items, one of which is endless, is refused by that one."""
    reader = RequestReader(preferences_pb2.UpdatePreferencesRequest)
    request = preferences_pb2.UpdatePreferencesRequest()
    request.preferences.role_settings.add()
    request.preferences.role_settings.add().muted_types.extend(["x"] * 100_000)
    with pytest.raises(TooLarge) as refused:
        reader.check(request, b"")
    assert [each.field for each in refused.value.violations] == ["preferences.role_settings[1].muted_types"]


def test_endless_list_costs_next_to_nothing() -> None:
    """A million broken values, for which the rules alone would take half a minute, are refused at once."""
    request = sender_pb2.SendBroadcastRequest()
    request.targeting.user_ids.extend([""] * 1_000_000)
    started = time.process_time()
    with pytest.raises(TooLarge):
        SEND.check(request, b"")
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("seconds", [10**15, -(10**15)])
def test_time_that_does_not_exist_is_refused(seconds: int) -> None:
    """A timestamp outside the years 1 to 9999 would raise wherever it is converted."""
    request = good_send()
    request.scheduled_for.seconds = seconds
    assert broken_fields(request) == ["scheduled_for"]


@pytest.mark.parametrize(
    ("seconds", "nanos", "is_broken"),
    [
        (253_402_300_799, 999_998_999, False),
        (253_402_300_799, 999_999_000, True),
        (-62_135_596_800, 999, True),
        (-62_135_596_800, 1_000, False),
    ],
)
def test_time_that_a_database_takes_for_infinity_is_refused(
    seconds: int, nanos: int, *, is_broken: bool
) -> None:
    """The first and the last microsecond would come back as times without a zone, which nothing compares with."""
    request = good_send()
    request.expires_at.seconds, request.expires_at.nanos = seconds, nanos
    assert broken_fields(request) == (["expires_at"] if is_broken else [])


def test_broken_fraction_of_a_second_is_refused() -> None:
    """Nanoseconds are from 0 to 999,999,999 in a timestamp, and go with the seconds' sign in a duration."""
    request = good_send()
    request.scheduled_for.nanos = -1
    request.escalation.unacknowledged_after.seconds = 60
    request.escalation.unacknowledged_after.nanos = -5
    assert broken_fields(request) == ["escalation.unacknowledged_after", "scheduled_for"]
