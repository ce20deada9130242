"""Owns what people do besides sending during a run: they read, change their minds and their nights, and join teams.

Each change has a request_id and is asked for until it is answered, as a good client does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, TypeVar
from uuid import UUID

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1.common_pb2 import ReceiptAction
from wedsync.broadcast.v1.directory_pb2 import (
    Recipient,
    Segment,
    SetWeddingTeamRequest,
    UpdateSegmentRequest,
    UpsertRecipientsRequest,
)
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, PinItemRequest, RecordReceiptsRequest
from wedsync.broadcast.v1.preferences_pb2 import Preferences, QuietHours, UpdatePreferencesRequest

from tests.chaos.callers import Callers
from tests.chaos.screens import Shown
from tests.chaos.terms import CALL_S
from tests.chaos.truth import Truth

_Answer = TypeVar("_Answer")
_RECEIPTS_EVERY_S: Final = 0.4
_MARKS_EVERY_S: Final = 5.0
_MINDS_EVERY_S: Final = 0.15
_NIGHTS_EVERY_S: Final = 10.0
_TEAMS_EVERY_S: Final = 0.4
_ENTRIES_EVERY_S: Final = 0.4
_SEGMENTS_EVERY_S: Final = 0.4
# One of those that are there from the start.
_SEGMENT: Final = "5e90e000-0000-4000-8000-000000000004"
# Of items that have been taken back, or of one more than may be pinned.
_NOT_NOW: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
_READING: Final = (
    ReceiptAction.RECEIPT_ACTION_READ,
    ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED,
    ReceiptAction.RECEIPT_ACTION_CLICKED,
)


class Changes:
    """Each kind of change in a loop of its own."""

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
        entries: Sequence[Recipient],
    ) -> None:
        """`undecided` switch all but critical off and on; the quiet hours of `sleepers` end with the minute.

        `entries` are told to the directory again, as they are.
        """
        self._callers = callers
        self._truth = truth
        self._random = random
        self._readers = readers
        self._undecided = undecided
        self._sleepers = sleepers
        self._weddings = weddings
        self._entries = entries
        self._segment = Segment()
        self.read: set[tuple[int, str]] = set()
        """Receipts that were confirmed: who has read what."""
        self.minds: dict[int, Preferences] = {}
        """What the undecided were answered last, by the version that it says."""
        self.in_doubt: set[int] = set()
        """Those of them who were not answered before the end."""

    async def run(self) -> None:
        """Change until cancelled."""
        await asyncio.gather(
            self._again(self._read, _RECEIPTS_EVERY_S),
            self._again(self._pin, _RECEIPTS_EVERY_S),
            self._again(self._mark_all_read, _MARKS_EVERY_S),
            self._again(self._change_mind, _MINDS_EVERY_S),
            self._again(self._sleep, _NIGHTS_EVERY_S),
            self._again(self._change_team, _TEAMS_EVERY_S),
            self._again(self._tell_again, _ENTRIES_EVERY_S),
            self._again(self._change_segment, _SEGMENTS_EVERY_S),
        )

    async def _again(self, change: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await change()
            await asyncio.sleep(every_s)

    async def _ask(self, what: str, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """The answer to one call, however often it must be made."""
        return await self._callers.until_answered(what, call)

    def _request_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    async def _read(self) -> None:
        reader = self._random.choice(self._readers)
        seen = sorted(reader.added)
        if not seen:
            return
        action = self._random.choice(_READING)
        request = RecordReceiptsRequest(
            request_id=self._request_id(),
            broadcast_ids=[self._random.choice(seen)],
            action=action,
            action_url="/somewhere" if action == ReceiptAction.RECEIPT_ACTION_CLICKED else "",
        )
        metadata = self._person(reader.number)
        answer = await self._ask(
            "RecordReceipts",
            lambda: self._callers.inbox.RecordReceipts(request, metadata=metadata, timeout=CALL_S),
        )
        self.read.update((reader.number, receipt.broadcast_id) for receipt in answer.receipts)

    async def _pin(self) -> None:
        """On top or down again; what is not in the inbox any more can be neither."""
        reader = self._random.choice(self._readers)
        if not reader.added:
            return
        request = PinItemRequest(
            request_id=self._request_id(),
            broadcast_id=self._random.choice(sorted(reader.added)),
            unpin=self._random.random() < 0.5,
        )
        metadata = self._person(reader.number)
        try:
            await self._ask(
                "PinItem",
                lambda: self._callers.inbox.PinItem(request, metadata=metadata, timeout=CALL_S),
            )
        except grpc.aio.AioRpcError as error:
            if error.code() not in _NOT_NOW:
                raise

    async def _mark_all_read(self) -> None:
        """Nobody whose receipts are looked for at the end."""
        request = MarkAllReadRequest(request_id=self._request_id())
        metadata = self._person(self._random.choice(self._undecided))
        await self._ask(
            "MarkAllRead",
            lambda: self._callers.inbox.MarkAllRead(request, metadata=metadata, timeout=CALL_S),
        )

    async def _change_mind(self) -> None:
        """Two devices at once, one way and the other: were one of the two edits made twice, somebody would see it."""
        number = self._random.choice(self._undecided)
        self.in_doubt.add(number)
        answers = await asyncio.gather(
            *(
                self._update(number, Preferences(critical_only=is_on), "critical_only")
                for is_on in (True, False)
            )
        )
        self.in_doubt.discard(number)
        self.minds[number] = max(answers, key=version_of)

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
            request_id=self._request_id(),
            wedding_id=str(wedding_id),
            user_ids=[str(self._truth.user_ids[number]) for number in members],
        )
        await self._ask(
            "SetWeddingTeam",
            lambda: self._callers.directory.SetWeddingTeam(
                request, metadata=self._callers.service("directory.write"), timeout=CALL_S
            ),
        )

    async def _tell_again(self) -> None:
        entry = self._random.choice(self._entries)
        request = UpsertRecipientsRequest(request_id=self._request_id(), recipients=[entry])
        await self._ask(
            "UpsertRecipients",
            lambda: self._callers.directory.UpsertRecipients(
                request, metadata=self._callers.service("directory.write"), timeout=CALL_S
            ),
        )

    async def _change_segment(self) -> None:
        """On the condition that it is as it was answered: an update that was made twice would have the next refused."""
        wanted = Segment(description=self._request_id(), etag=self._segment.etag)
        request = UpdateSegmentRequest(request_id=self._request_id(), segment_id=_SEGMENT, segment=wanted)
        answer = await self._ask(
            "UpdateSegment",
            lambda: self._callers.directory.UpdateSegment(
                request, metadata=self._callers.service("directory.write"), timeout=CALL_S
            ),
        )
        self._segment = answer.segment

    async def _update(self, number: int, preferences: Preferences, field: str) -> Preferences:
        request = UpdatePreferencesRequest(
            request_id=self._request_id(), preferences=preferences, update_mask=FieldMask(paths=[field])
        )
        answer = await self._ask(
            "UpdatePreferences",
            lambda: self._callers.preferences.UpdatePreferences(
                request, metadata=self._person(number), timeout=CALL_S
            ),
        )
        return answer.preferences

    def _person(self, number: int) -> tuple[tuple[str, str], ...]:
        return self._callers.person(self._truth.user_ids[number])


def version_of(preferences: Preferences) -> int:
    """Which edit these preferences are of; 0 while nobody has edited them."""
    return int(preferences.etag) if preferences.edited else 0


def _clock(moment: datetime) -> TimeOfDay:
    return TimeOfDay(hours=moment.hour, minutes=moment.minute)
