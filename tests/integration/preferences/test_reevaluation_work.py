"""What it takes to decide again: what has changed, and neither the audience nor how often somebody asks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from typing_extensions import override

from services.preferences.audiences import Audiences, Question
from services.preferences.changes import recipients_changed
from services.preferences.domain import DECIDED_CHANNELS, Category, Channel, Priority, Rules
from services.preferences.index import PeopleGroups
from services.preferences.keeper import IndexKeeper
from services.preferences.store import SCHEMA, IndexStore
from shared import database
from shared.audience import Audience
from shared.clock import FixedClock
from shared.database import Database
from shared.ordered_log import LogEntry, OrderedLog
from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite

PEOPLE = 5_000
NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
QUESTION = Question(Rules("feature.released", Category.SYSTEM, Priority.NORMAL, False), (), DECIDED_CHANNELS)
EVERYBODY = Audience.of(range(1, PEOPLE + 1))


class CountedStore(IndexStore):
    """Counts the people whom it is asked for."""

    def __init__(self, worked: Database) -> None:
        super().__init__(worked)
        self.people = 0

    @override
    async def find_people(self, numbers: Audience) -> PeopleGroups:
        self.people += len(numbers)
        return await super().find_people(numbers)


class CountedLog(OrderedLog):
    """Counts the entries that were read."""

    def __init__(self, worked: Database) -> None:
        super().__init__(worked, SCHEMA)
        self.entries = 0

    @override
    async def read(self, after: int, limit: int = 1000) -> list[LogEntry]:
        found = await super().read(after, limit)
        self.entries += len(found)
        return found


@dataclass(slots=True)
class Town:
    """Some thousand people, and who decides about them."""

    worked: Database
    store: CountedStore
    log: CountedLog
    keeper: IndexKeeper
    clock: FixedClock

    async def change(self, *people: int) -> None:
        """An entry in the log for each of these; what they have set stays."""
        entries = [recipients_changed([number]) for number in people]
        await self.log.append_many(self.worked, entries)

    async def decided_again(self, members: Audience, since: int) -> int:
        """How many people of an audience are decided again."""
        decision = await Audiences(self.keeper, self.clock).reevaluate(members, QUESTION, since, NOW)
        parts = [each for each in decision.slices if each.channel is Channel.IN_APP]
        return sum(len(each.members) for each in parts)


@pytest.fixture(scope="module")
async def worked(make_suite: MakeSuite) -> AsyncIterator[Database]:
    """Their tables."""
    suite: SuiteDatabase = await make_suite("preferences")
    pool = await database.connect(suite.url("preferences", "worker"), application_name="test")
    await pool.execute(
        f"""INSERT INTO recipients (user_id, display_name, role, user_type, tier, time_zone)
        SELECT gen_random_uuid(), 'Somebody', 'venue', 'supplier', 'free', 'Asia/Tokyo'
        FROM generate_series(1, {PEOPLE})"""  # noqa: S608
    )
    # Somebody has changed before, for since version 0 everybody has.
    await OrderedLog(pool, SCHEMA).append(pool, *recipients_changed([1]))
    yield pool
    await pool.close()


@pytest.fixture
async def town(worked: Database) -> Town:
    """A fresh look at them."""
    store, log = CountedStore(worked), CountedLog(worked)
    keeper = IndexKeeper(store, log)
    await keeper.build()
    return Town(worked, store, log, keeper, FixedClock(NOW))


async def test_a_change_is_read_once_though_everybody_asks_after_each(town: Town) -> None:
    """Two hundred people change, one after the other; each is read when they do, and never again."""
    since = (await town.keeper.current()).version
    for number in range(1, 201):
        await town.change(number)
        assert await town.decided_again(EVERYBODY, since) == number
    assert (town.store.people, town.log.entries) == (200, 200)


async def test_ten_thousand_changes_are_read_once_for_all_who_ask(town: Town) -> None:
    """More than are read at a time, and than there are people. Who asks again reads nothing."""
    since = (await town.keeper.current()).version
    await town.change(*(number % PEOPLE + 1 for number in range(10_000)))
    assert await town.decided_again(EVERYBODY, since) == PEOPLE
    assert (town.store.people, town.log.entries) == (10_000, 10_000)
    for turn in range(20):
        assert await town.decided_again(EVERYBODY, since + turn * 500) == min(PEOPLE, 10_000 - turn * 500)
    assert (town.store.people, town.log.entries) == (10_000, 10_000)


async def test_of_a_large_audience_those_are_decided_again_who_have_changed(town: Town) -> None:
    """As many as of a small one that they are all in; nobody, when they are in neither."""
    since = (await town.keeper.current()).version
    await town.change(3, 4, 5)
    few = Audience.of(range(1, 11))
    assert await town.decided_again(EVERYBODY, since) == await town.decided_again(few, since) == 3
    assert await town.decided_again(EVERYBODY - few, since) == 0


class OvertakenLog(CountedLog):
    """When it is read for the first time once `on_read` is set, that is done before the answer is had."""

    on_read: Callable[[], Awaitable[object]] | None = None

    @override
    async def read(self, after: int, limit: int = 1000) -> list[LogEntry]:
        found = await super().read(after, limit)
        if self.on_read is not None and found:
            on_read, self.on_read = self.on_read, None
            await on_read()
        return found


async def test_what_changes_while_older_entries_are_read_is_decided_again(town: Town) -> None:
    """A process that was started later reads what came before it from the table; meanwhile its index moves on."""
    since = await town.log.head()
    await town.change(1)
    log = OvertakenLog(town.worked)
    late = Town(town.worked, town.store, log, IndexKeeper(town.store, log), town.clock)
    await late.keeper.build()

    async def overtake() -> None:
        await late.change(2)
        await late.keeper.current()

    log.on_read = overtake
    assert await late.decided_again(EVERYBODY, since) == 2
    assert log.on_read is None
