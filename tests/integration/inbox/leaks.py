"""What would leak from the inbox's tables without each of their policies."""

from collections.abc import Sequence
from typing import Final

from tests.integration.shared.leaks import Deed, Leak, own_rows, workers_rows

_ME, _OTHER = 1, 2
_OPEN, _WALLED = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
_LEFT, _EMPTIED = "00000000-0000-4000-8000-00000000000c", "00000000-0000-4000-8000-00000000000d"
_WEDDING, _NIL = "00000000-0000-4000-8000-0000000000aa", "00000000-0000-0000-0000-000000000000"
_AS_ME = {"app.recipient": _ME}
_BLOCK: Final = """
    INSERT INTO blocks VALUES (0, {}, '{}', false, now(), set_bit(repeat('0', 4096)::bit(4096), {}, 1))
"""
_BROADCAST: Final = """
    INSERT INTO broadcasts (broadcast_id, type, category, priority, title, message, wall, words)
    VALUES (gen_random_uuid(), 'feature.released', 1, 3, 't', 'm', '{00000000-0000-0000-0000-000000000000}', '')
"""

# Two people, the other one of whom is on the team of what is walled. Each has one of everything, and in another block
# somebody has the place that is mine in the first. Of what retention took out, one has rows still, one has none.
ROWS: Final = f"""
    INSERT INTO recipients SELECT gen_random_uuid(), number FROM generate_series(1, 2) AS number;
    INSERT INTO team_members VALUES ('{_WEDDING}', {_OTHER}), (gen_random_uuid(), {_ME});
    INSERT INTO broadcasts (broadcast_id, type, category, priority, title, message, wall, words)
    VALUES
        ('{_OPEN}', 'feature.released', 1, 3, 't', 'm', '{{{_NIL}}}', ''),
        ('{_WALLED}', 'timeline.changed', 3, 3, 't', 'm', '{{{_WEDDING}}}', ''),
        ('{_LEFT}', 'timeline.changed', 3, 3, 't', 'm', '{{{_WEDDING}}}', ''),
        ('{_EMPTIED}', 'timeline.changed', 3, 3, 't', 'm', '{{{_WEDDING}}}', '');
    UPDATE broadcasts SET hidden = true, left_at = now() WHERE broadcast_id IN ('{_LEFT}', '{_EMPTIED}');
    UPDATE broadcasts SET emptied_at = now() WHERE broadcast_id = '{_EMPTIED}';
    INSERT INTO arrivals VALUES ('{_OPEN}', 0, 'item', 3, 2, now());
    {_BLOCK.format(3, _LEFT, _OTHER)};
    INSERT INTO direct VALUES ({_OTHER}, 9, '{_LEFT}', false, now());
    INSERT INTO receipts (recipient_number, broadcast_id, read_at) VALUES ({_OTHER}, '{_LEFT}', now());
    INSERT INTO watermarks VALUES ({_OTHER}, 5, now());
    INSERT INTO arrangements VALUES ({_OTHER}, '{_LEFT}', 9);
    INSERT INTO arrangements SELECT number, '{_OPEN}', 3 FROM generate_series(1, 2) AS number;
    INSERT INTO blocks
    SELECT block, position, '{_OPEN}', false, now(), set_bit(repeat('0', 4096)::bit(4096), place, 1)
    FROM (VALUES (0, {_ME}, {_ME}), (0, {_OTHER}, {_OTHER}), (1, 3, {_ME})) AS bits (block, position, place);
    INSERT INTO direct SELECT number, number, '{_WALLED}', false, now() FROM recipients;
    INSERT INTO receipts (recipient_number, broadcast_id, read_at) SELECT number, '{_OPEN}', now() FROM recipients;
    INSERT INTO watermarks SELECT number, 1, now() FROM recipients;
    INSERT INTO changes SELECT number, 1 FROM recipients;
    SELECT append_log('item', '');
    INSERT INTO requests (caller, method, request_id, body_hash)
    VALUES ('me', 'MarkAllRead', gen_random_uuid(), decode(repeat('00', 32), 'hex'));
"""  # noqa: S608


def _own(table: str, policy: str) -> Leak:
    return own_rows(table, policy, "recipient_number", "inbox_api", _AS_ME, _ME)


