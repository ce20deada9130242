"""Settings bind what has not left yet: in the middle of a fan-out, and while somebody sleeps."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.directory_pb2 import Recipient, UpsertRecipientsRequest, UserType
from wedsync.broadcast.v1.preferences_pb2 import Preferences, QuietHours, UpdatePreferencesRequest

from shared.audience import BLOCK_SIZE, CHUNK_BLOCKS
from stack.background import BackgroundStack
from tests.e2e.client import CALL_S, Client, eventually

ROLE = "night-owl"
CHUNKS = 4
PEOPLE = CHUNKS * CHUNK_BLOCKS
FIRST_BLOCK = 100
"""Far from the demo's people: one person in each block, so that few people are many chunks."""


@pytest.fixture(scope="module")
def suite() -> Iterator[BackgroundStack]:
    """A suite in which one chunk of a broadcast is on its way at a time."""
    settings = {"DISPATCHER_CHUNKS_IN_FLIGHT": "1", "DISPATCHER_MEMBERS_IN_FLIGHT": "1"}
    with BackgroundStack(200, settings=settings) as stack:
        yield stack


@pytest.fixture(scope="module")
async def client(suite: BackgroundStack) -> AsyncIterator[Client]:
    """Calls that suite."""
    async with Client(suite) as client:
        yield client


async def look(client: Client, statement: str, *arguments: object) -> object:
    """What an administrator's statement answers."""
    connection = await asyncpg.connect(client.stack.environment["DATABASE_URL"])
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


async def bring(client: Client, user_id: UUID, role: str) -> None:
    """Somebody new, whose role has no quiet hours."""
    person = Recipient(
        user_id=str(user_id),
        display_name="Somebody",
        role=role,
        user_type=UserType.USER_TYPE_SUPPLIER,
        tier="free",
        time_zone="UTC",
    )
    await client.directory.UpsertRecipients(
        UpsertRecipientsRequest(request_id=str(uuid4()), recipients=[person]),
        metadata=client.service("directory.write"),
        timeout=CALL_S,
    )


@pytest.fixture(scope="module")
async def crowd(client: Client) -> list[UUID]:
    """People in the order of their numbers, one in each block."""
    people = [uuid4() for _ in range(PEOPLE)]
    for place, user_id in enumerate(people):
        number = (FIRST_BLOCK + place) * BLOCK_SIZE
        await look(
            client, "SELECT setval(pg_get_serial_sequence('preferences.recipients', 'number'), $1)", number
        )
        await bring(client, user_id, ROLE)
    return people


async def edit(client: Client, user_id: UUID, *paths: str, **fields: object) -> None:
    """Somebody changes their settings; accepted when this returns."""
    await client.preferences.UpdatePreferences(
        UpdatePreferencesRequest(
            request_id=str(uuid4()),
            preferences=Preferences(**fields),  # type: ignore[arg-type]
            update_mask=FieldMask(paths=paths),
        ),
        metadata=client.person(user_id),
        timeout=CALL_S,
    )


@asynccontextmanager
async def inbox_standing_still(client: Client) -> AsyncIterator[None]:
    """Nothing is merged for the time of the block, and no chunk makes room for the next."""
    inboxes = client.stack.services("inbox")
    for process in inboxes:
        process.suspend()
    try:
        yield
    finally:
        for process in inboxes:
            process.resume()


async def leased(client: Client, broadcast_id: str) -> int:
    """How many chunks have ever been leased."""
    statement = "SELECT count(*) FROM dispatcher.chunks WHERE broadcast_id = $1 AND epoch > 0"
    return int(str(await look(client, statement, UUID(broadcast_id))))


async def test_a_change_in_the_middle_of_a_fan_out_binds_all_that_has_not_left(
    client: Client, crowd: Sequence[UUID]
) -> None:
    """While the first of four chunks is at the inbox, people of the others mute it: they do not get it, all others do.

    Who was in the chunk that had left by then has it, since it was theirs when they changed their mind.
    """
    gone = crowd[0]
    muted, critical_only, without_wedding = crowd[CHUNK_BLOCKS + 3], crowd[2 * CHUNK_BLOCKS + 1], crowd[-1]
    async with inbox_standing_still(client):
        broadcast_id = await client.send("admin", targeting=Targeting(roles=[ROLE]))

        async def has_begun() -> bool:
            return await leased(client, broadcast_id) == 1

        await eventually(has_begun, "the first chunk to leave")
        await asyncio.gather(
            edit(client, gone, "system", system=False),
            edit(client, muted, "system", system=False),
            edit(client, critical_only, "critical_only", critical_only=True),
            edit(client, without_wedding, "wedding", wedding=False),
        )
        assert await leased(client, broadcast_id) == 1, "nothing else had left when the changes were accepted"
    await client.sent(broadcast_id)
    refused = {muted, critical_only}
    for user_id in crowd:
        assert await client.has(user_id, broadcast_id) == (user_id not in refused)
    suppressed = [line for line in (await client.show(broadcast_id)).stats.ledger if line.reason]
    assert [line.count for line in suppressed] == [1, 1, 1, 1], "for each of two reasons, one on each channel"


