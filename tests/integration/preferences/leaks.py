"""What would leak from the tables of preferences without each of their policies."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from tests.integration.shared.leaks import Deed, Leak, own_rows, workers_rows

ME, COLLEAGUE, STRANGER = 1, 2, 3
PLAIN, PLAIN_GONE, GONE = 4, 5, 6
MINE, OTHERS = UUID(int=1), UUID(int=2)

# Two who work on one wedding, somebody who works on another, and everybody's settings; two without any for roles or
# weddings, of whom one was erased, and another erased one.
ROWS: Final = f"""
    INSERT INTO recipients (number, user_id, display_name, role, user_type, tier, time_zone)
    SELECT number, gen_random_uuid(), 'Somebody', 'venue', 'supplier', 'free', 'UTC'
    FROM generate_series(1, 6) AS number;
    INSERT INTO weddings (wedding_id, couple_name, status)
    VALUES ('{MINE}', 'Amara & Jonas', 'planning'), ('{OTHERS}', 'Mira & Noor', 'planning');
    INSERT INTO team_members (wedding_id, recipient_number)
    VALUES ('{MINE}', {ME}), ('{MINE}', {COLLEAGUE}), ('{OTHERS}', {STRANGER});
    INSERT INTO preferences (
        recipient_number, system, business, collaboration, wedding, critical_only, channels,
        quiet_enabled, quiet_start, quiet_end
    )
    SELECT number, true, true, true, true, false, '{{in_app}}', false, '22:00', '08:00' FROM recipients;
    INSERT INTO role_settings (recipient_number, role)
    SELECT number, 'venue' FROM recipients WHERE number NOT IN ({PLAIN}, {PLAIN_GONE});
    INSERT INTO wedding_filters (recipient_number, wedding_id)
    SELECT recipient_number, wedding_id FROM team_members
    UNION ALL
    SELECT {GONE}, '{MINE}';
    UPDATE recipients SET erased_at = now() WHERE number IN ({PLAIN_GONE}, {GONE});
    INSERT INTO erasures (number, user_id, service) VALUES ({GONE}, gen_random_uuid(), 'inbox');
    SELECT append_log('reload', '');
    SELECT outbox_add(NULL, 'directory.changed', 'x', NULL, 0, 'ack');
    INSERT INTO audit_events (action, user_id) VALUES ('erased', '00000000-0000-0000-0000-000000000065');
    INSERT INTO requests (caller, method, request_id, body_hash)
    SELECT caller, 'UpdatePreferences', request_id::uuid, decode(repeat('00', 32), 'hex')
    FROM (VALUES ('me', '{MINE}'), ('stranger', '{OTHERS}')) AS asked (caller, request_id);
"""  # noqa: S608

_AS_ME = {"app.recipient": ME}
_REMOVE = "DELETE FROM {} WHERE recipient_number = {}"
_AS_COORDINATOR = {"app.weddings": f"{{{MINE}}}"}


def _people(statement: str, **settings: object) -> Deed:
    return Deed("preferences_api", statement, {f"app.{name}": value for name, value in settings.items()})


def _kept_by_people(table: str, write: str) -> tuple[Leak, Leak]:
    """What is one's own to read and to write; `write` takes whose it is to be."""
    policy, column = "people_keep_their_own", "recipient_number"
    lets, keeps = (_people(write.format(number), recipient=ME) for number in (ME, STRANGER))
    return own_rows(table, policy, column, "preferences_api", _AS_ME, ME), Leak(table, policy, lets, keeps)


_WORKED: Final = {
    "worker_reads_and_writes": (
        *("recipients", "weddings", "team_members", "log", "outbox", "requests", "erasures"),
    ),
    "worker_reads": ("preferences", "role_settings", "wedding_filters"),
    "worker_adds_and_tells": ("audit_events",),
}
LEAKS: Final[Sequence[Leak]] = (
    own_rows("recipients", "people_see_themselves", "number", "preferences_api", _AS_ME, ME),
    Leak(
        "recipients",
        "coordinators_see_their_teams",
        lets=_people("SELECT FROM recipients WHERE number = 2", weddings=f"{{{MINE}}}"),
        keeps=_people("SELECT FROM recipients WHERE number = 3", weddings=f"{{{MINE}}}"),
    ),
    Leak(
        "recipients",
        "admins_and_services_see_everyone",
        lets=_people("SELECT FROM recipients", reach="everyone"),
        keeps=_people("SELECT FROM recipients", reach="teams"),
    ),
    own_rows(
        "team_members", "people_see_where_they_belong", "recipient_number", "preferences_api", _AS_ME, ME
    ),
    own_rows(
        "team_members",
        "coordinators_see_their_teams",
        "wedding_id",
        "preferences_api",
        _AS_COORDINATOR,
        MINE,
    ),
    *_kept_by_people(
        "preferences",
        "UPDATE preferences SET recipient_number = recipient_number WHERE recipient_number = {}",
    ),
    *_kept_by_people(
        "role_settings", "INSERT INTO role_settings (recipient_number, role) VALUES ({}, 'florist')"
    ),
    *_kept_by_people("wedding_filters", "DELETE FROM wedding_filters WHERE recipient_number = {}"),
    own_rows("requests", "people_repeat_their_own", "caller", "preferences_api", {"app.caller": "me"}, "me"),
    Leak(
        "requests",
        "people_repeat_their_own",
        lets=_people("UPDATE requests SET is_whole = true", caller="me"),
        keeps=_people("UPDATE requests SET is_whole = true WHERE caller = 'stranger'", caller="me"),
    ),
    Leak(
        "log",
        "people_add_changes",
        lets=_people("INSERT INTO log (position, kind, body, at) VALUES (2, 'recipients', 'x', now())"),
        keeps=_people("SELECT FROM log"),
    ),
    *(
        Leak(
            table,
            "worker_removes_of_the_erased",
            lets=Deed("preferences_worker", _REMOVE.format(table, gone)),
            keeps=Deed("preferences_worker", _REMOVE.format(table, known)),
        )
        for table, gone, known in (
            ("preferences", PLAIN_GONE, PLAIN),
            ("role_settings", GONE, ME),
            ("wedding_filters", GONE, ME),
        )
    ),
    *(workers_rows(table, policy, "preferences") for policy, tables in _WORKED.items() for table in tables),
)
