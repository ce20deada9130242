"""The names on NATS: made of closed sets, so that nothing that somebody typed becomes one."""

from collections.abc import Callable

import pytest

from shared import subjects
from shared.subjects import BadSubject


def test_subjects_are_those_of_the_contract() -> None:
    """Each subject as contract.md spells it."""
    assert subjects.broadcast_due("critical") == "broadcast.due.critical"
    assert subjects.broadcast_state("sent") == "broadcast.state.sent"
    assert subjects.delivery_inbox("low") == "delivery.inbox.low"
    assert subjects.delivery_external("sms", "high") == "delivery.external.sms.high"
    assert subjects.DELIVERY_REPORT == "delivery.report"
    assert subjects.DIRECTORY_CHANGED == "directory.changed"
    assert subjects.LIVE_INBOX == "live.inbox"
    assert subjects.LIVE_DISPATCH == "live.dispatch"


def test_critical_ranks_first() -> None:
    """The order in which the outbox publishes, which is not that of the alphabet."""
    assert [subjects.rank(priority) for priority in ("critical", "high", "normal", "low")] == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [subjects.broadcast_due, subjects.delivery_inbox, subjects.broadcast_state])
@pytest.mark.parametrize("part", ["", "urgent", "CRITICAL", "critical.x", ">", "high\r\nPUB x", "sent "])
def test_other_parts_are_refused(make: Callable[[str], str], part: str) -> None:
    """Neither another word nor a wildcard, a dot or a line end gets into a subject."""
    with pytest.raises(BadSubject):
        make(part)


def test_a_wildcard_has_no_rank() -> None:
    """`*` is for permissions and filters only."""
    with pytest.raises(BadSubject):
        subjects.rank("*")
    with pytest.raises(BadSubject):
        subjects.delivery_external("fax", "high")
