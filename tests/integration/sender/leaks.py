"""What would leak from the sender's tables without each of their policies."""

from collections.abc import Sequence
from typing import Final

from tests.integration.shared.leaks import Deed, Leak, own_rows, workers_rows

_ME, _SOMEBODY = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
_WEDDING = "00000000-0000-4000-8000-0000000000aa"
_NEW = "00000000-0000-4000-8000-000000000009"
_NAMED = "00000000-0000-4000-8000-00000000000c"

_BROADCAST = """
    INSERT INTO broadcasts (
        broadcast_id, type, priority, title, message, everyone, user_ids, roles, tiers, segment_ids, wedding_ids,
        scheduled_for, created_by, created_by_service, created_at, targeted, state
    )
    VALUES (
        '{}', 'form.locked', 3, 't', 'm', true, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', now(), '{}', false, now(), 1,
        'pending'
    )
"""
_REQUEST = """
    INSERT INTO requests (caller, method, request_id, body_hash, response)
    VALUES ('{}', 'Send', '{}', decode(repeat('00', 32), 'hex'), '')
"""
_COUNT = """
    INSERT INTO counted_sends (caller, type, priority, wedding_id, at, ordinal)
    VALUES ('{}', 'form.locked', 3, '{}', now() - interval '{}', 1)
"""
_ENTRY = "INSERT INTO audit_log (at, actor, action) VALUES (now(), '{}', 'erased')"
_OVER = "00000000-0000-4000-8000-000000000004"
_DAY = """
    INSERT INTO daily_analytics (
        broadcast_id, day, type, priority, created_by, targeted, delivered, read, acknowledged, clicked, time_to_read_us
    )
    VALUES ('{}', '2026-11-22', 'form.locked', 3, '{}', 9, 2, 1, 0, 0, 1)
"""
# Mine, one about a wedding, one that is none of my business, one that ended a month ago; a new answer and an old one.
ROWS: Final = "; ".join(
    (
        _BROADCAST.format("00000000-0000-4000-8000-000000000001", _ME),
        _BROADCAST.format("00000000-0000-4000-8000-000000000002", _SOMEBODY),
        _BROADCAST.format("00000000-0000-4000-8000-000000000003", _SOMEBODY),
        f"INSERT INTO walls VALUES ('00000000-0000-4000-8000-000000000002', '{_WEDDING}')",  # noqa: S608
        _DAY.format("00000000-0000-4000-8000-000000000001", _ME),
        _DAY.format("00000000-0000-4000-8000-000000000002", _SOMEBODY),
        _DAY.format("00000000-0000-4000-8000-000000000003", _SOMEBODY),
        f"INSERT INTO analytics_walls VALUES ('00000000-0000-4000-8000-000000000002', '{_WEDDING}')",  # noqa: S608
        _REQUEST.format(_ME, "00000000-0000-4000-8000-000000000001"),
        _REQUEST.format(_SOMEBODY, "00000000-0000-4000-8000-000000000002"),
        _COUNT.format(_ME, _WEDDING, "1 hour"),
        _COUNT.format(_SOMEBODY, _WEDDING, "25 hours"),
        _BROADCAST.format(_OVER, _SOMEBODY),
        f"UPDATE broadcasts SET state = 'expired' WHERE broadcast_id = '{_OVER}'",  # noqa: S608
        f"UPDATE broadcasts SET ended_at = now() - interval '31 days' WHERE broadcast_id = '{_OVER}'",  # noqa: S608
        _REQUEST.format(_SOMEBODY, _OVER),
        f"UPDATE requests SET at = now() - interval '25 hours' WHERE request_id = '{_OVER}'",  # noqa: S608
        _ENTRY.format(_ME),
        f"UPDATE broadcasts SET user_ids = '{{{_NAMED}}}', everyone = false WHERE broadcast_id = '{_OVER}'",  # noqa: S608
        f"UPDATE requests SET response = convert_to('{_SOMEBODY}', 'UTF8') WHERE caller = '{_ME}'",  # noqa: S608
    )
)

