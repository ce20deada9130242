"""What the log has said lately, against a plain list of its entries."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.preferences import history
from services.preferences.changes import (
    ChangeKind,
    Changes,
    Entry,
    gather,
    recipients_changed,
    weddings_changed,
)
from services.preferences.history import RecentChanges
from shared.audience import Audience
from shared.ordered_log import LogEntry

entries = st.one_of(
    st.lists(st.integers(1, 1_000), max_size=3).map(recipients_changed),
    st.builds(
        weddings_changed,
        st.sampled_from([ChangeKind.WEDDINGS, ChangeKind.TEAM, ChangeKind.FILTERS]),
        st.lists(st.integers(1, 50).map(lambda number: UUID(int=number)), min_size=1, max_size=2),
    ),
)


def at(position: int, entry: Entry) -> LogEntry:
    """An entry at a place in the log."""
    return LogEntry(position, *entry, datetime(2026, 6, 10, tzinfo=UTC))


@given(
    said=st.lists(entries, min_size=1, max_size=300),
    first=st.integers(1, 1_000_000),
    sizes=st.lists(st.integers(1, 90)),
    asked=st.data(),
)
def test_what_is_told_is_what_the_entries_after_a_version_say(
    said: list[Entry], first: int, sizes: list[int], asked: st.DataObject
) -> None:
    """From any version on, however the entries came in; before the first that it had it does not know."""
    log = [at(first + place, entry) for place, entry in enumerate(said)]
    recent, come = RecentChanges(), 0
    for size in [*sizes, len(log)]:
        recent.add(log[come : come + size])
        come = min(come + size, len(log))
        version = asked.draw(st.integers(first - 1, log[come - 1].position))
        assert recent.since(version) == gather(log[version - first + 1 : come])
    assert recent.since(first - 2) is None


def test_nothing_is_known_before_the_first_entry() -> None:
    """Nor after all is forgotten."""
    recent = RecentChanges()
    assert recent.since(0) is None
    recent.add([at(1, recipients_changed([7]))])
    assert recent.since(0) == Changes(Audience.of([7]))
    recent.forget()
    assert recent.since(0) is None


def test_ten_thousand_changes_are_read_once_however_often_somebody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asking after each of them, as a fan-out among them does, reads less than a hundred entries a question."""
    read: list[int] = []

    def counted(entries: list[LogEntry]) -> Changes:
        found = list(entries)
        read.append(len(found))
        return gather(found)

    monkeypatch.setattr(history, "gather", counted)
    recent, questions = RecentChanges(), 0
    for position in range(1, 10_001):
        recent.add([at(position, recipients_changed([position]))])
        if position % 10 == 0:
            found = recent.since(0)
            assert found is not None
            assert len(found.recipients) == position
            questions += 1
    assert questions == 1_000
    assert sum(read) < 10_000 + questions * 64
