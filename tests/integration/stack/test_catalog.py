"""What PostgreSQL's own catalog says of the walls, in a database as a deployment has it, with all four schemas."""

import re
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from stack.permissions import SERVICES
from stack.provision import LOGINS
from tests.conftest import MakeSuite
from tests.integration.stack.leaks import LEAKS

LOGIN_ROLES: Final = [f"{service}_{login}" for service in SERVICES for login in LOGINS]
OWNERS: Final = [f"{service}_owner" for service in SERVICES]

# Every other table is under forced policies. A new one either is too, or says here why nobody is in it.
IMPERSONAL: Final = {
    **{f"{service}.schema_migrations": "names of files" for service in SERVICES},
    "sender.outbox": "ids of broadcasts, and for whom they are by role, tier and wedding: never a user",
    "sender.count_identity": "one id",
    "sender.walls": "ids of broadcasts and weddings",
    "sender.audit_checkpoints": "positions and hashes",
    "sender.analytics_walls": "ids of broadcasts and weddings",
    "sender.tallies": "ids of broadcasts, how many people they are for, and times",
    "preferences.log_head": "one number",
    "preferences.segments": "criteria, and how many people meet them",
    "preferences.erased_users": "digests of random ids, from which nobody can be found, and times",
    "dispatcher.dispatches": "ids of broadcasts and weddings, counts and times",
    "dispatcher.tombstones": "ids of broadcasts, counts and times",
    "dispatcher.plan_attempts": "ids of broadcasts and counts",
    "dispatcher.dead_letters": "ids of broadcasts, subjects and names of errors",
    "dispatcher.release_pace": "a time and a count",
    "dispatcher.outbox": "ids and states of broadcasts",
    "inbox.log_head": "one number",
    "inbox.log_identity": "one id",
    "inbox.arrivals": "ids of broadcasts, positions and counts",
    "inbox.retractions": "ids of broadcasts and positions",
    "inbox.teams": "ids of weddings and versions",
}
# A function with its owner's rights goes around whatever binds its caller. One that must, says here why.
DEFINERS: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            *("sender.erase_words", "sender.erase_from_targeting", "sender.find_answers_naming"),
            *("sender.erase_from_answer", "sender.erase_own"),
        ),
        "no login may change what a broadcast says, or see what others were answered; whom they erase, policies know",
    ),
    "inbox.forget_recipient": "no login may remove who somebody is in passing",
    "inbox.rewrite_content": "no login may change what a broadcast says in passing; which one, policies know",
    "sender.chain_audit_entry": "who adds to the audit log need not be allowed to read the entry before theirs",
}

_TABLES: Final = """
    SELECT
        format('%s.%s', relnamespace::regnamespace, relname) AS name,
        relrowsecurity AND relforcerowsecurity AS is_forced
    FROM pg_class
    WHERE relnamespace::regnamespace::text = ANY ($1) AND relkind IN ('r', 'p')
"""
_POLICIES: Final = "SELECT * FROM pg_policies WHERE schemaname = ANY ($1)"
# A thing without privileges of its own has those that are the default of its kind.
_PRIVILEGES: Final = """
    SELECT
        thing.kind, thing.name, thing.schema, privilege.privilege_type AS privilege, privilege.is_grantable,
        CASE privilege.grantee WHEN 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END AS grantee
    FROM (
        SELECT
            CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, relname::text AS name,
            relnamespace::regnamespace::text AS schema,
            coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
        FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT 'table', relname, relnamespace::regnamespace::text, attacl
        FROM pg_attribute INNER JOIN pg_class ON pg_class.oid = attrelid
        UNION ALL
        SELECT 'function', proname, pronamespace::regnamespace::text, coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc
        UNION ALL
        SELECT 'type', typname, typnamespace::regnamespace::text, coalesce(typacl, acldefault('T', typowner))
        FROM pg_type WHERE typtype IN ('d', 'e')
        UNION ALL
        SELECT 'schema', nspname, nspname, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
        UNION ALL
        SELECT 'database', datname, '', coalesce(datacl, acldefault('d', datdba))
        FROM pg_database WHERE datname = current_database()
    ) AS thing
    CROSS JOIN LATERAL aclexplode(thing.acl) AS privilege
"""
_ALLOWED: Final = {
    "table": {"SELECT", "INSERT", "UPDATE", "DELETE"},
    "function": {"EXECUTE"},
    "schema": {"USAGE"},
}
_POWERS: Final = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")


@pytest.fixture(scope="module")
async def catalog(make_suite: MakeSuite) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's look into a database that was just provisioned and migrated."""
    suite = await make_suite()
    connection = await asyncpg.connect(suite.admin_url)
    yield connection
    await connection.close()


async def test_every_table_with_a_persons_data_is_under_forced_policies(catalog: asyncpg.Connection) -> None:
    """All tables of all schemas, but those of which it is written why nobody is in them."""
    tables = {row["name"]: row["is_forced"] for row in await catalog.fetch(_TABLES, list(SERVICES))}
    assert {name for name, is_forced in tables.items() if not is_forced} == IMPERSONAL.keys()


