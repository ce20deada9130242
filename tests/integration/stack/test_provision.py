"""Each service gets a place of its own in the database, and no way into another's."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from stack.errors import StackError
from stack.permissions import SERVICES
from stack.provision import LOGINS, SuiteDatabase, provision_database
from stack.servers import Place


@pytest.fixture
async def suite(make_database: Callable[[str], str], place: Place) -> SuiteDatabase:
    """A database with the services' roles and schemas, without tables."""
    return await provision_database(make_database("provision"), place.secrets.password)


async def _query(url: str, sql: str, *arguments: object) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


async def _execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def test_every_login_works_and_sees_its_own_schema(suite: SuiteDatabase) -> None:
    """Two logins a service, each with its schema as the place where names are looked up."""
    seen = [
        await _query(suite.url(service, login), "SELECT current_schema()")
        for service in SERVICES
        for login in LOGINS
    ]
    assert [service for service in SERVICES for _ in LOGINS] == seen


async def test_provisioning_again_changes_nothing(suite: SuiteDatabase, place: Place) -> None:
    """A second run on the same database is harmless."""
    again = await provision_database(suite.admin_url, place.secrets.password)
    assert await _query(again.url("sender"), "SELECT 1") == 1


async def test_what_an_older_version_left_to_everybody_is_closed(suite: SuiteDatabase, place: Place) -> None:
    """Functions and types are PUBLIC's by default; those made before that was taken away are closed afterwards."""
    await _execute(
        suite.admin_url,
        """
        ALTER DEFAULT PRIVILEGES FOR ROLE inbox_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
        ALTER DEFAULT PRIVILEGES FOR ROLE inbox_owner GRANT USAGE ON TYPES TO PUBLIC;
        ALTER DEFAULT PRIVILEGES FOR ROLE inbox_owner IN SCHEMA inbox
            REVOKE EXECUTE ON FUNCTIONS FROM inbox_api, inbox_worker;
        SET ROLE inbox_owner;
        CREATE FUNCTION inbox.made_before() RETURNS integer LANGUAGE sql RETURN 1;
        CREATE TYPE inbox.made_before AS ENUM ('x')
        """,
    )
    may = """
        SELECT ARRAY[
            has_function_privilege($1, 'inbox.made_before()', 'EXECUTE'),
            has_type_privilege($1, 'inbox.made_before', 'USAGE')
        ]
    """
    assert await _query(suite.admin_url, may, "sender_api") == [True, True]
    await provision_database(suite.admin_url, place.secrets.password)
    assert await _query(suite.admin_url, may, "sender_api") == [False, False]
    assert await _query(suite.admin_url, may, "inbox_api") == [True, False]


async def test_two_databases_are_provisioned_at_once(
    make_database: Callable[[str], str], place: Place
) -> None:
    """Roles belong to the cluster; making them from several sides at the same time is safe."""
    urls = [make_database("race") for _ in range(4)]
    suites = await asyncio.gather(*(provision_database(url, place.secrets.password) for url in urls))
    assert [await _query(each.url("inbox"), "SELECT 1") for each in suites] == [1] * 4


async def test_a_service_cannot_look_into_another_schema(suite: SuiteDatabase) -> None:
    """USAGE is given on one's own schema only."""
    for login in LOGINS:
        for service in SERVICES:
            others = [other for other in SERVICES if other != service]
            allowed = [
                await _query(suite.url(service, login), f"SELECT has_schema_privilege('{other}', 'USAGE')")
                for other in others
            ]
            assert [False] * len(others) == allowed


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (n int)",
        "CREATE TABLE public.t (n int)",
        "CREATE TEMP TABLE t (n int)",
        "CREATE SCHEMA s",
        "SET ROLE sender_owner",
    ],
)
@pytest.mark.parametrize("login", LOGINS)
async def test_a_login_cannot_make_anything(suite: SuiteDatabase, login: str, statement: str) -> None:
    """Only the owner, whom nobody can log in as, makes things."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _query(suite.url("sender", login), statement)


async def test_the_owner_cannot_log_in(suite: SuiteDatabase) -> None:
    """Migrations reach the owner through the administrator."""
    url = suite.url("sender").replace("sender_api", "sender_owner")
    with pytest.raises((asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError)):
        await _query(url, "SELECT 1")


async def test_a_role_that_bypasses_policies_is_refused(suite: SuiteDatabase, place: Place) -> None:
    """A login with BYPASSRLS would read everybody's rows, so the stack does not start with one."""
    await _query(suite.admin_url, "ALTER ROLE inbox_api BYPASSRLS")
    try:
        with pytest.raises(StackError, match="inbox_api can do more"):
            await provision_database(suite.admin_url, place.secrets.password)
    finally:
        await _query(suite.admin_url, "ALTER ROLE inbox_api NOBYPASSRLS")


async def test_a_refused_administrator_is_told_what_to_do(postgres: str, place: Place) -> None:
    """A wrong password is a sentence, not a trace of the driver."""
    url = postgres.replace("@", "wrong@", 1)
    with pytest.raises(StackError, match="does not let the stack in"):
        await provision_database(url, place.secrets.password)
