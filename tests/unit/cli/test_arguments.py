"""What a person may type, and what is said when they mistype."""

import pytest
from google.type.date_pb2 import Date
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Channel, Priority
from wedsync.broadcast.v1.sender_pb2 import AnalyticsGroup

from cli.arguments import (
    parse_channel,
    parse_day,
    parse_group,
    parse_interval,
    parse_priority,
    parse_state,
    parse_switch,
    parse_time,
    parse_time_of_day,
)
from cli.exits import ExitCode, Failure


def test_words_become_values() -> None:
    """Each parser reads the word that the tables print."""
    assert parse_priority("critical") == Priority.PRIORITY_CRITICAL
    assert parse_priority("") == Priority.PRIORITY_UNSPECIFIED
    assert parse_channel("in_app") == Channel.CHANNEL_IN_APP
    assert parse_state("awaiting_approval") == BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL
    assert parse_group("priority") == AnalyticsGroup.ANALYTICS_GROUP_PRIORITY
    assert parse_day("--first", "2027-05-01") == Date(year=2027, month=5, day=1)
    assert parse_switch("--business", "ON")
    assert (parse_time_of_day("--quiet", "22:30").hours, parse_time_of_day("--quiet", "22:30").minutes) == (
        22,
        30,
    )


def test_a_time_keeps_its_offset() -> None:
    """An offset in the text wins over the terminal's zone."""
    moment = parse_time("--at", "2027-05-01T18:30+02:00")
    assert moment is not None
    assert moment.ToJsonString() == "2027-05-01T16:30:00Z"


def test_an_interval_may_be_open_on_either_side() -> None:
    """What was not given is not there."""
    assert parse_interval("--since", "", "--until", "") is None
    later = parse_interval("--since", "2027-05-01T18:30Z", "--until", "")
    assert later is not None
    assert (later.start_time.ToJsonString(), later.HasField("end_time")) == ("2027-05-01T18:30:00Z", False)


@pytest.mark.parametrize("wrong", ["", "gone", "unspecified"])
def test_an_unknown_state_or_group_is_a_usage_error(wrong: str) -> None:
    """The message lists the words."""
    with pytest.raises(Failure, match="--state must be one of awaiting_approval, pending") as refused:
        parse_state(wrong)
    assert ExitCode.USAGE is refused.value.code
    with pytest.raises(Failure, match="--group must be one of broadcast, type, priority"):
        parse_group(wrong)


@pytest.mark.parametrize("wrong", ["today", "2027-02-30", "05/01/2027"])
def test_a_day_is_checked(wrong: str) -> None:
    """Only days that exist, as ISO 8601 writes them; none is none."""
    assert parse_day("--first", "") is None
    with pytest.raises(Failure, match="--first must be a day such as"):
        parse_day("--first", wrong)


@pytest.mark.parametrize("wrong", ["urgent", "CRIT", "1"])
def test_an_unknown_priority_is_a_usage_error(wrong: str) -> None:
    """The message lists the words."""
    with pytest.raises(Failure) as refused:
        parse_priority(wrong)
    assert ExitCode.USAGE is refused.value.code


@pytest.mark.parametrize("wrong", ["25:00", "noon", "22:5", ""])
def test_a_time_of_day_is_checked(wrong: str) -> None:
    """Only ISO 8601 times of day are read."""
    with pytest.raises(Failure):
        parse_time_of_day("--quiet", wrong)