def around_now(hours: float) -> QuietHours:
    """Quiet hours that began an hour ago and end in so many."""
    now = datetime.now(UTC)
    start, end = now - timedelta(hours=1), now + timedelta(hours=hours)
    return QuietHours(
        enabled=True,
        start=TimeOfDay(hours=start.hour, minutes=start.minute),
        end=TimeOfDay(hours=end.hour, minutes=end.minute),
        time_zone="UTC",
    )


async def followed(client: Client, broadcast_id: str) -> int:
    """The version of the directory up to which all that is held of it is known to be right."""
    statement = (
        "SELECT min(decided_version) FROM dispatcher.chunks WHERE broadcast_id = $1 AND state = 'held'"
    )
    return int(str(await look(client, statement, UUID(broadcast_id))))


async def test_what_is_held_is_released_when_its_person_says_so(client: Client) -> None:
    """Quiet hours switched off: the alert comes at once, not in the morning. Moved: it waits for the new end."""
    one, other = uuid4(), uuid4()
    for user_id in (one, other):
        await bring(client, user_id, "stroller")
        await edit(client, user_id, "quiet_hours", quiet_hours=around_now(2))
    async with client.watching(one) as screen, client.watching(other) as other_screen:
        broadcast_id = await client.send("admin", targeting=Targeting(roles=["stroller"]))
        await client.sent(broadcast_id)
        await edit(client, other, "quiet_hours", quiet_hours=around_now(4))
        query = """
            SELECT max(release_at) FROM dispatcher.chunks WHERE broadcast_id = $1 AND state = 'held'
            """
        later = datetime.now(UTC) + timedelta(hours=3)

        async def is_moved() -> bool:
            found = await look(client, query, UUID(broadcast_id))
            return isinstance(found, datetime) and found > later

        await eventually(is_moved, "the hold to follow the new end")
        await edit(client, one, "quiet_hours.enabled", quiet_hours=QuietHours(enabled=False))
        await screen.until(lambda event: event.alert.item.broadcast_id == broadcast_id, "the alert")
        assert [event for event in other_screen.events if event.HasField("alert")] == []


async def test_what_is_muted_when_a_hold_ends_never_rings_and_what_was_taken_back_does(
    client: Client,
) -> None:
    """Both mute it at night. One takes that back and is alerted; for the other the ledger says why not."""
    one, other = uuid4(), uuid4()
    for user_id in (one, other):
        await bring(client, user_id, "sleeper")
        await edit(client, user_id, "quiet_hours", quiet_hours=around_now(2))
    async with client.watching(one) as screen, client.watching(other) as other_screen:
        broadcast_id = await client.send("admin", targeting=Targeting(roles=["sleeper"]))
        await client.sent(broadcast_id)
        evening = await followed(client, broadcast_id)
        await asyncio.gather(*(edit(client, each, "system", system=False) for each in (one, other)))

        async def is_seen() -> bool:
            return await followed(client, broadcast_id) >= evening + 2

        await eventually(is_seen, "both changes to be seen")
        await edit(client, one, "system", system=True)
        for user_id in (one, other):
            await edit(client, user_id, "quiet_hours.enabled", quiet_hours=QuietHours(enabled=False))
        await screen.until(lambda event: event.alert.item.broadcast_id == broadcast_id, "the alert")
        await look(
            client,
            "UPDATE dispatcher.chunks SET release_at = now() WHERE broadcast_id = $1 AND state = 'held'",
            UUID(broadcast_id),
        )

        async def is_suppressed() -> bool:
            ledger = (await client.show(broadcast_id)).stats.ledger
            return any(line.reason and line.count == 1 for line in ledger)

        await eventually(is_suppressed, "the other to be decided about")
        assert [event for event in other_screen.events if event.HasField("alert")] == []
