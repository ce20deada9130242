"""How much each sender may send, and what they are told when that is used up."""

from datetime import UTC, datetime, timedelta

import pytest
from google.rpc.code_pb2 import RESOURCE_EXHAUSTED

from services.sender.domain import Author, Priority
from services.sender.limits import LARGEST, SERVICES, Limit, Limits, Quota, Standing, Tally, rate_limited

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CONFIGURED = "billing:payment.required/high=1000,5000; billing:*=200,800; *:trial.ending=7,8; *:*/low=3,4"


def tally(name: str, broadcast_type: str, priority: Priority, *, is_service: bool = True) -> Tally:
    """What somebody's sends of this kind are counted as."""
    return Tally(Author(name, is_service), broadcast_type, priority, None)


@pytest.mark.parametrize(
    ("priority", "limit"),
    [
        (Priority.CRITICAL, Limit(5, 20)),
        (Priority.HIGH, Limit(10, 50)),
        (Priority.NORMAL, Limit(25, 100)),
        (Priority.LOW, Limit(50, 200)),
    ],
)
def test_people_have_the_limits_of_the_table(priority: Priority, limit: Limit) -> None:
    """Whatever is configured for service accounts, also for one of the same name."""
    limits = Limits.parse("*:*=900,900; ada:*=800,800")
    assert limits.of(tally("ada", "feature.released", priority, is_service=False)) == limit


@pytest.mark.parametrize(
    ("account", "broadcast_type", "priority", "limit"),
    [
        ("billing", "payment.required", Priority.HIGH, Limit(1000, 5000)),
        ("billing", "payment.required", Priority.LOW, Limit(200, 800)),
        ("billing", "trial.ending", Priority.NORMAL, Limit(200, 800)),
        ("forms", "trial.ending", Priority.LOW, Limit(7, 8)),
        ("forms", "form.locked", Priority.LOW, Limit(3, 4)),
        ("forms", "form.locked", Priority.HIGH, SERVICES[Priority.HIGH]),
    ],
)
def test_the_entry_that_says_most_decides(
    account: str, broadcast_type: str, priority: Priority, limit: Limit
) -> None:
    """An account before all others, then a type, then a priority; else what an account has to begin with."""
    assert Limits.parse(CONFIGURED).of(tally(account, broadcast_type, priority)) == limit


def test_an_account_that_nobody_configured_has_twenty_times_a_persons_limit() -> None:
    """For each priority."""
    assert Limits.parse("").of(tally("forms", "form.locked", Priority.NORMAL)) == Limit(500, 2000)
    assert Limits.parse(" ; ").of(tally("forms", "security.alert", Priority.CRITICAL)) == Limit(100, 400)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("billing", "is not like"),
        ("billing:payment.required", "is not like"),
        ("billing:payment.required=10", "is not like"),
        ("billing:payment.required/=10,20", "is not like"),
        ("billing:payment.required=-1,20", "is not like"),
        ("two words:*=1,2", "is not like"),
        (":*=1,2", "is not like"),
        ("billing:payment.requird=10,20", "payment.requird, which is not a broadcast type"),
        ("billing:*/urgent=10,20", "urgent, which is not a priority"),
        ("billing:*=0,20", "at least 1"),
        ("billing:*=21,20", "as many in 24"),
        (f"billing:*=1,{LARGEST + 1}", "1,000,000 at most"),
        ("billing:*=1,2; billing:*=1,2", "again"),
    ],
)
def test_a_faulty_entry_is_quoted_with_its_fault(entry: str, fault: str) -> None:
    """Whoever configures it sees what to mend."""
    with pytest.raises(ValueError, match=fault) as refused:
        Limits.parse(entry)
    assert entry.rpartition("; ")[2] in str(refused.value)


def test_what_is_left_is_never_less_than_nothing() -> None:
    """A limit that was lowered by configuration may be far behind what was sent."""
    quota = Quota(Limit(5, 20), hour_used=7, day_used=7)
    assert (quota.hour_remaining, quota.day_remaining) == (0, 13)


def test_a_refusal_says_which_limit_and_until_when() -> None:
    """For people in words, for programs in details; nobody is named in either."""
    about = Tally(Author("ada", is_service=False), "timeline.changed", Priority.HIGH, "wedding")
    standing = Standing(Quota(Limit(10, 50), 10, 12, NOW + timedelta(minutes=30)), NOW)
    error = rate_limited(about, standing.quota, standing.retry_after_s)
    assert error.status == RESOURCE_EXHAUSTED
    assert error.message == (
        "The limit of high timeline.changed about this wedding, 10 in any hour, "
        "is used up until 2026-11-22 12:30:00 UTC."
    )
    assert [(each.subject, each.description) for each in error.quota] == [
        ("high timeline.changed about this wedding", "10 in any hour")
    ]
    assert error.retry_after_s == 1800.0
    assert error.metadata == {
        "reset_time": "2026-11-22T12:30:00Z",
        "hour_limit": "10",
        "hour_remaining": "0",
        "day_limit": "50",
        "day_remaining": "38",
    }
    assert "ada" not in str(error.to_rich_status())


def test_a_refusal_needs_a_limit_that_is_used_up() -> None:
    """Whoever has one left is not refused by mistake."""
    with pytest.raises(ValueError, match="left"):
        rate_limited(tally("forms", "form.locked", Priority.LOW), Quota(Limit(5, 20), 4, 4), 0.0)


def test_a_refusal_names_both_windows_when_both_are_full() -> None:
    """The later of the two is when there is room again."""
    standing = Standing(Quota(Limit(1, 1), 1, 1, NOW + timedelta(hours=24)), NOW)
    sent = tally("forms", "form.locked", Priority.LOW)
    error = rate_limited(sent, standing.quota, standing.retry_after_s)
    assert [each.description for each in error.quota] == ["1 in any hour", "1 in any 24 hours"]
    assert error.retry_after_s == 86_400.0
