"""How long a recovery took is worked out from when things began and ended."""

from tests.chaos.recovery import Recovery, Span, percentile, recovery


def test_only_what_begins_after_the_kill_shows_that_sends_are_accepted_again() -> None:
    """A send that began before and ended after may have been answered by the one that was killed."""
    tries = [Span(9.0, 10.5), Span(10.2, 11.0), Span(12.0, 12.1)]
    assert recovery(10.0, tries, []) == Recovery(1.0, None)


def test_what_was_on_its_way_at_the_kill_has_arrived_when_the_last_of_it_has() -> None:
    """What had arrived before, and what was due only after it, says nothing."""
    broadcasts = [Span(8.0, 9.0), Span(9.0, 10.5), Span(9.9, 12.0), Span(10.1, 20.0)]
    assert recovery(10.0, [], broadcasts) == Recovery(None, 2.0)


def test_a_percentile_of_nothing_is_zero() -> None:
    """And that of some values is one of them."""
    assert (percentile([], 0.5), percentile([3.0, 1.0, 2.0], 0.5), percentile([1.0, 2.0], 1.0)) == (
        0.0,
        2.0,
        2.0,
    )
