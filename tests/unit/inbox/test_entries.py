"""What the log says, read."""

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from services.inbox.domain import ArrivalKind, Receipt, Team
from services.inbox.entries import (
    AllRead,
    Arrived,
    ReceiptsRecorded,
    Retracted,
    Returned,
    ReturnedItem,
    TeamChanged,
    arrival_body,
    read_entry,
)
from shared.audience import Audience
from shared.ordered_log import LogEntry

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
MICROSECONDS = 1_795_348_800_123_456
BROADCAST = UUID("01234567-89ab-cdef-0123-456789abcdef")


def entry(kind: str, body: bytes) -> LogEntry:
    """An entry at position 5."""
    return LogEntry(5, kind, body, NOW)


@pytest.mark.parametrize("kind", list(ArrivalKind))
def test_an_arrival_names_its_broadcast_and_members(kind: ArrivalKind) -> None:
    """What was written is read."""
    members = Audience.of([1, 5000, 70_000])
    said = read_entry(entry(kind.value, arrival_body(BROADCAST, members)))
    assert said == Arrived(5, NOW, kind, BROADCAST, members)


def test_receipts_are_by_recipient_with_times_to_the_microsecond() -> None:
    """Null is never."""
    other = uuid4()
    said = [
        [7, str(BROADCAST), MICROSECONDS, None, None, None],
        [8, str(BROADCAST), MICROSECONDS, MICROSECONDS, None, None],
        [7, str(other), None, None, None, MICROSECONDS],
    ]
    assert read_entry(entry("receipts", json.dumps(said).encode())) == ReceiptsRecorded(
        5,
        {
            7: (Receipt(BROADCAST, NOW, None, None, None), Receipt(other, None, None, None, NOW)),
            8: (Receipt(BROADCAST, NOW, NOW, None, None),),
        },
    )


def test_receipts_of_items_that_are_kept_somewhere_have_that_too() -> None:
    """Until when they are snoozed, and since when they are pinned."""
    said = [[7, str(BROADCAST), None, None, None, None, MICROSECONDS, None]]
    assert read_entry(entry("receipts", json.dumps(said).encode())) == ReceiptsRecorded(
        5, {7: (Receipt(BROADCAST, None, None, None, None, NOW, None),)}
    )


def test_items_that_are_back_are_by_recipient_with_how_they_had_arrived() -> None:
    """And what each of them has done with it."""
    said = {
        "broadcast": str(BROADCAST),
        "items": [[7, MICROSECONDS, True, None, None, None, None, None, MICROSECONDS]],
    }
    receipt = Receipt(BROADCAST, None, None, None, None, None, NOW)
    assert read_entry(entry("returned", json.dumps(said).encode())) == Returned(
        5, BROADCAST, {7: ReturnedItem(NOW, True, receipt)}
    )


def test_the_other_kinds() -> None:
    """All read, retracted, expired, a team."""
    assert read_entry(
        entry("all_read", json.dumps({"recipient": 7, "at": MICROSECONDS}).encode())
    ) == AllRead(5, 7, NOW)
    for kind in ("retracted", "expired"):
        assert read_entry(entry(kind, BROADCAST.bytes)) == Retracted(5, BROADCAST)
    said = {"wedding": str(BROADCAST), "version": 3, "members": [1, 2], "moved": [2, 9]}
    assert read_entry(entry("team", json.dumps(said).encode())) == TeamChanged(
        5, Team(BROADCAST, 3, Audience.of([1, 2])), Audience.of([2, 9])
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [("rumour", b"{}"), ("item", b"short"), ("item", BROADCAST.bytes + b"x"), ("team", b"no json")],
)
def test_what_is_not_understood_is_an_error(kind: str, body: bytes) -> None:
    """For the reader of the log to pass over."""
    with pytest.raises(ValueError):  # noqa: PT011 one kind of error for all
        read_entry(entry(kind, body))
