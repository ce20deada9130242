"""What would leak from the dispatcher's tables without each of their policies."""

from collections.abc import Sequence
from typing import Final

from tests.integration.shared.leaks import Deed, Leak, own_rows, workers_rows

_NAMED, _OTHER = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
_FORGOTTEN = "00000000-0000-4000-8000-00000000000c"
_AS_NAMED = {"app.broadcast": _NAMED}

_CHUNK = """
    INSERT INTO chunks (
        broadcast_id, chunk, priority, kind, state, members, size, decided_version, decided_at, looked_at, epoch
    )
    VALUES ('{}', {}, 3, 'item', '{}', 'x', 1, 1, now(), now(), {})
"""
# Two broadcasts; of each a chunk that waits and one that has been merged. And one that is being removed.
ROWS: Final = "; ".join(
    (
        f"""
        INSERT INTO dispatches (
            broadcast_id, priority, state, type, category, essential, wall, directory_version, decide_time, targeted,
            begin_time, plan_time
        )
        SELECT each, 3, 'dispatching', 'feature.released', 'system', false, '{{}}', 1, now(), 2, now(), now()
        FROM unnest('{{{_NAMED},{_OTHER}}}'::uuid[]) AS each
        """,  # noqa: S608
        *(_CHUNK.format(each, 0, "pending", 0) for each in (_NAMED, _OTHER)),
        *(_CHUNK.format(each, 1, "done", 1) for each in (_NAMED, _OTHER)),
        f"""
        INSERT INTO dispatches (
            broadcast_id, priority, state, type, category, essential, wall, directory_version, decide_time, targeted,
            begin_time, plan_time, close_time, forgotten_at
        )
        SELECT
            '{_FORGOTTEN}', 3, 'closed', 'feature.released', 'system', false, '{{}}', 1, long_ago, 1, long_ago,
            long_ago, long_ago, now()
        FROM (SELECT now() - interval '91 days' AS long_ago) AS times
        """,  # noqa: S608
        _CHUNK.format(_FORGOTTEN, 0, "done", 1),
    )
)


def _works(statement: str) -> Deed:
    return Deed("dispatcher_worker", statement)


LEAKS: Final[Sequence[Leak]] = (
    own_rows("chunks", "named_broadcast", "broadcast_id", "dispatcher_api", _AS_NAMED, _NAMED),
    Leak(
        "chunks",
        "cancel_what_waits",
        lets=Deed("dispatcher_api", "UPDATE chunks SET state = 'cancelled'", _AS_NAMED),
        keeps=Deed(
            "dispatcher_api", "UPDATE chunks SET state = 'pending' WHERE state = 'pending'", _AS_NAMED
        ),
    ),
    workers_rows("chunks", "read_to_dispatch", "dispatcher"),
    Leak(
        "chunks",
        "add_what_is_not_final",
        lets=_works(_CHUNK.format(_NAMED, 2, "pending", 0)),
        keeps=_works(_CHUNK.format(_NAMED, 2, "done", 1)),
    ),
    Leak(
        "chunks",
        "change_what_is_not_final",
        lets=_works("UPDATE chunks SET looked_at = now()"),
        keeps=_works("UPDATE chunks SET looked_at = now() WHERE state = 'done'"),
    ),
    Leak(
        "chunks",
        "remove_what_was_never_sent",
        lets=_works("DELETE FROM chunks WHERE state = 'pending'"),
        keeps=_works(f"DELETE FROM chunks WHERE state = 'done' AND broadcast_id <> '{_FORGOTTEN}'"),  # noqa: S608
    ),
    Leak(
        "chunks",
        "remove_what_is_forgotten",
        lets=_works("DELETE FROM chunks WHERE state = 'done'"),
        keeps=_works(f"DELETE FROM chunks WHERE state = 'done' AND broadcast_id = '{_OTHER}'"),  # noqa: S608
    ),
)
