"""Erasures beside what else goes on: nobody waits for the erasure of somebody else."""

import asyncio
import itertools
from collections.abc import Iterable
from uuid import uuid4

import pytest

from services.preferences.changes import Entry
from services.preferences.privacy_store import Erasure, ErasureStore
from services.preferences.store import SCHEMA, DirectoryStore
from shared import database
from shared.database import Transaction
from shared.ordered_log import OrderedLog
from shared.outbox import Outbox
from tests.integration.preferences.erasures import erase, rows_of, settled
from tests.integration.preferences.site import Site
from tests.integration.shared.polling import until_equal

WAITING = 400
BACKLOG = """
    WITH gone AS (
        INSERT INTO preferences.recipients (user_id, display_name, role, user_type, tier, time_zone, erased_at)
        SELECT gen_random_uuid(), 'Erased', 'erased', 'staff', 'erased', 'UTC', now() FROM generate_series(1, $1)
        RETURNING number
    )
    INSERT INTO preferences.erasures (number, user_id, service, due_at)
    SELECT number, gen_random_uuid(), 'inbox', now() - interval '1 hour' FROM gone
"""
TO_BE_TOLD = """
    INSERT INTO preferences.erasures (number, user_id, service, due_at)
    VALUES ($1, $2, 'sender', now() + interval '20 seconds')
"""


async def _teams_of(site: Site, weddings: Iterable[str]) -> list[list[int]]:
    """As the inbox has them."""
    return [sorted(site.inbox.teams[wedding_id].members) for wedding_id in weddings]


async def test_others_edit_while_somebody_on_many_teams_is_erased(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the erasure is about to commit nobody waits for it, and the inbox has every team then."""
    person, other = await site.someone(), await site.someone()
    weddings = [await site.wedding(person, other) for _ in range(3)]
    appended, is_muted = DirectoryStore.append, itertools.cycle((True, False))

    async def let_others_in(self: DirectoryStore, transaction: Transaction, entries: list[Entry]) -> int:
        await asyncio.wait_for(site.edit(other, "critical_only", critical_only=next(is_muted)), 5)
        return await appended(self, transaction, entries)

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "append", let_others_in)
        await erase(site, person)
    await until_equal([[other.number]] * 3, lambda: _teams_of(site, weddings))


async def test_what_waits_for_a_service_keeps_no_other_from_being_told(site: Site) -> None:
    """The inbox is away and has far more to hear of than is told at once, all of it longer due."""
    await settled(site)
    person = await site.someone()
    site.inbox.is_down = True
    await site.admin.execute(BACKLOG, WAITING)
    await erase(site, person)

    async def times_told() -> bool:
        return site.inbox.sender.erased[person.user_id] >= 2

    await until_equal(True, times_told)
    assert await rows_of(site, "erasures", service="inbox") == WAITING + 1
    site.inbox.is_down = False
    await settled(site)
    assert site.inbox.erased[person.user_id] >= 2


async def test_a_late_failure_brings_no_second_telling_forward(site: Site) -> None:
    """Two tell a service of the same person: one has it confirmed, and the other hears nothing in time after that."""
    number, worked = (
        (await site.someone()).number,
        await database.connect(site.database.url(SCHEMA, "worker"), application_name="test"),
    )
    store = ErasureStore(worked, DirectoryStore(worked, OrderedLog(worked, SCHEMA), Outbox(worked, SCHEMA)))
    told = Erasure(number, uuid4(), "sender")
    due_in_s = "SELECT extract(epoch FROM due_at - now())::float8 FROM preferences.erasures WHERE number = $1"
    try:
        await site.admin.execute(TO_BE_TOLD, number, told.user_id)
        await store.postpone(told, retry_s=30)
        assert await site.admin.fetchval(due_in_s, number) == pytest.approx(30, abs=5)
        await store.confirm(told, repeat_s=60)
        await store.postpone(told, retry_s=5)
        assert await site.admin.fetchval(due_in_s, number) == pytest.approx(60, abs=5)
    finally:
        await site.admin.execute("DELETE FROM preferences.erasures WHERE number = $1", number)
        await worked.close()
