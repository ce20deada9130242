"""Owns erasing: forgets who a number was, replaces what broadcasts said, and has this node remember neither.

Every node does the last when it reads the log, so also one that nobody has called.
"""

from collections.abc import Sequence
from uuid import UUID

from services.inbox.changes import Change, Changes, Need
from services.inbox.checkpoints import Checkpoints
from services.inbox.contents import Contents
from services.inbox.identities import Identities
from services.inbox.live import Tail
from services.inbox.memory import Memory
from services.inbox.privacy_store import PrivacyStore
from services.inbox.texts import Texts
from services.inbox.waking import Waking


class Erasing:
    """Returns when the log says so and this node has followed: none of its streams shows any more what is gone."""

    def __init__(
        self, store: PrivacyStore, contents: Contents, checkpoints: Checkpoints, waking: Waking, tail: Tail
    ) -> None:
        self._store = store
        self._contents = contents
        self._checkpoints = checkpoints
        self._waking = waking
        self._tail = tail

    async def erase(self, user_id: UUID, recipient_number: int) -> None:
        """Forget who a number was, and end their streams."""
        await self._store.erase(user_id, recipient_number)
        await self._follow()
        await self._checkpoints.remove(recipient_number)

    async def refresh(self, broadcast_ids: Sequence[UUID]) -> None:
        """Have these say what the sender says by now. Raises NotFound for one that it does not have."""
        await self._store.replace_contents(await self._contents.fetch_anew(broadcast_ids))
        await self._follow()

    async def _follow(self) -> None:
        await self._waking.announce()
        await self._tail.reach_end()


class Forgetting:
    """What this node remembers of people and broadcasts, and lets go of as the log says."""

    def __init__(
        self,
        identities: Identities,
        memory: Memory,
        checkpoints: Checkpoints,
        texts: Texts,
        changes: Changes,
        contents: Contents,
    ) -> None:
        self._identities = identities
        self._memory = memory
        self._checkpoints = checkpoints
        self._texts = texts
        self._changes = changes
        self._contents = contents

    def note(self, change: Change) -> None:
        """Forget whom or what a change is about, if it asks for that."""
        if change.need is Need.END:
            self._identities.forget(change.members)
            for number in change.members.to_list():
                self._memory.forget(number)
                self._checkpoints.forget(number)
        if change.rewritten is not None:
            self._texts.forget(change.rewritten)
            self._changes.forget(change.rewritten)
            self._contents.forget_text(change.rewritten)
