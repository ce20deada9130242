"""What would leak from the inbox's tables without each of their policies."""

from collections.abc import Sequence
from typing import Final

from tests.integration.shared.leaks import Deed, Leak, own_rows, workers_rows

_ME, _OTHER = 1, 2
_OPEN, _WALLED = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
_WEDDING, _NIL = "00000000-0000-4000-8000-0000000000aa", "00000000-0000-0000-0000-000000000000"
_AS_ME = {"app.recipient": _ME}

# Two people, the other one of whom is on the team of what is walled. Each has one of everything, and in another block
# somebody has the place that is mine in the first.
ROWS: Final = f"""
    INSERT INTO recipients SELECT gen_random_uuid(), number FROM generate_series(1, 2) AS number;
    INSERT INTO team_members VALUES ('{_WEDDING}', {_OTHER}), (gen_random_uuid(), {_ME});
    INSERT INTO broadcasts (broadcast_id, type, category, priority, title, message, wall, words)
    VALUES
        ('{_OPEN}', 'feature.released', 1, 3, 't', 'm', '{{{_NIL}}}', ''),
        ('{_WALLED}', 'timeline.changed', 3, 3, 't', 'm', '{{{_WEDDING}}}', '');
    INSERT INTO blocks
    SELECT block, position, '{_OPEN}', false, now(), set_bit(repeat('0', 4096)::bit(4096), place, 1)
    FROM (VALUES (0, {_ME}, {_ME}), (0, {_OTHER}, {_OTHER}), (1, 3, {_ME})) AS bits (block, position, place);
    INSERT INTO direct SELECT number, number, '{_WALLED}', false, now() FROM recipients;
    INSERT INTO receipts (recipient_number, broadcast_id, read_at) SELECT number, '{_OPEN}', now() FROM recipients;
    INSERT INTO watermarks SELECT number, 1, now() FROM recipients;
    INSERT INTO changes SELECT number, 1 FROM recipients;
    SELECT append_log('item', '');
"""  # noqa: S608


def _own(table: str, policy: str) -> Leak:
    return own_rows(table, policy, "recipient_number", "inbox_api", _AS_ME, _ME)


_WORKED: Final = (
    "blocks",
    "changes",
    "direct",
    "log",
    "receipts",
    "recipients",
    "team_members",
    "watermarks",
)
LEAKS: Final[Sequence[Leak]] = (
    own_rows("blocks", "own_arrivals", "position", "inbox_api", _AS_ME, _ME),
    _own("direct", "own_arrivals"),
    _own("team_members", "own_teams"),
    _own("receipts", "own_receipts"),
    _own("watermarks", "own_watermarks"),
    _own("changes", "own_changes"),
    own_rows("broadcasts", "inside_the_wall", "broadcast_id", "inbox_api", _AS_ME, _OPEN),
    *(workers_rows(table, "worker_reads_and_writes", "inbox") for table in _WORKED),
    Leak(
        "broadcasts",
        "worker_reads_and_writes",
        lets=Deed("inbox_worker", "SELECT FROM broadcasts"),
        # What is about no wedding, everybody may read who finds it in their inbox.
        keeps=Deed("inbox_api", f"SELECT FROM broadcasts WHERE broadcast_id = '{_WALLED}'"),
    ),
    *(
        Leak(
            table,
            "owner_loads",
            lets=Deed("inbox_owner", f"INSERT INTO {table} VALUES (gen_random_uuid(), 9)"),  # noqa: S608
            keeps=Deed("inbox_api", f"INSERT INTO {table} VALUES (gen_random_uuid(), 9)"),  # noqa: S608
        )
        for table in ("recipients", "team_members")
    ),
)
