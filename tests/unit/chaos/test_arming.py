"""Every failpoint gets its turn, whatever else its process dies of."""

from pathlib import Path
from random import Random

import pytest

from tests.chaos.arming import Arming


@pytest.fixture
def arming(tmp_path: Path) -> Arming:
    """Two failpoints of one service; the third name belongs to another."""
    arming = Arming(Random(1), tmp_path / "failpoints.log")
    arming.declare("sender", ["sender.one", "sender.two", "inbox.three"])
    arming.begin()
    return arming


def killing(armed: str) -> str:
    """The failpoint that a process is to die at."""
    return next(entry.partition("=")[0] for entry in armed.split(";") if entry.endswith("=kill@1"))


def die(arming: Arming, process: str, name: str, pid: int) -> str | None:
    """A process dies at a failpoint."""
    with arming.log.open("a") as log:
        log.write(f"{name} kill 1 {pid}\n")
    return arming.note_end(process, "sender", pid)


def test_every_failpoint_kills_once(arming: Arming) -> None:
    """Two processes get the two between them, and nothing is missing when both have fired."""
    first, second = killing(arming.take("a", "sender")), killing(arming.take("b", "sender"))
    assert {first, second} == {"sender.one", "sender.two"}
    assert die(arming, "a", first, 10) == first
    assert arming.missing() == [second]
    assert die(arming, "b", second, 11) == second
    assert (arming.missing(), arming.is_through()) == ([], True)


def test_one_that_did_not_get_to_fire_is_armed_again(arming: Arming) -> None:
    """Its process was killed by something else; the next process has it."""
    first, second = killing(arming.take("a", "sender")), killing(arming.take("b", "sender"))
    assert arming.note_end("a", "sender", 10) is None
    assert killing(arming.take("a", "sender")) == first
    assert die(arming, "b", second, 11) == second
    assert killing(arming.take("b", "sender")) == first, (
        "armed in both, because either may be the one to reach it"
    )


def test_nothing_is_armed_outside_a_storm(arming: Arming) -> None:
    """What starts after it can die of nothing."""
    arming.end()
    assert arming.take("a", "sender") == ""
