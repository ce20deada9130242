"""A recount counts each person once, from the first time on; and a figure that is another is found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pyroaring import BitMap

from tests.chaos.checker import MISCOUNT, check_counts
from tests.chaos.recount import Deed, Mark, Part, People, recount

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)


PARTS = [
    Part("a", 5, at(0), BitMap(range(1, 9))),
    Part("a", 7, at(10), BitMap([20])),
    Part("b", 6, at(0), BitMap([1])),
]


def test_nobody_who_did_nothing_is_a_reader() -> None:
    """And what has no snapshot is not there, what has arrived nowhere is there with nobody."""
    assert recount({"a": 12, "c": 3}, PARTS, [], []) == {
        "a": People(12, 9, 0, 0, 0, timedelta()),
        "c": People(3, 0, 0, 0, 0, timedelta()),
    }


def test_each_is_counted_once_from_the_first_time_on() -> None:
    """By a receipt, by "all read" after the arrival, or both; not by one before it, nor by what was done elsewhere."""
    deeds = [
        Deed(1, "a", at(30), at(40), None),
        Deed(2, "a", at(50), None, at(50)),
        Deed(1, "b", at(5), None, None),
        Deed(9, "a", at(5), None, None),
    ]
    marks = [
        Mark(2, 6, at(20)),
        Mark(2, 9, at(25)),
        Mark(3, 5, at(3)),
        Mark(20, 8, at(12)),
        Mark(20, 6, at(11)),
    ]
    found = recount({"a": 12}, PARTS, deeds, marks)
    assert found == {"a": People(12, 9, 3, 1, 1, timedelta(seconds=30 + 20 + 2))}


def test_nobody_reads_before_it_is_there() -> None:
    """Though the time was taken before the transaction came through."""
    found = recount({"a": 12}, PARTS, [Deed(20, "a", at(9.9), None, None)], [])
    assert found["a"].time_to_read == timedelta()


RIGHT = People(12, 9, 3, 1, 1, timedelta(seconds=52))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(RIGHT, targeted=11),
        replace(RIGHT, delivered=8),
        replace(RIGHT, read=4),
        replace(RIGHT, acknowledged=0),
        replace(RIGHT, clicked=2),
        replace(RIGHT, time_to_read=timedelta(seconds=51)),
    ],
)
def test_a_miscount_is_found(wrong: People) -> None:
    """Each figure by itself, by the broadcast that it is of."""
    assert list(check_counts("analytics", {"a": RIGHT, "b": RIGHT}, {"a": RIGHT, "b": RIGHT})) == []
    (finding,) = check_counts("analytics", {"a": RIGHT, "b": RIGHT}, {"a": RIGHT, "b": wrong})
    assert (finding.kind, finding.about) == (MISCOUNT, "b")


def test_what_was_not_counted_and_what_never_was_dispatched_is_found() -> None:
    """Where all of it must be there."""
    findings = list(check_counts("analytics", {"a": RIGHT}, {"b": RIGHT}, has_no_others=True))
    assert sorted((finding.kind, finding.about) for finding in findings) == [(MISCOUNT, "a"), (MISCOUNT, "b")]


def test_stats_need_not_tell_how_long_it_took() -> None:
    """But the rest must be right."""
    told = replace(RIGHT, time_to_read=None)
    assert list(check_counts("stats", {"a": RIGHT}, {"a": told, "b": told})) == []
    assert len(list(check_counts("stats", {"a": RIGHT}, {"a": replace(told, read=2)}))) == 1