_AS_ME = {"sender.caller": _ME}
_NOBODYS_BUSINESS = "SELECT FROM broadcasts WHERE broadcast_id = '00000000-0000-4000-8000-000000000003'"
_YOUNG = "at > now() - interval '1 day'"
_NOBODYS_DAY = "SELECT FROM daily_analytics WHERE broadcast_id = '00000000-0000-4000-8000-000000000003'"
# Names no column, so that only what a policy lets be changed decides, and not also what others let be seen.
_STOP = "UPDATE broadcasts SET cancel_requested_at = now()"


def _erasing(statement: str, user_id: str) -> Deed:
    return Deed("sender_owner", statement, {"sender.erased": user_id})


def _calls(statement: str, **settings: str) -> Deed:
    return Deed("sender_api", statement, {f"sender.{name}": value for name, value in settings.items()})


LEAKS: Final[Sequence[Leak]] = (
    Leak(
        "broadcasts",
        "send_in_own_name",
        lets=_calls(_BROADCAST.format(_NEW, _ME), caller=_ME),
        keeps=_calls(_BROADCAST.format(_NEW, _SOMEBODY), caller=_ME),
    ),
    own_rows("broadcasts", "read_own", "created_by", "sender_api", _AS_ME, _ME),
    Leak(
        "broadcasts",
        "read_all",
        lets=_calls(_NOBODYS_BUSINESS, caller=_ME, reads_all="true"),
        keeps=_calls(_NOBODYS_BUSINESS, caller=_ME, reads_all="false"),
    ),
    Leak(
        "broadcasts",
        "read_about_own_weddings",
        lets=_calls("SELECT FROM broadcasts", weddings=f"{{{_WEDDING}}}"),
        keeps=_calls(_NOBODYS_BUSINESS, weddings=f"{{{_WEDDING}}}"),
    ),
    Leak("broadcasts", "stop_own", lets=_calls(_STOP, caller=_ME), keeps=_calls(_STOP, caller=_NEW)),
    Leak(
        "broadcasts",
        "stop_all",
        lets=_calls(_STOP, caller=_NEW, stops_all="true"),
        keeps=_calls(_STOP, caller=_NEW, reads_all="true"),
    ),
    workers_rows("broadcasts", "read_to_dispatch", "sender"),
    Leak(
        "broadcasts",
        "move_state",
        lets=Deed("sender_worker", "UPDATE broadcasts SET state = 'dispatching'"),
        keeps=_calls("UPDATE broadcasts SET state = 'dispatching'", reads_all="true"),
    ),
    Leak(
        "requests",
        "remember_own",
        lets=_calls(_REQUEST.format(_ME, _NEW), caller=_ME),
        keeps=_calls(_REQUEST.format(_SOMEBODY, _NEW), caller=_ME),
    ),
    own_rows("requests", "replay_own", "caller", "sender_api", _AS_ME, _ME),
    Leak(
        "requests",
        "free_own",
        lets=_calls("DELETE FROM requests", caller=_SOMEBODY),
        keeps=_calls("DELETE FROM requests", caller=_ME),
    ),
    Leak(
        "counted_sends",
        "count_own",
        lets=_calls(_COUNT.format(_ME, _NEW, "0"), caller=_ME),
        keeps=_calls(_COUNT.format(_SOMEBODY, _NEW, "0"), caller=_ME),
    ),
    own_rows("counted_sends", "read_own_counts", "caller", "sender_api", _AS_ME, _ME),
    Leak(
        "counted_sends",
        "find_past_counts",
        lets=Deed("sender_worker", "SELECT FROM counted_sends"),
        keeps=Deed("sender_worker", "SELECT FROM counted_sends WHERE at > now() - interval '23 hours'"),
    ),
    Leak(
        "counted_sends",
        "forget_past_counts",
        lets=Deed("sender_worker", "DELETE FROM counted_sends"),
        keeps=Deed("sender_api", "DELETE FROM counted_sends"),
    ),
    Leak(
        "broadcasts",
        "remove_what_is_over",
        lets=Deed("sender_worker", "DELETE FROM broadcasts"),
        keeps=Deed("sender_worker", f"DELETE FROM broadcasts WHERE broadcast_id <> '{_OVER}'"),  # noqa: S608
    ),
    Leak(
        "requests",
        "find_what_is_old",
        lets=Deed("sender_worker", "SELECT FROM requests"),
        keeps=Deed("sender_worker", f"SELECT FROM requests WHERE {_YOUNG}"),
    ),
    Leak(
        "requests",
        "remove_what_is_old",
        lets=Deed("sender_worker", "DELETE FROM requests"),
        keeps=Deed("sender_worker", f"DELETE FROM requests WHERE {_YOUNG}"),  # noqa: S608
    ),
    Leak(
        "audit_log",
        "record_own",
        lets=_calls(_ENTRY.format(_ME), caller=_ME),
        keeps=_calls(_ENTRY.format(_SOMEBODY), caller=_ME),
    ),
    Leak(
        "audit_log",
        "read_audit",
        lets=_calls("SELECT FROM audit_log", caller=_SOMEBODY, reads_audit="true"),
        keeps=_calls("SELECT FROM audit_log", caller=_ME, reads_all="true", reads_audit="false"),
    ),
    Leak(
        "audit_log",
        "record_any",
        lets=Deed("sender_worker", _ENTRY.format(_SOMEBODY)),
        keeps=_calls(_ENTRY.format(_SOMEBODY), caller=""),
    ),
    workers_rows("audit_log", "read_to_verify", "sender"),
    # What chains an entry to the last one runs as the owner.
    Leak(
        "audit_log",
        "read_the_end",
        lets=Deed("sender_owner", "SELECT FROM audit_log"),
        keeps=_calls("SELECT FROM audit_log"),
    ),
    # What erases a person runs as the owner, and names them.
    Leak(
        "broadcasts",
        "look_for_the_erased",
        lets=_erasing("SELECT FROM broadcasts", _NEW),
        keeps=_erasing("SELECT FROM broadcasts", ""),
    ),
    Leak(
        "broadcasts",
        "change_what_names_the_erased",
        lets=_erasing("UPDATE broadcasts SET title = 'x'", _NAMED),
        keeps=_erasing("UPDATE broadcasts SET title = 'x'", _NEW),
    ),
    Leak(
        "requests",
        "look_for_the_erased",
        lets=_erasing("SELECT FROM requests", _NEW),
        keeps=_erasing("SELECT FROM requests", ""),
    ),
    Leak(
        "requests",
        "change_what_names_the_erased",
        lets=_erasing("UPDATE requests SET response = ''", _SOMEBODY),
        keeps=_erasing("UPDATE requests SET response = ''", _NEW),
    ),
    Leak(
        "requests",
        "remove_of_the_erased",
        lets=_erasing("DELETE FROM requests", _ME),
        keeps=_erasing("DELETE FROM requests", _NEW),
    ),
    Leak(
        "counted_sends",
        "find_of_the_erased",
        lets=_erasing("SELECT FROM counted_sends", _ME),
        keeps=_erasing("SELECT FROM counted_sends", _NEW),
    ),
    Leak(
        "counted_sends",
        "remove_of_the_erased",
        lets=_erasing("DELETE FROM counted_sends", _ME),
        keeps=_erasing("DELETE FROM counted_sends", _NEW),
    ),
    own_rows("daily_analytics", "read_own_analytics", "created_by", "sender_api", _AS_ME, _ME),
    Leak(
        "daily_analytics",
        "read_all_analytics",
        lets=_calls(_NOBODYS_DAY, caller=_ME, reads_all="true"),
        keeps=_calls(_NOBODYS_DAY, caller=_ME, reads_all="false"),
    ),
    Leak(
        "daily_analytics",
        "read_analytics_about_own_weddings",
        lets=_calls("SELECT FROM daily_analytics", weddings=f"{{{_WEDDING}}}"),
        keeps=_calls(_NOBODYS_DAY, weddings=f"{{{_WEDDING}}}"),
    ),
    workers_rows("daily_analytics", "read_to_count", "sender"),
    Leak(
        "daily_analytics",
        "add_days",
        lets=Deed("sender_worker", _DAY.format(_NEW, _ME)),
        keeps=_calls(_DAY.format(_NEW, _ME), caller=_ME),
    ),
    Leak(
        "daily_analytics",
        "raise_counts",
        lets=Deed("sender_worker", "UPDATE daily_analytics SET read = delivered"),
        keeps=_calls("UPDATE daily_analytics SET read = delivered", caller=_ME, reads_all="true"),
    ),
)
