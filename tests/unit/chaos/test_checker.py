"""The checker sees what it is there for: each way to lose, repeat or invent something is found and told by its name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest
from pyroaring import BitMap

from tests.chaos.checker import (
    AFTER_CANCEL,
    DUPLICATE,
    LOST,
    UNEXPECTED,
    Accepted,
    Copies,
    Fate,
    Ledger,
    Seen,
    Sent,
    Verdict,
    check,
)

PEOPLE: Final = BitMap([1, 2, 3])


def accepted(name: str, fate: Fate = Fate.DELIVERED, at: float = 1.0) -> Accepted:
    """A broadcast to 1, 2 and 3."""
    return Accepted(name, PEOPLE, PEOPLE, fate, at)


def copies(*numbers: int) -> Copies:
    """Found with these people, in this order."""
    found = Copies()
    for number in numbers:
        found.add(BitMap([number]))
    return found


def ledger(name: str, state: str = "sent", delivered: int = 3, targeted: int = 3) -> Ledger:
    """One that adds up to `targeted` on both channels."""
    rest = {"cancelled": targeted - delivered} if delivered < targeted else {}
    return Ledger(
        name,
        state,
        targeted,
        {"realtime": {"sent": delivered} | rest, "in_app": {"delivered": delivered} | rest},
    )


def judged(
    broadcasts: list[Accepted],
    merged: Mapping[str, Copies],
    *,
    listed: Mapping[str, Copies] | None = None,
    sent: list[Sent] | None = None,
    seen: tuple[Seen, ...] = (),
    ledgers: Mapping[str, Ledger] | None = None,
) -> Verdict:
    """The verdict when lists show what is on record, and every send was acknowledged, unless said otherwise."""
    sends = [Sent(each.broadcast_id, True, (each.broadcast_id,)) for each in broadcasts]
    usual = {each.broadcast_id: ledger(each.broadcast_id) for each in broadcasts}
    return check(
        sends if sent is None else sent,
        broadcasts,
        merged,
        merged if listed is None else listed,
        PEOPLE,
        seen,
        usual if ledgers is None else ledgers,
    )


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {finding.kind for finding in verdict.findings}


def test_a_run_without_fault_is_clean() -> None:
    """Everybody has it once, the stream showed it once, the ledger adds up: nothing is found, and the sets are told."""
    seen = Seen("one", 1, {"a": 1}, {"a": 1})
    verdict = judged([accepted("a")], {"a": copies(1, 2, 3)}, seen=(seen,))
    assert verdict == Verdict(attempted=1, acknowledged=1, recovered=0, delivered=3, findings=())


def test_an_item_that_one_recipient_does_not_have_is_lost() -> None:
    """On record and in the list alike."""
    verdict = judged(
        [accepted("a")], {"a": copies(1, 3)}, ledgers={"a": ledger("a", delivered=2, targeted=2)}
    )
    assert (kinds(verdict), verdict.count(LOST)) == ({LOST}, 2)


@pytest.mark.parametrize(("missing", "part"), [("a", "prefix"), ("b", "middle"), ("c", "tail")])
def test_what_is_lost_is_told_apart_by_its_place(missing: str, part: str) -> None:
    """Before all that somebody has, between, or after: a lost beginning, a hole, a lost end."""
    merged = {name: copies(1, 2, 3) for name in "abc"}
    merged[missing] = copies(1, 2)
    broadcasts = [accepted(name, at=place) for place, name in enumerate("abc")]
    verdict = judged(broadcasts, merged)
    assert {finding.detail for finding in verdict.findings if finding.kind == LOST} == {
        f"on record: {part}",
        f"in a list: {part}",
    }


def test_an_item_that_one_recipient_has_twice_is_a_duplicate() -> None:
    """Also when only the list shows it twice."""
    listed = {"a": copies(1, 2, 2, 3)}
    verdict = judged([accepted("a")], {"a": copies(1, 2, 3)}, listed=listed)
    assert (kinds(verdict), verdict.count(DUPLICATE)) == ({DUPLICATE}, 1)


def test_an_item_of_somebody_else_is_unexpected() -> None:
    """A recipient outside the audience has it."""
    verdict = judged([accepted("a")], {"a": copies(1, 2, 3, 4)}, listed={"a": copies(1, 2, 3)})
    assert verdict.count(UNEXPECTED) == 1


def test_an_item_that_nobody_sent_is_unexpected() -> None:
    """Whatever is in an inbox was accepted from somebody."""
    verdict = judged([accepted("a")], {"a": copies(1, 2, 3), "b": copies(1)})
    assert (kinds(verdict), verdict.count(UNEXPECTED)) == ({UNEXPECTED}, 2)


def test_an_item_that_arrives_after_a_cancel_is_found() -> None:
    """One had it when the cancel returned; two have it now."""
    cancelled = replace(accepted("a", Fate.STOPPED), arrived=BitMap([1]), already_sent=1)
    ledgers = {"a": ledger("a", "cancelled", delivered=2)}
    assert judged([cancelled], {"a": copies(1)}, ledgers={"a": ledger("a", "cancelled", 1)}).findings == ()
    assert kinds(judged([cancelled], {"a": copies(1, 2)}, ledgers=ledgers)) == {AFTER_CANCEL}


def test_an_item_that_was_taken_out_and_is_still_shown_is_found() -> None:
    """After a cancel with retract nobody is shown it, although it stays on record who had it."""
    hidden = replace(accepted("a", Fate.HIDDEN), arrived=BitMap([1]), already_sent=1)
    ledgers = {"a": ledger("a", "cancelled", delivered=1)}
    assert judged([hidden], {"a": copies(1)}, listed={}, ledgers=ledgers).findings == ()
    assert kinds(judged([hidden], {"a": copies(1)}, listed={"a": copies(1)}, ledgers=ledgers)) == {
        AFTER_CANCEL
    }


def test_an_item_that_was_rejected_and_is_there_is_found() -> None:
    """Nobody has it, nobody is shown it, and it is rejected for good."""
    rejected, ledgers = accepted("a", Fate.REJECTED), {"a": Ledger("a", "rejected", 0, {})}
    assert judged([rejected], {}, ledgers=ledgers).findings == ()
    assert kinds(judged([rejected], {"a": copies(1)}, ledgers=ledgers)) == {UNEXPECTED}
    assert kinds(judged([rejected], {}, seen=(Seen("one", 1, {"a": 1}, {}),), ledgers=ledgers)) == {
        UNEXPECTED
    }
    assert kinds(judged([rejected], {}, ledgers={"a": Ledger("a", "sent", 0, {})})) == {"state"}


def test_an_item_that_is_shown_outside_its_wall_is_found() -> None:
    """Who has left the team has it on record still, and must not be shown it; who is on the team may be."""
    walled = replace(accepted("b"), must=BitMap(), team=BitMap([1, 2]))
    on_record = {"b": copies(1, 2, 3)}
    assert judged([walled], on_record, listed={"b": copies(1, 2)}).findings == ()
    (finding,) = judged([walled], on_record, listed={"b": copies(1, 3)}).findings
    assert (finding.kind, finding.detail, finding.count) == (UNEXPECTED, "in a list, outside the wall", 1)


def test_who_changed_their_mind_may_have_it_or_not() -> None:
    """Between must and may both are right, once."""
    undecided = replace(accepted("a"), must=BitMap([1, 2]))
    fewer = {"a": ledger("a", delivered=2, targeted=2)}
    assert judged([undecided], {"a": copies(1, 2)}, ledgers=fewer).findings == ()
    assert judged([undecided], {"a": copies(1, 2, 3)}).findings == ()


@pytest.mark.parametrize(
    ("added", "alerts", "kind"),
    [
        ({}, {}, LOST),
        ({"a": 2}, {}, DUPLICATE),
        ({"a": 1}, {"a": 2}, DUPLICATE),
        ({"a": 1, "x": 1}, {}, UNEXPECTED),
        ({"a": 1}, {"x": 1}, UNEXPECTED),
    ],
)
def test_a_stream_that_misses_repeats_or_invents_is_found(
    added: dict[str, int], alerts: dict[str, int], kind: str
) -> None:
    """Exactly once for what was added, at most once for an alert, and nothing that is somebody else's."""
    verdict = judged([accepted("a")], {"a": copies(1, 2, 3)}, seen=(Seen("one", 1, added, alerts),))
    assert kinds(verdict) == {kind}


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (ledger("a", "dispatching"), "state"),
        (ledger("a", targeted=4, delivered=4), "ledger"),
        (Ledger("a", "sent", 3, {"realtime": {"sent": 2}, "in_app": {"delivered": 3}}), "ledger"),
        (
            Ledger("a", "sent", 3, {"realtime": {"sent": 2, "pending": 1}, "in_app": {"delivered": 3}}),
            "ledger",
        ),
        (Ledger("a", "sent", 3, {}), "ledger"),
    ],
)
def test_a_ledger_that_does_not_add_up_is_found(wrong: Ledger, kind: str) -> None:
    """Its state is final, each channel adds up to the audience, nothing is pending, and it says what is on record."""
    assert kinds(judged([accepted("a")], {"a": copies(1, 2, 3)}, ledgers={"a": wrong})) == {kind}


def test_sends_are_compared_with_what_the_suite_has_made_of_them() -> None:
    """Accepted twice, acknowledged and gone, refused without reason; accepted without an answer is recovered."""
    broadcasts = [accepted(name) for name in "abcd"]
    sent = [
        Sent("twice", True, ("a", "b")),
        Sent("silent", False, ("c",)),
        Sent("late", True, ("d",), is_recovered=True),
        Sent("gone", True, ()),
        Sent("refused", False, (), "INTERNAL: something"),
    ]
    verdict = judged(broadcasts, {name: copies(1, 2, 3) for name in "abcd"}, sent=sent)
    assert verdict.recovered == 2
    assert sorted((finding.kind, finding.about) for finding in verdict.findings) == [
        (DUPLICATE, "twice"),
        (LOST, "gone"),
        ("refused", "refused"),
    ]
