"""Owns looking at what has become of everything: on record by SQL, and as people see it through gRPC."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import asyncpg
import grpc
from pyroaring import BitMap
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Channel, DeliveryState
from wedsync.broadcast.v1.inbox_pb2 import GetInboxItemRequest, ListInboxItemsRequest
from wedsync.broadcast.v1.preferences_pb2 import GetPreferencesRequest, Preferences
from wedsync.broadcast.v1.sender_pb2 import GetBroadcastRequest

from shared.audience import Audience
from shared.queries import load
from tests.chaos.callers import Callers
from tests.chaos.checker import Copies, Ledger
from tests.chaos.echo import LATE_CHUNK
from tests.chaos.recount import Deed, Mark, Part, People, recount
from tests.chaos.terms import CALL_S
from tests.chaos.truth import Truth

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_READERS_AT_ONCE: Final = 24
_RETRY_S: Final = 0.1
_PAGE: Final = 100
_ALERTED_S: Final = 20.0
_UNREACHABLE: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class OnRecord:
    """A broadcast as the sender has it."""

    broadcast_id: str
    title: str
    state: str
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A broadcast that waits for approval."""

    broadcast_id: str
    expires: bool


class Record:
    """The databases, seen by the administrator; asked again for as long as Postgres is away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def arrived(self, broadcast_id: str) -> BitMap:
        """Who has a broadcast at this moment."""
        key = UUID(broadcast_id)
        blocks = await self._ask(lambda connection: connection.fetch(QUERIES["blocks_of"], key))
        direct = await self._ask(lambda connection: connection.fetch(QUERIES["direct_of"], key))
        members = BitMap(row["recipient_number"] for row in direct)
        for row in blocks:
            members |= _members(row["block"], row["members"])
        return members

    async def everything(self) -> dict[str, Copies]:
        """Who has what, by broadcast."""
        found: dict[str, Copies] = {}
        for row in await self._ask(lambda connection: connection.fetch(QUERIES["all_blocks"])):
            copies = found.setdefault(str(row["broadcast_id"]), Copies())
            copies.add(_members(row["block"], row["members"]))
        for row in await self._ask(lambda connection: connection.fetch(QUERIES["all_direct"])):
            found.setdefault(str(row["broadcast_id"]), Copies()).add(BitMap([row["recipient_number"]]))
        return found

    async def broadcasts(self) -> list[OnRecord]:
        """All that was ever accepted."""
        rows = await self._ask(lambda connection: connection.fetch(QUERIES["all_broadcasts"]))
        return [
            OnRecord(str(row["broadcast_id"]), row["title"], row["state"], row["sent_at"]) for row in rows
        ]

    async def waiting(self) -> list[Waiting]:
        """All that waits for approval now."""
        rows = await self._ask(lambda connection: connection.fetch(QUERIES["waiting"]))
        return [Waiting(str(row["broadcast_id"]), row["expires"]) for row in rows]

    async def unfinished(self) -> int:
        """How many broadcasts and cancels are on their way."""
        return int(await self._ask(lambda connection: connection.fetchval(QUERIES["unfinished"])))

    async def dead_letters(self) -> list[str]:
        """What was put aside, in words."""
        rows = await self._ask(lambda connection: connection.fetch(QUERIES["dead_letters"], LATE_CHUNK))
        return [f"{row['times']} of {row['subject']}: {row['error']}" for row in rows]

    async def walls_that_differ(self) -> int:
        """How many weddings have another team in the inbox than in the directory."""
        return int(await self._ask(lambda connection: connection.fetchval(QUERIES["walls_that_differ"])))

    async def audit_flaws(self) -> int:
        """How much the audit log lacks, or has in another way than it was written."""
        return int(await self._ask(lambda connection: connection.fetchval(QUERIES["audit_flaws"])))

    async def teams(self, wedding_ids: Sequence[UUID]) -> dict[str, BitMap]:
        """Who is on these weddings' teams now, as the directory has it."""
        query = QUERIES["teams_of"]
        rows = await self._ask(lambda connection: connection.fetch(query, list(wedding_ids)))
        return {str(row["wedding_id"]): BitMap(row["team"]) for row in rows}

    async def close(self) -> None:
        """Look no more."""
        if self._connection is not None:
            await self._connection.close()

    async def recounted(self) -> dict[str, People]:
        """What every broadcast has come to, counted one by one from what is on record."""
        snapshots = await self._ask(lambda connection: connection.fetch(QUERIES["all_snapshots"]))
        parts = await self._ask(lambda connection: connection.fetch(QUERIES["all_parts"]))
        deeds = await self._ask(lambda connection: connection.fetch(QUERIES["all_deeds"]))
        marks = await self._ask(lambda connection: connection.fetch(QUERIES["all_marks"]))
        return recount(
            {str(row["broadcast_id"]): row["targeted"] for row in snapshots},
            map(_part, parts),
            (Deed(row[0], str(row[1]), row[2], row[3], row[4]) for row in deeds),
            (Mark(row[0], row[1], row[2]) for row in marks),
        )

    async def analytics(self) -> dict[str, People]:
        """What the suite has counted, by broadcast."""
        rows = await self._ask(lambda connection: connection.fetch(QUERIES["newest_analytics"]))
        return {str(row["broadcast_id"]): People(*row[1:]) for row in rows}

    async def moment(self) -> datetime:
        """What time it is where everything is kept."""
        query = QUERIES["moment"]
        moment: datetime = await self._ask(lambda connection: connection.fetchval(query))
        return moment

    async def count_again(self, since: datetime) -> int:
        """Have all that was not counted since then be counted once more; how many broadcasts those are."""
        rows = await self._ask(lambda connection: connection.fetch(QUERIES["count_again"], since))
        return len(rows)

    async def _ask(self, question: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
        async with self._turn:
            while True:
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await asyncpg.connect(self._url)
                    return await question(self._connection)
                except _UNREACHABLE:
                    self._connection = None
                    await asyncio.sleep(_RETRY_S)


class Lists:
    """What people are shown when they ask."""

    def __init__(self, callers: Callers, truth: Truth) -> None:
        self._callers = callers
        self._truth = truth
        self._places = asyncio.Semaphore(_READERS_AT_ONCE)

    async def inboxes(self, readers: Iterable[int]) -> dict[str, Copies]:
        """Who was shown what."""
        found: dict[str, Copies] = {}

        async def read(number: int) -> None:
            for broadcast_id in await self._inbox(number):
                found.setdefault(broadcast_id, Copies()).add(BitMap([number]))

        await asyncio.gather(*map(read, readers))
        return found

    async def unread(self, receipts: Iterable[tuple[int, str]], gone: Iterable[str]) -> list[tuple[int, str]]:
        """Receipts that were confirmed and are not there; those for what is `gone` cannot be looked up."""
        left = sorted(receipt for receipt in set(receipts) if receipt[1] not in set(gone))
        marks = await asyncio.gather(*(self._is_read(*receipt) for receipt in left))
        return [receipt for receipt, is_read in zip(left, marks, strict=True) if not is_read]

    async def minds(self, numbers: Iterable[int]) -> dict[int, Preferences]:
        """What these people are told that they want."""
        found = await asyncio.gather(*map(self._mind, asked := sorted(numbers)))
        return dict(zip(asked, found, strict=True))

    async def ledgers(self, broadcast_ids: Sequence[str]) -> Mapping[str, Ledger]:
        """What the suite says of each broadcast, once no alert whose hold has ended just now is on its way."""
        ledgers = await self._ledgers(broadcast_ids)
        # From here on: to ask for thousands of them has taken as long as an alert may.
        deadline = time.monotonic() + _ALERTED_S
        while asked := [
            each for each in ledgers if ledgers[each].channels.get("realtime", {}).get("pending")
        ]:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_RETRY_S)
            ledgers |= await self._ledgers(asked)
        return ledgers

    async def _ledgers(self, broadcast_ids: Iterable[str]) -> dict[str, Ledger]:
        found = await asyncio.gather(*map(self._ledger, broadcast_ids))
        return {each.broadcast_id: each for each in found}

    async def _inbox(self, number: int) -> list[str]:
        found, token = [], ""
        metadata = self._callers.person(self._truth.user_ids[number])
        async with self._places:
            while True:
                request = ListInboxItemsRequest(page_size=_PAGE, page_token=token, include_dismissed=True)
                page = await self._callers.until_answered(
                    "ListInboxItems",
                    lambda request=request: self._callers.inbox.ListInboxItems(  # type: ignore[misc]
                        request, metadata=metadata, timeout=CALL_S
                    ),
                )
                found += [item.broadcast_id for item in page.items]
                token = page.next_page_token
                if not token:
                    return found

    async def _mind(self, number: int) -> Preferences:
        metadata = self._callers.person(self._truth.user_ids[number])
        async with self._places:
            answer = await self._callers.until_answered(
                "GetPreferences",
                lambda: self._callers.preferences.GetPreferences(
                    GetPreferencesRequest(), metadata=metadata, timeout=CALL_S
                ),
            )
        return answer.preferences

    async def _is_read(self, number: int, broadcast_id: str) -> bool:
        metadata = self._callers.person(self._truth.user_ids[number])
        request = GetInboxItemRequest(broadcast_id=broadcast_id)
        async with self._places:
            try:
                answer = await self._callers.until_answered(
                    "GetInboxItem",
                    lambda: self._callers.inbox.GetInboxItem(request, metadata=metadata, timeout=CALL_S),
                )
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.item.HasField("read_at"))

    async def _ledger(self, broadcast_id: str) -> Ledger:
        request = GetBroadcastRequest(broadcast_id=broadcast_id)
        async with self._places:
            answer = await self._callers.until_answered(
                "GetBroadcast",
                lambda: self._callers.sender.GetBroadcast(
                    request, metadata=self._callers.admin, timeout=CALL_S
                ),
            )
        channels: dict[str, dict[str, int]] = {}
        for line in answer.stats.ledger:
            states = channels.setdefault(_word(Channel.Name(line.channel)), {})
            state = _word(DeliveryState.Name(line.state))
            states[state] = states.get(state, 0) + line.count
        state = _word(BroadcastState.Name(answer.broadcast.state))
        counted, targeted = answer.stats.engagement, answer.stats.targeted
        people = People(targeted, counted.delivered, counted.read, counted.acknowledged, counted.clicked)
        return Ledger(broadcast_id, state, targeted, channels, people)


def _word(name: str) -> str:
    """`in_app` of CHANNEL_IN_APP."""
    for prefix in ("CHANNEL_", "DELIVERY_STATE_", "BROADCAST_STATE_"):
        name = name.removeprefix(prefix)
    return name.lower()


def _part(row: asyncpg.Record) -> Part:
    alone = row["recipient_number"]
    members = BitMap([alone]) if alone is not None else _members(row["block"], row["members"])
    return Part(str(row["broadcast_id"]), row["position"], row["arrived_at"], members)


def _members(block: int, bits: asyncpg.BitString) -> BitMap:
    return BitMap(Audience.from_blocks([(block, bits.bytes)]).to_list())
