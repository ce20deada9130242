"""Whom the log tells that a broadcast has gone: its members stay for as long as they are looked up there."""

from uuid import UUID, uuid4

import pytest

from services.inbox.domain import Team
from services.inbox.store import QUERIES
from shared.audience import Audience
from tests.integration.inbox.aging import age, clean_up, expire, forgotten_log, rows_of
from tests.integration.inbox.stores import Stores
from tests.integration.inbox.test_retention import SOON, arrive, nothing_is_old, stores

__all__ = ["nothing_is_old", "stores"]


async def test_members_of_what_was_just_retracted_stay_until_the_log_forgets(stores: Stores) -> None:
    """Streams that go on from before are still told, and it is these rows that say who is."""
    number = stores.new_number()
    old = await arrive(stores, number)
    await stores.work.retract(old, hide=True)
    await age(stores.admin, 91, [old])
    assert (await clean_up(stores))["broadcasts"].count == 0
    assert "direct" in await rows_of(stores.admin, old)
    async with forgotten_log(stores.admin):
        assert (await clean_up(stores))["broadcasts"].count == 1
    assert "direct" not in await rows_of(stores.admin, old)


@pytest.mark.parametrize("days", [31, 91])
async def test_members_of_what_has_just_expired_stay_until_the_log_forgets(
    stores: Stores, days: float
) -> None:
    """They are who is told: before the log says that it has expired, and as long as it says so."""
    old = await arrive(stores, stores.new_number(), expires_at=SOON)
    await age(stores.admin, days, [old])
    await expire(stores.admin, 0, [old], is_told=False)
    assert (await clean_up(stores))["broadcasts"].count == 0
    await stores.worked.fetch(QUERIES["pass_time"], 20)
    for dry_run in (True, False):
        assert (await clean_up(stores, dry_run=dry_run))["broadcasts"].count == 0
    assert "direct" in await rows_of(stores.admin, old)
    async with forgotten_log(stores.admin):
        assert (await clean_up(stores))["broadcasts"].count == 1
    assert "direct" not in await rows_of(stores.admin, old)


async def test_who_sees_it_go_is_who_saw_it(stores: Stores) -> None:
    """The log names those on the team, and nobody when it had expired: its members are gone when that is read."""
    me, other = stores.new_number(), stores.new_number()
    wedding = uuid4()
    await stores.work.apply_team(Team(wedding, 1, Audience.of([me])))
    walled = await arrive(stores, me, other, wall=(wedding,))
    expired = await arrive(stores, me, expires_at=SOON)
    await age(stores.admin, 91, [walled, expired])
    await expire(stores.admin, 5, [expired])
    await clean_up(stores)
    entries = await stores.admin.fetch("SELECT body FROM log WHERE kind = 'retracted' ORDER BY position")
    told = {UUID(bytes=row["body"][:16]): Audience.from_bytes(row["body"][16:]) for row in entries[-2:]}
    assert told == {walled: Audience.of([me]), expired: Audience()}
