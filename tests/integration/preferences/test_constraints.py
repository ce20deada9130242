"""The invariants that the schema itself keeps: each provoked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from stack.provision import SuiteDatabase

WEDDING = UUID(int=1)
PERSON = """
    INSERT INTO recipients (number, user_id, display_name, role, user_type, tier, time_zone)
    VALUES (1, '00000000-0000-0000-0000-000000000101', 'Somebody', 'venue', 'supplier', 'free', 'UTC')
"""
PREFERENCES = """
    INSERT INTO preferences (
        recipient_number, system, business, collaboration, wedding, critical_only, channels,
        quiet_enabled, quiet_start, quiet_end
    )
    VALUES (1, true, true, true, true, false, '{in_app}', false, '22:00', '08:00')
"""

NOTHING_SET = """system = NULL, business = NULL, collaboration = NULL, wedding = NULL, critical_only = NULL,
    channels = NULL, quiet_enabled = NULL, quiet_start = NULL, quiet_end = NULL"""


@pytest.fixture(scope="module")
async def database(make_suite: Callable[..., Awaitable[SuiteDatabase]]) -> SuiteDatabase:
    """The tables, empty."""
    return await make_suite("preferences")


@pytest.fixture
async def connection(database: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """One person with preferences, one wedding, in a transaction that leaves nothing behind."""
    connection = await asyncpg.connect(database.admin_url, server_settings={"search_path": "preferences"})
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(PERSON)
    await connection.execute(PREFERENCES)
    await connection.execute(
        "INSERT INTO weddings (wedding_id, couple_name, status) VALUES ($1, 'Amara & Jonas', 'planning')",
        WEDDING,
    )
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("recipients SET number = 0", "recipients_number_positive"),
        ("recipients SET display_name = ''", "recipients_display_name_fits"),
        ("recipients SET display_name = repeat('x', 101)", "recipients_display_name_fits"),
        ("recipients SET role = 'Wedding Planner'", "recipients_role_slug"),
        ("recipients SET tier = ''", "recipients_tier_slug"),
        ("recipients SET email = 'nowhere'", "recipients_email_fits"),
        ("recipients SET phone = '0664 123'", "recipients_phone_e164"),
        ("recipients SET time_zone = ''", "recipients_time_zone_fits"),
        ("weddings SET couple_name = ''", "weddings_couple_name_fits"),
        ("weddings SET time_zone = repeat('x', 65)", "weddings_time_zone_fits"),
        ("weddings SET team_version = -1", "weddings_team_version_counts"),
        ("preferences SET version = 0", "preferences_version_counts"),
        ("preferences SET channels = '{realtime}'", "preferences_keep_in_app"),
        ("preferences SET channels = '{in_app,NULL}'", "preferences_keep_in_app"),
        ("preferences SET quiet_end = quiet_start", "preferences_quiet_window_has_length"),
        ("preferences SET quiet_start = '22:00:30'", "preferences_quiet_window_in_minutes"),
        ("preferences SET quiet_end = '24:00'", "preferences_quiet_window_in_minutes"),
        ("preferences SET quiet_time_zone = ''", "preferences_quiet_time_zone_fits"),
        ("preferences SET system = NULL", "preferences_are_whole_or_reset"),
        ("preferences SET quiet_end = NULL", "preferences_are_whole_or_reset"),
        (f"preferences SET {NOTHING_SET}, quiet_time_zone = 'UTC'", "preferences_are_whole_or_reset"),
        ("segments SET name = ''", "segments_name_fits"),
        ("segments SET name = repeat('x', 101)", "segments_name_fits"),
        ("segments SET description = repeat('x', 501)", "segments_description_fits"),
        ("segments SET roles = '{}', user_types = '{}', tiers = '{}'", "segments_some_criterion"),
        ("segments SET roles = '{Venue!}'", "segments_roles_slugs"),
        ("segments SET roles = '{\"venue florist\"}'", "segments_roles_slugs"),
        ("segments SET tiers = '{\"\"}'", "segments_tiers_slugs"),
        ("segments SET roles = '{NULL}'", "segments_roles_slugs"),
        ("segments SET roles = array_fill('venue'::text, '{101}')", "segments_roles_slugs"),
        ("segments SET tiers = '{free,NULL}'", "segments_tiers_slugs"),
        ("segments SET user_types = '{couple,NULL}'", "segments_user_types_known"),
        ("segments SET wedding_statuses = '{NULL}'", "segments_wedding_statuses_known"),
        ("segments SET wedding_within_days = -1", "segments_wedding_days_in_range"),
        ("segments SET wedding_within_days = 3651", "segments_wedding_days_in_range"),
        ("segments SET version = 0", "segments_version_counts"),
        ("segments SET user_count = -1", "segments_user_count_counts"),
    ],
)
async def test_a_value_that_may_not_be_is_refused(
    connection: asyncpg.Connection, change: str, constraint: str
) -> None:
    """Each by its own constraint."""
    with pytest.raises(asyncpg.CheckViolationError) as refusal:
        await connection.execute(f"UPDATE {change}")
    assert refusal.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("row", "constraint"),
    [
        ("role_settings (recipient_number, role) VALUES (1, 'Venue!')", "role_settings_role_slug"),
        (
            "role_settings (recipient_number, role, muted_types) VALUES (1, 'venue', '{NULL}')",
            "role_settings_muted_types_known",
        ),
        (
            "role_settings (recipient_number, role, muted_types) SELECT 1, 'venue', array_fill('a.b'::text, '{101}')",
            "role_settings_muted_types_known",
        ),
        (
            "role_settings (recipient_number, role, channels) VALUES (1, 'venue', '{email}')",
            "role_settings_keep_in_app",
        ),
        (
            f"wedding_filters (recipient_number, wedding_id, channels) VALUES (1, '{WEDDING}', '{{push}}')",
            "wedding_filters_keep_in_app",
        ),
        ("log (position, kind, body, at) VALUES (1, 'gossip', '', now())", "log_kind_known"),
        (
            "requests (caller, method, request_id, body_hash) VALUES ('me', 'Get', gen_random_uuid(), 'short')",
            "body_hash_is_sha256",
        ),
    ],
)
async def test_a_row_that_may_not_be_is_refused(
    connection: asyncpg.Connection, row: str, constraint: str
) -> None:
    """Each by its own constraint."""
    with pytest.raises(asyncpg.CheckViolationError) as refusal:
        await connection.execute(f"INSERT INTO {row}")
    assert refusal.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("row", "constraint"),
    [
        (f"team_members VALUES ('{WEDDING}', 2)", "team_members_recipient_known"),
        (f"team_members VALUES ('{UUID(int=2)}', 1)", "team_members_wedding_known"),
        (
            PREFERENCES.replace("INSERT INTO", "").replace("(1,", "(2,"),
            "preferences_recipient_known",
        ),
        (
            "role_settings (recipient_number, role) VALUES (2, 'venue')",
            "role_settings_belong_to_preferences",
        ),
        (
            f"wedding_filters (recipient_number, wedding_id) VALUES (2, '{WEDDING}')",
            "wedding_filters_belong_to_preferences",
        ),
        (
            f"wedding_filters (recipient_number, wedding_id) VALUES (1, '{UUID(int=2)}')",
            "wedding_filters_wedding_known",
        ),
    ],
)
async def test_what_is_named_must_be_there(connection: asyncpg.Connection, row: str, constraint: str) -> None:
    """People, weddings and preferences that others refer to."""
    with pytest.raises(asyncpg.ForeignKeyViolationError) as refusal:
        await connection.execute(f"INSERT INTO {row}")
    assert refusal.value.constraint_name == constraint


async def test_a_user_is_in_the_directory_once(connection: asyncpg.Connection) -> None:
    """Two numbers for one user would be two inboxes."""
    with pytest.raises(asyncpg.UniqueViolationError) as refusal:
        await connection.execute(PERSON.replace("(1,", "(2,"))
    assert refusal.value.constraint_name == "recipients_user_id_once"


async def test_a_name_is_of_one_segment_whatever_its_case(connection: asyncpg.Connection) -> None:
    """Two that differ by case alone would be taken for one another."""
    with pytest.raises(asyncpg.UniqueViolationError) as refusal:
        await connection.execute("INSERT INTO segments (name, roles) VALUES ('premium USERS', '{venue}')")
    assert refusal.value.constraint_name == "segments_name_once"


@pytest.mark.parametrize(
    "change",
    [
        "recipients SET user_type = 'robot'",
        "segments SET user_types = '{robot}'",
        "segments SET wedding_statuses = '{postponed}'",
        "weddings SET status = 'postponed'",
        "preferences SET channels = '{in_app,pigeon}'",
    ],
)
async def test_words_that_are_not_ours_are_refused(connection: asyncpg.Connection, change: str) -> None:
    """Kinds of people, states of weddings and channels are closed sets."""
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await connection.execute(f"UPDATE {change}")


async def test_a_thousand_people_are_loaded_by_plain_sql(connection: asyncpg.Connection) -> None:
    """As the README says: with numbers of one's own, which the next number given follows."""
    await connection.execute(
        """INSERT INTO recipients (number, user_id, display_name, role, user_type, tier, time_zone)
        SELECT n, gen_random_uuid(), 'Somebody', 'venue', 'supplier', 'free', 'UTC'
        FROM generate_series(2, 1000) AS n"""
    )
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('recipients', 'number'), (SELECT max(number) FROM recipients))"
    )
    number = await connection.fetchval(
        """INSERT INTO recipients (user_id, display_name, role, user_type, tier, time_zone)
        VALUES (gen_random_uuid(), 'Next', 'venue', 'supplier', 'free', 'UTC') RETURNING number"""
    )
    assert number == 1001
