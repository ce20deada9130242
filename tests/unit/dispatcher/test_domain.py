"""The words of a dispatch: which state may follow which, how much may be on its way, and what the ledger counts."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.domain import (
    CHUNK_TRANSITIONS,
    Channel,
    ChunkCount,
    ChunkState,
    DeliveryState,
    InFlightLimit,
    Kind,
    LedgerLine,
    Priority,
    Reason,
    ledger,
)

LIMIT = InFlightLimit(chunks=2, members=100, most_chunks=5)


def count(kind: Kind, state: ChunkState, members: int, **named: Channel | Reason) -> ChunkCount:
    """One chunk of so many members."""
    channel, reason = named.get("channel"), named.get("reason")
    assert channel is None or isinstance(channel, Channel)
    assert reason is None or isinstance(reason, Reason)
    return ChunkCount(kind, state, channel, reason, 1, members)


def test_critical_sorts_first() -> None:
    """The order of the numbers is the order of urgency."""
    assert [each.slug for each in sorted(Priority)] == ["critical", "high", "normal", "low"]


def test_every_state_has_its_followers() -> None:
    """No state is missing from the table, and none leads to a state that does not exist."""
    assert set(CHUNK_TRANSITIONS) == set(ChunkState)
    assert {state for state in ChunkState if state.is_final} == {
        ChunkState.DONE,
        ChunkState.SUPPRESSED,
        ChunkState.CANCELLED,
        ChunkState.EXPIRED,
    }


def test_every_chunk_can_come_to_an_end() -> None:
    """From each state some final one can be reached."""
    for start in ChunkState:
        seen, ahead = set[ChunkState](), deque([start])
        while ahead:
            state = ahead.popleft()
            if state not in seen:
                seen.add(state)
                ahead.extend(CHUNK_TRANSITIONS[state])
        assert any(state.is_final for state in seen)


def test_a_chunk_on_its_way_is_never_expired_or_held_again() -> None:
    """Once sent, only the inbox's word counts."""
    assert CHUNK_TRANSITIONS[ChunkState.LEASED] == {
        ChunkState.LEASED,
        ChunkState.DONE,
        ChunkState.CANCELLED,
    }


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], 0),
        ([500], 1),
        ([500, 500, 500], 2),
        ([20] * 9, 5),
        ([40, 40, 20, 1], 3),
        ([40, 40, 21, 1], 2),
        ([90, 90, 1], 2),
    ],
    ids=["none", "one", "two large", "most", "up to the bound", "past the bound", "two past the bound"],
)
def test_two_chunks_leave_or_more_that_are_small_together(sizes: list[int], expected: int) -> None:
    """Two of any size; further ones while all of them together stay within the bound on members and on chunks."""
    assert LIMIT.allowance(sizes) == expected


@given(st.lists(st.integers(1, 200)))
def test_the_allowance_keeps_its_bounds(sizes: list[int]) -> None:
    """Never more than the most, never fewer than two while there are two, and no more members than allowed past two."""
    allowed = LIMIT.allowance(sizes)
    assert min(len(sizes), LIMIT.chunks) <= allowed <= min(len(sizes), LIMIT.most_chunks)
    assert allowed <= LIMIT.chunks or sum(sizes[:allowed]) <= LIMIT.members


def test_the_ledger_tells_every_outcome_on_its_channel() -> None:
    """An item counts on both channels, a silent one and its alert on one each, a suppressed one with its reason."""
    lines = ledger(
        [
            count(Kind.ITEM, ChunkState.DONE, 5),
            count(Kind.ITEM, ChunkState.DONE, 2),
            count(Kind.ITEM, ChunkState.LEASED, 3),
            count(Kind.SILENT_ITEM, ChunkState.PENDING, 4),
            count(Kind.ALERT, ChunkState.HELD, 3),
            count(Kind.ALERT, ChunkState.EXPIRED, 1),
            count(Kind.NONE, ChunkState.SUPPRESSED, 6, channel=Channel.IN_APP, reason=Reason.OUTSIDE_WALL),
            count(Kind.NONE, ChunkState.SUPPRESSED, 6, channel=Channel.REALTIME, reason=Reason.TYPE_MUTED),
        ]
    )
    assert lines == [
        LedgerLine(Channel.IN_APP, DeliveryState.DELIVERED, None, 7),
        LedgerLine(Channel.IN_APP, DeliveryState.PENDING, None, 7),
        LedgerLine(Channel.IN_APP, DeliveryState.SUPPRESSED, Reason.OUTSIDE_WALL, 6),
        LedgerLine(Channel.REALTIME, DeliveryState.EXPIRED, None, 1),
        LedgerLine(Channel.REALTIME, DeliveryState.HELD, None, 3),
        LedgerLine(Channel.REALTIME, DeliveryState.PENDING, None, 3),
        LedgerLine(Channel.REALTIME, DeliveryState.SENT, None, 7),
        LedgerLine(Channel.REALTIME, DeliveryState.SUPPRESSED, Reason.TYPE_MUTED, 6),
    ]


def test_a_cancelled_item_is_cancelled_on_both_channels() -> None:
    """Nobody of it was reached in any way."""
    lines = ledger([count(Kind.ITEM, ChunkState.CANCELLED, 9)])
    assert {(line.channel, line.state, line.count) for line in lines} == {
        (Channel.IN_APP, DeliveryState.CANCELLED, 9),
        (Channel.REALTIME, DeliveryState.CANCELLED, 9),
    }


def test_an_empty_ledger_has_no_lines() -> None:
    """A broadcast that meant nobody has nothing to tell."""
    assert ledger([]) == []
