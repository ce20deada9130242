"""What the log says is what was written to it."""

from datetime import UTC, datetime
from uuid import UUID

from services.preferences.changes import ChangeKind, Changes, gather, recipients_changed, weddings_changed
from shared.audience import Audience
from shared.ordered_log import LogEntry

ONE, TWO, THREE, FOUR = (UUID(int=number) for number in range(1, 5))


def _log(*entries: tuple[str, bytes]) -> list[LogEntry]:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    return [LogEntry(position, kind, body, at) for position, (kind, body) in enumerate(entries, start=1)]


def test_entries_add_up() -> None:
    """People of all entries, weddings to be read again, and among these the ones whose facts changed."""
    changes = gather(
        _log(
            recipients_changed([5, 70_000]),
            recipients_changed([1]),
            weddings_changed(ChangeKind.WEDDINGS, [ONE, TWO]),
            weddings_changed(ChangeKind.TEAM, [THREE]),
            weddings_changed(ChangeKind.FILTERS, [FOUR]),
        )
    )
    assert changes == Changes(
        Audience.of([1, 5, 70_000]),
        frozenset({ONE, TWO}),
        frozenset({ONE, TWO, THREE, FOUR}),
        is_reload=False,
    )


def test_a_reload_is_seen_among_others() -> None:
    """Whatever else the stretch says."""
    assert gather(_log(recipients_changed([1]), (ChangeKind.RELOAD, b""))).is_reload
    assert not gather([]).is_reload
