"""What is still on its way when it is looked at is looked at again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from wedsync.broadcast.v1.common_pb2 import Channel, DeliveryState
from wedsync.broadcast.v1.sender_pb2 import GetBroadcastRequest, GetBroadcastResponse

from tests.chaos import reading
from tests.chaos.callers import Callers
from tests.chaos.reading import Lists
from tests.chaos.truth import Truth

PATIENCE_S = 0.05


class Released:
    """A sender that takes its time, and callers of it: one alert of each broadcast leaves after the first look."""

    admin = ()

    def __init__(self, looks_needed: int) -> None:
        self.looks: Counter[str] = Counter()
        self._looks_needed = looks_needed

    @property
    def sender(self) -> "Released":
        return self

    async def until_answered(
        self, what: str, call: Callable[[], Awaitable[GetBroadcastResponse]]
    ) -> GetBroadcastResponse:
        return await call()

    async def GetBroadcast(self, request: GetBroadcastRequest, **_: object) -> GetBroadcastResponse:
        self.looks[request.broadcast_id] += 1
        if self.looks[request.broadcast_id] == 1:
            await asyncio.sleep(2 * PATIENCE_S)
        answer = GetBroadcastResponse()
        is_released = self.looks[request.broadcast_id] >= self._looks_needed
        answer.stats.ledger.add(
            channel=Channel.CHANNEL_REALTIME,
            state=DeliveryState.DELIVERY_STATE_SENT if is_released else DeliveryState.DELIVERY_STATE_PENDING,
            count=1,
        )
        return answer


@pytest.mark.parametrize(("looks_needed", "state"), [(1, "sent"), (2, "sent"), (1_000_000, "pending")])
async def test_an_alert_has_its_time_after_the_first_look(
    monkeypatch: pytest.MonkeyPatch, looks_needed: int, state: str
) -> None:
    """However long that took; what does not leave then is told as it is."""
    monkeypatch.setattr(reading, "_ALERTED_S", PATIENCE_S)
    monkeypatch.setattr(reading, "_RETRY_S", PATIENCE_S / 5)
    callers = Released(looks_needed)
    found = await Lists(cast(Callers, callers), cast(Truth, None)).ledgers(["one", "other"])
    assert {name: each.channels for name, each in found.items()} == {
        "one": {"realtime": {state: 1}},
        "other": {"realtime": {state: 1}},
    }
    assert looks_needed == 1_000_000 or callers.looks == {"one": looks_needed, "other": looks_needed}
