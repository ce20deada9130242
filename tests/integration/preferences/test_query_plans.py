"""How the hot queries of preferences find their rows among many, with statistics and without."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import pytest

from shared.queries import load
from tests.conftest import MakeSuite
from tests.integration.shared.query_plans import Filled, assert_only_by_index, filled, rows_read, scans

ROOT: Final = Path(__file__).parents[3]
QUERIES: Final = load(ROOT / "services" / "preferences" / "queries.sql")
LOG: Final = load(ROOT / "shared" / "sql" / "ordered_log.sql", schema="preferences")
REQUESTS: Final = load(ROOT / "shared" / "sql" / "requests.sql", schema="preferences")

PEOPLE, WEDDINGS, TEAM, SEGMENTS = 8_000, 800, 5, 2_000
# Of the teams are those that one person is on at most this many.
OWN_WEDDINGS: Final = 3
GROWING: Final = (
    "recipients",
    "weddings",
    "team_members",
    "preferences",
    "role_settings",
    "wedding_filters",
    "log",
    "outbox",
    "requests",
    "segments",
    "erased_users",
    "erasures",
)
# Everybody has edited their settings, and is on the team of a few weddings.
FILL: Final = f"""
    INSERT INTO recipients (number, user_id, display_name, role, user_type, tier, time_zone)
    SELECT number, gen_random_uuid(), 'Somebody', 'venue', 'supplier', 'free', 'UTC'
    FROM generate_series(1, {PEOPLE}) AS number;
    SELECT setval(pg_get_serial_sequence('recipients', 'number'), {PEOPLE});
    INSERT INTO weddings (wedding_id, couple_name, status, team_version)
    SELECT gen_random_uuid(), 'Amara & Jonas', 'planning', 1 FROM generate_series(1, {WEDDINGS});
    INSERT INTO team_members
    SELECT wedding_id, (row_number() OVER () * 7 + place * 13) % {PEOPLE} + 1
    FROM weddings, generate_series(1, {TEAM}) AS place;
    INSERT INTO preferences (
        recipient_number, system, business, collaboration, wedding, critical_only, channels,
        quiet_enabled, quiet_start, quiet_end
    )
    SELECT number, true, true, true, true, false, '{{in_app}}', false, '22:00', '08:00' FROM recipients;
    INSERT INTO role_settings (recipient_number, role) SELECT number, 'venue' FROM recipients;
    INSERT INTO wedding_filters (recipient_number, wedding_id) SELECT recipient_number, wedding_id FROM team_members;
    INSERT INTO log SELECT number, 'recipients', 'x', now() FROM recipients;
    UPDATE log_head SET position = {PEOPLE};
    INSERT INTO outbox (key, subject, payload, due_at, rank, settle, state)
    SELECT number::text, 'directory.changed', 'x', now(), 1, 'report', 'done' FROM recipients;
    INSERT INTO requests (caller, method, request_id, body_hash, is_whole, at)
    SELECT
        'somebody', 'UpdatePreferences', user_id, decode(repeat('00', 32), 'hex'), true,
        now() - number * interval '20 seconds'
    FROM recipients;
    INSERT INTO erased_users SELECT user_hash(gen_random_uuid()) FROM recipients;
    INSERT INTO erasures (number, user_id, service, due_at)
    SELECT number, gen_random_uuid(), 'inbox', now() FROM recipients;
    INSERT INTO segments (name, roles, user_count_time)
    SELECT 'Segment ' || number, '{{venue}}', now() FROM generate_series(1, {SEGMENTS}) AS number
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Somebody:
    """One of them, and a wedding that they are on."""

    number: int
    user_id: UUID
    wedding_id: UUID

    def edit(self, request_id: UUID | None) -> tuple[object, ...]:
        """The arguments of an edit that leaves everything as it was, with its answer; may be a repetition."""
        call = ("somebody", "UpdatePreferences", request_id, bytes(32)) if request_id else (None,) * 4
        choices = (True, True, True, True, False, ["in_app"], False, time(22), time(8), None)
        role = {"role": "venue", "muted_types": [], "channels": []}
        filters = {"wedding_id": str(self.wedding_id), "muted": False, "channels": []}
        edit = (self.number, 1, *choices, [role], [filters], ["recipients"], [b"x"])
        return *call, b"answer", datetime.now(UTC), *edit


@pytest.fixture(scope="module")
async def town(make_suite: MakeSuite) -> AsyncIterator[Filled]:
    """Thousands of people."""
    async with filled(await make_suite("preferences"), "preferences", FILL) as tables:
        yield tables


@pytest.fixture(params=["told", "untold"], autouse=True)
async def _statistics(town: Filled, request: pytest.FixtureRequest) -> None:
    """With statistics, and with none."""
    await town.know(told=request.param == "told")


@pytest.fixture
async def somebody(town: Filled) -> Somebody:
    """Whom to ask about."""
    row = await town.admin.fetchrow(
        "SELECT number, user_id, wedding_id FROM recipients"
        " INNER JOIN team_members ON recipient_number = number LIMIT 1"
    )
    assert row is not None
    return Somebody(*row)


