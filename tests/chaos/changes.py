"""Owns what people do besides sending during a run: they read, change their minds and their nights, and join teams."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1.common_pb2 import ReceiptAction
from wedsync.broadcast.v1.directory_pb2 import SetWeddingTeamRequest
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, RecordReceiptsRequest
from wedsync.broadcast.v1.preferences_pb2 import Preferences, QuietHours, UpdatePreferencesRequest

from tests.chaos.callers import RETRIED, Callers
from tests.chaos.screens import Shown
from tests.chaos.terms import CALL_S
from tests.chaos.truth import Truth

_RECEIPTS_EVERY_S: Final = 0.4
_MARKS_EVERY_S: Final = 5.0
_MINDS_EVERY_S: Final = 0.15
_NIGHTS_EVERY_S: Final = 10.0
_TEAMS_EVERY_S: Final = 0.4
_READING: Final = (
    ReceiptAction.RECEIPT_ACTION_READ,
    ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED,
    ReceiptAction.RECEIPT_ACTION_CLICKED,
)


class Changes:
    """Each kind of change in a loop of its own. What is refused in an outage is asked for again with the next."""

    def __init__(
        self,
        callers: Callers,
        truth: Truth,
        random: Random,
        *,
        readers: Sequence[Shown],
        undecided: Sequence[int],
        sleepers: Sequence[int],
        weddings: Sequence[UUID],
    ) -> None:
        """`undecided` switch all but critical off and on; the quiet hours of `sleepers` end with the minute."""
        self._callers = callers
        self._truth = truth
        self._random = random
        self._readers = readers
        self._undecided = undecided
        self._sleepers = sleepers
        self._weddings = weddings
        self.read: set[tuple[int, str]] = set()
        """Receipts that were confirmed: who has read what."""

    async def run(self) -> None:
        """Change until cancelled."""
        await asyncio.gather(
            self._again(self._read, _RECEIPTS_EVERY_S),
            self._again(self._mark_all_read, _MARKS_EVERY_S),
            self._again(self._change_mind, _MINDS_EVERY_S),
            self._again(self._sleep, _NIGHTS_EVERY_S),
            self._again(self._change_team, _TEAMS_EVERY_S),
        )

    async def _again(self, change: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await self._callers.once(change.__name__.strip("_"), change)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
            await asyncio.sleep(every_s)

    async def _read(self) -> None:
        reader = self._random.choice(self._readers)
        seen = sorted(reader.added)
        if not seen:
            return
        action = self._random.choice(_READING)
        request = RecordReceiptsRequest(
            broadcast_ids=[self._random.choice(seen)],
            action=action,
            action_url="/somewhere" if action == ReceiptAction.RECEIPT_ACTION_CLICKED else "",
        )
        answer = await self._callers.inbox.RecordReceipts(
            request, metadata=self._person(reader.number), timeout=CALL_S
        )
        self.read.update((reader.number, receipt.broadcast_id) for receipt in answer.receipts)

    async def _mark_all_read(self) -> None:
        reader = self._random.choice(self._readers)
        await self._callers.inbox.MarkAllRead(
            MarkAllReadRequest(), metadata=self._person(reader.number), timeout=CALL_S
        )

    async def _change_mind(self) -> None:
        wants = Preferences(critical_only=self._random.random() < 0.5)
        await self._update(self._random.choice(self._undecided), wants, "critical_only")

    async def _sleep(self) -> None:
        """Everyone of them sleeps from the minute before until the next minute that is not quite here yet."""
        now = datetime.now(UTC)
        end = (now + timedelta(seconds=65)).replace(second=0, microsecond=0)
        quiet = QuietHours(
            enabled=True, start=_clock(now - timedelta(minutes=1)), end=_clock(end), time_zone="UTC"
        )
        for number in self._sleepers:
            await self._update(number, Preferences(quiet_hours=quiet), "quiet_hours")

    async def _change_team(self) -> None:
        wedding_id = self._random.choice(self._weddings)
        team = sorted(self._truth.weddings[wedding_id])
        members = self._random.sample(team, self._random.randint(1, len(team)))
        request = SetWeddingTeamRequest(
            wedding_id=str(wedding_id), user_ids=[str(self._truth.user_ids[number]) for number in members]
        )
        await self._callers.directory.SetWeddingTeam(
            request, metadata=self._callers.service("directory.write"), timeout=CALL_S
        )

    async def _update(self, number: int, preferences: Preferences, field: str) -> None:
        request = UpdatePreferencesRequest(preferences=preferences, update_mask=FieldMask(paths=[field]))
        await self._callers.preferences.UpdatePreferences(
            request, metadata=self._person(number), timeout=CALL_S
        )

    def _person(self, number: int) -> tuple[tuple[str, str], ...]:
        return self._callers.person(self._truth.user_ids[number])


def _clock(moment: datetime) -> TimeOfDay:
    return TimeOfDay(hours=moment.hour, minutes=moment.minute)
