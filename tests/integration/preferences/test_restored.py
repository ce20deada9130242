"""A directory whose database was put back to an earlier state, or taken over by a standby: nothing is remembered."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from services.preferences.store import served_log
from shared.served_log import LogReplaced
from stack.nats import NatsAccess
from tests.integration.preferences.inbox import told_inbox
from tests.integration.preferences.site import Site, Someone, preferences_site
from tests.integration.shared.cluster import Cluster, own_folder
from tests.integration.shared.polling import until


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A Postgres of the test's own."""
    with own_folder() as folder:
        made = await Cluster.make(folder, "preferences", served_log())
        yield made
        made.running.kill()


async def test_a_log_is_another_where_its_database_is_another_state_of_it(cluster: Cluster) -> None:
    """After a crash it is the same, for both logins; promoted, or brought back from a dump, it is not."""
    known = await cluster.identity()
    cluster.crash()
    assert [await cluster.identity(login) for login in ("worker", "api")] == [known, known]
    cluster.stand_by()
    assert await cluster.identity() is None
    await cluster.promote()
    promoted = await cluster.identity()
    copy = cluster.copy()
    copy.bring_back()
    assert len({known, promoted, await copy.identity(), None}) == 4


async def test_nobody_is_taken_for_who_had_their_number(
    cluster: Cluster, tmp_path: Path, streams: NatsAccess
) -> None:
    """The service ends; the next knows nobody who came after the backup, and gives their numbers to others."""
    cluster.keep()
    async with told_inbox() as inbox:
        lost: list[Someone] = []
        # It is what the service ends with.
        with pytest.raises(LogReplaced):
            await _serve_until_put_back(
                cluster, preferences_site(tmp_path, cluster.suite, streams, inbox), lost
            )
        async with preferences_site(tmp_path, cluster.suite, streams, inbox) as site:
            found = await site.someone(role="couple")
            assert found.number == lost[0].number
            assert (await site.get(found)).business
            assert (await site.count(user_ids=[lost[0].user_id])).unknown_user_ids == 1


async def _serve_until_put_back(
    cluster: Cluster, serving: AbstractAsyncContextManager[Site], lost: list[Someone]
) -> None:
    async with serving as site:
        lost.append(await site.someone(role="couple"))
        await site.edit(lost[0], "business", business=False)
        cluster.put_back()
        (watch,) = (task for task in site.running.background if task.get_name() == "served_log")
        await until(watch.done)