async def test_no_role_of_a_service_can_go_around_policies(catalog: asyncpg.Connection) -> None:
    """None has an attribute that would let it, none is a member of another, and nobody logs in as an owner."""
    roles = await catalog.fetch("SELECT * FROM pg_roles WHERE rolname = ANY ($1)", [*LOGIN_ROLES, *OWNERS])
    assert {role["rolname"] for role in roles if role["rolcanlogin"]} == set(LOGIN_ROLES)
    assert len(roles) == len(LOGIN_ROLES) + len(OWNERS)
    assert [(role["rolname"], power) for role in roles for power in _POWERS if role[power]] == []
    memberships = await catalog.fetch(
        "SELECT roleid::regrole::text AS role FROM pg_auth_members WHERE member = ANY ($1::regrole[])",
        [*LOGIN_ROLES, *OWNERS],
    )
    assert memberships == []


async def test_a_login_owns_nothing(catalog: asyncpg.Connection) -> None:
    """Whoever owns a table is past its grants; here every table is an owner's, whom nobody can log in as."""
    owned = await catalog.fetch(
        "SELECT classid::regclass, objid, refobjid::regrole FROM pg_shdepend"
        " WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass AND refobjid = ANY ($1::regrole[])",
        LOGIN_ROLES,
    )
    assert owned == []
    owners = await catalog.fetch(
        "SELECT DISTINCT relnamespace::regnamespace::text AS schema, relowner::regrole::text AS owner FROM pg_class"
        " WHERE relnamespace::regnamespace::text = ANY ($1)",
        list(SERVICES),
    )
    assert {(row["schema"], row["owner"]) for row in owners} == {(each, f"{each}_owner") for each in SERVICES}


@pytest.mark.parametrize("role", LOGIN_ROLES)
async def test_a_login_may_read_and_write_rows_of_its_own_schema_and_nothing_else(
    catalog: asyncpg.Connection, role: str
) -> None:
    """No TRUNCATE, no trigger, no reference, nothing of another schema, nothing to make, and nothing to pass on."""
    given = [row for row in await catalog.fetch(_PRIVILEGES) if row["grantee"] == role]
    assert {row["kind"] for row in given} == {"table", "function", "schema", "database"}
    assert {row["schema"] for row in given if row["kind"] != "database"} == {role.rpartition("_")[0]}
    assert {row["privilege"] for row in given if row["kind"] == "database"} == {"CONNECT"}
    for kind, allowed in _ALLOWED.items():
        assert {row["privilege"] for row in given if row["kind"] == kind} - allowed == set()
    assert [row for row in given if row["is_grantable"]] == []


async def test_the_public_has_nothing(catalog: asyncpg.Connection) -> None:
    """Neither our tables, functions and types, nor the schema "public", nor the database itself."""
    given = [row for row in await catalog.fetch(_PRIVILEGES) if row["grantee"] == "PUBLIC"]
    assert given
    assert [tuple(row) for row in given if row["schema"] in ("", "public", *SERVICES)] == []


async def test_audit_logs_are_written_and_read_and_never_changed(catalog: asyncpg.Connection) -> None:
    """Whoever could alter or remove an entry could deny what they did."""
    given = [row for row in await catalog.fetch(_PRIVILEGES) if row["name"].startswith("audit_log")]
    assert {row["privilege"] for row in given if row["grantee"] in LOGIN_ROLES} <= {"SELECT", "INSERT"}


async def test_the_personal_login_of_the_inbox_cannot_read_who_is_in_a_block(
    catalog: asyncpg.Connection,
) -> None:
    """Its policy may look at the bits of 4,096 people; what it answers may not."""
    may = await catalog.fetchval(
        "SELECT has_column_privilege('inbox_api', 'inbox.blocks', 'members', 'SELECT')"
    )
    assert may is False


async def test_nothing_runs_with_its_owners_rights(catalog: asyncpg.Connection) -> None:
    """Functions and views look with the eyes of whoever calls them, but those of which it is written why not."""
    functions = await catalog.fetch(
        "SELECT format('%s.%s', pronamespace::regnamespace, proname) AS name, proconfig FROM pg_proc"
        " WHERE prosecdef AND pronamespace::regnamespace::text = ANY ($1)",
        list(SERVICES),
    )
    assert {row["name"] for row in functions} == DEFINERS.keys()
    # Otherwise its caller could have it find tables of their own.
    assert [row["name"] for row in functions if "search_path" not in str(row["proconfig"])] == []
    views = await catalog.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace::regnamespace::text = ANY ($1)"
        " AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)",
        list(SERVICES),
    )
    assert views == []


async def test_a_policy_is_for_one_role_and_says_one_thing(catalog: asyncpg.Connection) -> None:
    """An OR would cost the index, and a bit that is compared with 1 the order of one."""
    policies = await catalog.fetch(_POLICIES, list(SERVICES))
    assert policies
    for policy in policies:
        condition = f"{policy['qual']} {policy['with_check']}"
        assert re.search(r"\bOR\b", condition) is None, policy["policyname"]
        assert "get_bit" not in condition or "<> 0" in condition.partition("get_bit")[2], policy["policyname"]
        (role,) = policy["roles"]
        assert role.rpartition("_")[0] == policy["schemaname"]
        assert policy["permissive"] == "PERMISSIVE"


async def test_for_every_policy_it_is_shown_what_leaks_without_it(catalog: asyncpg.Connection) -> None:
    """A new one without a leak in tests/integration/<service>/leaks.py fails here."""
    policies = await catalog.fetch(_POLICIES, list(SERVICES))
    present = {(each["schemaname"], each["tablename"], each["policyname"]) for each in policies}
    assert present == {(schema, leak.table, leak.policy) for schema, leaks in LEAKS.items() for leak in leaks}
