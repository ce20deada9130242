"""An inbox whose database was put back to an earlier state, or taken over by a standby: what it remembered is void."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services.inbox.served_log import find_log_identity, served_log
from shared import database
from shared.errors import DependencyUnavailable
from shared.served_log import LogReplaced, LogWatch
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.inbox.site import serving_site
from tests.integration.inbox.watching import watching
from tests.integration.shared.cluster import Cluster, own_folder
from tests.integration.shared.polling import until


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A Postgres of the test's own."""
    with own_folder() as folder:
        made = await Cluster.make(folder, "inbox", served_log())
        yield made
        made.running.kill()


async def test_a_log_is_another_where_its_database_is_another_or_another_state_of_it(
    cluster: Cluster,
) -> None:
    """After a crash it is the same, for both logins; promoted, copied, or brought back from a dump, it is not."""
    known = await cluster.identity()
    cluster.crash()
    assert [await cluster.identity(login) for login in ("worker", "api")] == [known, known]

    cluster.stand_by()
    assert await cluster.identity() is None
    await cluster.promote()
    promoted = await cluster.identity()
    cluster.restart()
    assert await cluster.identity() == promoted

    copy = cluster.copy()
    copied = await copy.identity()
    copy.bring_back()
    restored = await copy.identity()
    assert None not in (known, promoted, copied, restored)
    assert len({known, promoted, copied, restored}) == 4


async def test_nothing_that_was_remembered_is_used_after_the_database_was_put_back(
    cluster: Cluster, tmp_path: Path, streams: NatsAccess, valkey_server: str, beside: Neighbours
) -> None:
    """The inbox ends; the next starts streams anew and counts badges, though the log has grown as long as it was."""
    cluster.keep()
    async with serving_site(tmp_path, cluster.suite, streams, valkey_server, beside) as site:
        amara, jonas = site.people(2)
        for _ in range(4):
            await site.send([amara])
        assert await site.unread(amara) == 4
        async with watching(site, amara) as watcher:
            await watcher.next("snapshot")
            cursor = watcher.cursor
        cluster.put_back()
        (watch,) = (task for task in site.running.background if task.get_name() == "served_log")
        await until(watch.done)
        assert isinstance(watch.exception(), LogReplaced)
        await site.restart()
        for person in (jonas, jonas, jonas, amara, amara):
            latest = await site.send([person])
        assert await site.unread(amara) == 2
        async with watching(site, amara, cursor) as watcher:
            snapshot = await watcher.next("snapshot")
            assert (snapshot.recovered, len(snapshot.items), snapshot.unread_count) == (False, 2, 2)
        async with watching(site, amara, watcher.cursor) as watcher:
            assert (await watcher.next("unread_count")).unread_count == 2
        assert (await site.ids(amara))[0] == latest


async def test_a_new_connection_to_another_log_is_not_used(make_suite: MakeSuite) -> None:
    """Whoever asks for one is told to try again, until the process has ended."""
    suite, served = await make_suite("inbox"), served_log()
    url = suite.url("inbox", "worker")
    worked = await database.connect(url, application_name="test", on_connect=served.confirm)
    assert served.identity == await find_log_identity(worked)
    await (await database.connect(url, application_name="test", on_connect=served.confirm)).close()
    await _replace_log(suite)
    with pytest.raises(DependencyUnavailable):
        await database.connect(url, application_name="test", on_connect=served.confirm)
    with pytest.raises(LogReplaced):
        await LogWatch(served, worked).run()
    await worked.close()


async def test_another_log_is_noticed_on_connections_that_stay(make_suite: MakeSuite) -> None:
    """A pooler leads to another server and its clients' connections are the same."""
    suite, served = await make_suite("inbox"), served_log()
    worked = await database.connect(
        suite.url("inbox", "worker"), application_name="test", max_size=1, on_connect=served.confirm
    )
    await _replace_log(suite)
    with pytest.raises(LogReplaced):
        await LogWatch(served, worked).run()
    await worked.close()


async def _replace_log(suite: SuiteDatabase) -> None:
    admin = await asyncpg.connect(suite.admin_url)
    await admin.execute("UPDATE inbox.log_identity SET identity = gen_random_uuid()")
    await admin.close()
