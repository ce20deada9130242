"""What counts for no limit any more is cleared away, and nothing else."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from services.sender.past_counts import PastCounts
from services.sender.store import DispatchStore
from shared import database
from stack.provision import SuiteDatabase
from tests.integration.sender.limits import counted, quota, sent_before
from tests.integration.sender.site import ServingSite, Site
from tests.integration.shared.polling import until_equal

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
PAST = [DAY + HOUR + number * MINUTE for number in range(1, 8)]


@pytest.fixture
async def past_counts(sender_database: SuiteDatabase) -> AsyncIterator[PastCounts]:
    """What clears away, as the worker's login."""
    worked = await database.connect(sender_database.url("sender", "worker"), application_name="test")
    yield PastCounts(DispatchStore(worked))
    await worked.close()


async def test_all_that_is_past_goes_in_small_parts(site: Site, past_counts: PastCounts) -> None:
    """Also where several were sent at one moment; what counts, or did an hour ago, stays."""
    await past_counts.forget()
    user_id, admin = site.person("admin")
    other = str(uuid4())
    await sent_before(site, user_id, *PAST, DAY + MINUTE, DAY - MINUTE, HOUR - MINUTE)
    await sent_before(site, other, *PAST)
    before = await quota(site, admin)
    assert await past_counts.forget(batch=3) == 2 * len(PAST)
    assert (await counted(site, user_id), await counted(site, other)) == (3, 0)
    assert await quota(site, admin) == before
    assert (before.hour_remaining, before.day_remaining) == (24, 98)


async def test_who_has_only_past_sends_begins_anew(site: Site, past_counts: PastCounts) -> None:
    """With all that a limit allows, and the next send is counted as the first."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *PAST)
    await past_counts.forget()
    assert [(await site.send(admin)).quota.hour_remaining for _ in range(2)] == [24, 23]
    ordinals = await site.admin.fetch(
        "SELECT ordinal FROM sender.counted_sends WHERE caller = $1 ORDER BY at", user_id
    )
    assert [row["ordinal"] for row in ordinals] == [1, 2]


async def test_a_sender_does_it_by_itself(site: ServingSite) -> None:
    """From when it starts."""
    name = str(uuid4())
    await sent_before(site, name, *PAST)
    await site.restart()
    await until_equal(0, lambda: counted(site, name))
