"""Erasures beside what else goes on: nobody waits for the erasure of somebody else."""

import asyncio
import itertools
from collections.abc import Iterable

import pytest

from services.preferences.changes import Entry
from services.preferences.store import DirectoryStore
from shared.database import Transaction
from tests.integration.preferences.erasures import erase
from tests.integration.preferences.site import Site
from tests.integration.shared.polling import until_equal


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