def _works(table: str, policy: str, statement: str) -> Leak:
    """What workers do, and the login of calls could do if the policy were for all."""
    return Leak(table, policy, Deed("inbox_worker", statement), Deed("inbox_api", statement))


def _gives_up(table: str, policy: str, statement: str, of_what_stays: str) -> Leak:
    """What workers may do to what is over, and could do to what is there if the policy were without its condition."""
    kept = Deed("inbox_worker", f"{statement} WHERE {of_what_stays}")
    return Leak(table, policy, Deed("inbox_worker", statement), kept)


_FOR_ALL_WORK: Final = ("changes", "log", "recipients", "requests", "team_members")
_BY_DEED: Final = ("arrangements", "blocks", "direct", "receipts", "watermarks")
_STAYS: Final = f"broadcast_id = '{_OPEN}'"
LEAKS: Final[Sequence[Leak]] = (
    own_rows("blocks", "own_arrivals", "position", "inbox_api", _AS_ME, _ME),
    _own("direct", "own_arrivals"),
    _own("team_members", "own_teams"),
    _own("receipts", "own_receipts"),
    _own("watermarks", "own_watermarks"),
    _own("changes", "own_changes"),
    _own("arrangements", "own_arrangements"),
    own_rows("broadcasts", "inside_the_wall", "broadcast_id", "inbox_api", _AS_ME, _OPEN),
    *(workers_rows(table, "worker_reads_and_writes", "inbox") for table in _FOR_ALL_WORK),
    *(workers_rows(table, "worker_reads", "inbox") for table in _BY_DEED),
    _works("broadcasts", "worker_adds", _BROADCAST),
    _works("blocks", "worker_adds", _BLOCK.format(7, _OPEN, _ME)),
    _works("direct", "worker_adds", f"INSERT INTO direct VALUES (7, 7, '{_OPEN}', false, now())"),  # noqa: S608
    _works(
        "receipts",
        "worker_adds",
        f"INSERT INTO receipts (recipient_number, broadcast_id, read_at) VALUES (7, '{_OPEN}', now())",  # noqa: S608
    ),
    _works("arrangements", "worker_adds", f"INSERT INTO arrangements VALUES (7, '{_OPEN}', 3)"),  # noqa: S608
    _works("arrangements", "worker_changes", "UPDATE arrangements SET pinned_at = now()"),
    _works("watermarks", "worker_adds", "INSERT INTO watermarks VALUES (7, 7, now())"),
    _works("broadcasts", "worker_changes", "UPDATE broadcasts SET hidden = true"),
    _works("receipts", "worker_changes", "UPDATE receipts SET read_at = now()"),
    _gives_up(
        "blocks",
        "thin_out_what_has_left",
        "UPDATE blocks SET members = repeat('0', 4096)::bit(4096)",
        _STAYS,
    ),
    _gives_up("blocks", "remove_what_has_left", "DELETE FROM blocks", _STAYS),
    _gives_up("direct", "remove_what_has_left", "DELETE FROM direct", f"broadcast_id = '{_WALLED}'"),
    _gives_up("receipts", "remove_what_has_left", "DELETE FROM receipts", _STAYS),
    _gives_up("arrangements", "remove_what_has_left", "DELETE FROM arrangements", _STAYS),
    _gives_up("watermarks", "remove_before_all_arrivals", "DELETE FROM watermarks", "position > 2"),
    _gives_up(
        "broadcasts", "remove_what_is_emptied", "DELETE FROM broadcasts", f"broadcast_id = '{_WALLED}'"
    ),
    Leak(
        "broadcasts",
        "worker_reads",
        lets=Deed("inbox_worker", "SELECT FROM broadcasts"),
        # What is about no wedding, everybody may read who finds it in their inbox.
        keeps=Deed("inbox_api", f"SELECT FROM broadcasts WHERE broadcast_id = '{_WALLED}'"),
    ),
    # What rewrites a broadcast runs as the owner, and names it.
    *(
        Leak(
            "broadcasts",
            policy,
            lets=Deed("inbox_owner", deed, {"app.rewritten": _OPEN}),
            keeps=Deed("inbox_owner", deed, {"app.rewritten": ""}),
        )
        for policy, deed in (
            ("find_what_is_rewritten", "SELECT FROM broadcasts"),
            ("rewrite", "UPDATE broadcasts SET title = 'x'"),
        )
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