async def test_before_each_answer_only_the_end_of_the_log_is_read(town: Filled) -> None:
    """What was added since; when that is nothing, nothing."""
    for behind in (0, 2):
        found = await town.plans("worker", LOG["read_after"], PEOPLE - behind, 100)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, "log") == behind


async def test_what_the_log_names_is_read_by_its_key(town: Filled, somebody: Somebody) -> None:
    """People with their settings, weddings with their teams and filters, however many others there are."""
    for query, named, most in (
        ("find_numbers", somebody.user_id, 1),
        ("find_roles", somebody.user_id, 1),
        ("find_erased", somebody.user_id, 0),
        ("find_people", somebody.number, 3),
        ("find_weddings", somebody.wedding_id, 1 + TEAM),
        ("find_filters", somebody.wedding_id, TEAM),
    ):
        found = await town.plans("worker", QUERIES[query], [named])
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, *GROWING) <= most, query


async def test_people_read_and_write_their_own_by_key(town: Filled, somebody: Somebody) -> None:
    """Settings with their parts, and the weddings that they are on: policies add no row to what is theirs."""
    settings = {"recipient": somebody.number}
    found = await town.plans("api", QUERIES["read_preferences"], somebody.number)
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, *GROWING) <= 3 + OWN_WEDDINGS
    found = await town.plans("api", QUERIES["list_own_weddings"], somebody.number, **settings)
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, *GROWING) <= OWN_WEDDINGS
    repeated = await town.admin.fetchval("SELECT request_id FROM requests LIMIT 1")
    for request_id in (None, uuid4()):
        found = await town.plans("api", QUERIES["save_preferences"], *somebody.edit(request_id))
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, "requests") <= 1
    found = await town.plans("api", QUERIES["save_preferences"], *somebody.edit(repeated))
    assert scans(found, *GROWING) == []


async def test_answers_are_found_by_key_and_old_ones_by_age(town: Filled) -> None:
    """Of a day's many calls the one that is repeated, and the few that were longest ago."""
    request_id = await town.admin.fetchval("SELECT request_id FROM requests LIMIT 1")
    for login in ("api", "worker"):
        found = await town.plans(login, REQUESTS["find"], "somebody", "UpdatePreferences", request_id)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, "requests") <= 1
    found = await town.plans("worker", REQUESTS["remove_old"], timedelta(hours=24), 10)
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "requests") <= 2 * 10


@pytest.mark.parametrize("reach", ["self", "teams", "everyone"])
async def test_somebody_is_looked_up_by_their_user_id_whoever_asks(
    town: Filled, somebody: Somebody, reach: str
) -> None:
    """The three ways to see a person are asked about that one person, and not about all who could be seen."""
    caller = None if reach == "everyone" else somebody.number
    found = await town.plans("api", QUERIES["find_recipient"], caller, reach, somebody.user_id)
    assert_only_by_index(found, *GROWING)
    assert {node["Index Name"] for node in scans(found, "recipients")} == {"recipients_user_id_once"}
    assert rows_read(found, "recipients") == 1
    assert rows_read(found, "team_members") <= (1 + TEAM) * OWN_WEDDINGS


async def test_the_directory_is_written_by_key(town: Filled, somebody: Somebody) -> None:
    """People who are there and people who are new, a team, its version."""
    pair = [["A", "A"], ["venue"] * 2, ["supplier"] * 2, ["free"] * 2, [None] * 2, [None] * 2, ["UTC"] * 2]
    for query, *arguments in (
        ("upsert_recipients", [somebody.user_id, uuid4()], *pair),
        ("find_team_version", somebody.wedding_id),
        ("replace_team", somebody.wedding_id, [1, 2, 3]),
        ("raise_team_versions", [somebody.wedding_id]),
    ):
        assert_only_by_index(await town.plans("worker", QUERIES[query], *arguments), *GROWING)


async def test_unsettled_teams_are_found_among_themselves(town: Filled) -> None:
    """By the indexes of the two states, which leave out all that has ended."""
    found = await town.plans("worker", QUERIES["find_unsettled_teams"], 5.0)
    assert_only_by_index(found, *GROWING, partial=["outbox_pending", "outbox_leased"])
    assert rows_read(found, "outbox") == 0


async def test_who_is_to_be_told_of_erasures_is_found_by_service(town: Filled) -> None:
    """However many wait for another one."""
    for service, most in (("inbox", 100), ("sender", 0)):
        found = await town.plans("worker", QUERIES["list_due_erasures"], service, 100)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, "erasures") <= most, service


async def test_segments_are_read_by_key_and_listed_by_name(town: Filled) -> None:
    """A page is a walk along the names that ends when it is full."""
    segment_id = await town.admin.fetchval("SELECT segment_id FROM segments LIMIT 1")
    for login, query, *arguments in (
        ("api", "find_segment", segment_id),
        ("worker", "find_segment_criteria", [segment_id]),
        ("worker", "remove_segment", segment_id),
        ("worker", "keep_count", segment_id, 1, 7),
    ):
        found = await town.plans(login, QUERIES[query], *arguments)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, "segments") <= 2, query
    found = await town.plans("api", QUERIES["list_segments_after"], "segment 1500", 50)
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "segments") == 50
