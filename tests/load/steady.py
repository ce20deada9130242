"""Clients of a suite that retry as the service config says, and call at a steady pace whatever comes back."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from shared.channels import ServiceChannel, open_channel
from shared.errors import ServiceError
from shared.settings import Address
from shared.tls import Transport
from stack.background import BackgroundStack

PAUSE_S = 0.15
DEADLINE_S = 20.0


def patient_channel(suite: BackgroundStack, name: str) -> ServiceChannel:
    """A channel to a service, by its name, as ARCHITECTURE.md asks of every client."""
    host, _, port = suite.environment[f"{name.upper()}_ADDR"].rpartition(":")
    return open_channel(
        name,
        Address(host, int(port)),
        Transport(),
        lambda: None,
        retried=[
            f"wedsync.broadcast.v1.{service}Service"
            for service in ("Sender", "Inbox", "Preferences", "Dispatcher")
        ],
        deadline_s=DEADLINE_S,
        speaks_for_user=True,
        is_patient=True,
    )


class Steady:
    """Calls one after the other every few moments, and what became of each."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """Calls until cancelled, whatever comes back."""
        while True:
            task = asyncio.create_task(self._one(name, call))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            await asyncio.sleep(PAUSE_S)

    async def finish(self) -> None:
        """Waits for what is open now."""
        if self._calls:
            await asyncio.wait(self._calls.copy())

    async def _one(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except ServiceError as error:
            self.failures.append((name, f"{error.reason_name}: {error}"))
        else:
            self.answered[name] += 1
