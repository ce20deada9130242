"""Turns calls away before grpc.aio has made anything of them, which costs less than half of what answering them does.

gRPC has no public place to do that: it makes two tasks of a call, waits for its end and looks for its handler before it
asks anybody, which is most of what a short call costs. So this stands inside its server, in the place where that asks
for the next call; a version of gRPC that has no such place fails the tests of floods.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # gRPC has no types for its inside
from typing_extensions import override

from shared.admission import Refusal

# Whether the next call from outside may come in: what it is told, None when it may.
Judge: TypeAlias = Callable[[], Refusal | None]
Options: TypeAlias = Sequence[tuple[str, Any]]

# So many calls are taken at a time: to wake the event loop for each costs more than to refuse it.
_TAKEN_AT_ONCE: Final = 64
# So many wait untaken while the event loop is busy, at 15 KiB each. Beyond that gRPC answers CANCELLED by itself, which
# says neither why nor when to come again: from 1,000 on, were it not told otherwise.
_MOST_UNTAKEN: Final = 16_384
_LEAVING: Final = Refusal(grpc.StatusCode.UNAVAILABLE, "This server is leaving.", ())


class Doorstep(cygrpc.AioServer):  # type: ignore[misc]  # for that
    """The inside of a server whose next call is always one that may come in, as `judge` says.

    Calls of the methods that were `set_apart` are not judged, and go past those that wait here.
    """

    def __init__(self, handler: grpc.GenericRpcHandler, judge: Judge, options: Options) -> None:
        """Must be made within the event loop that will serve."""
        self._loop = asyncio.get_running_loop()
        waiting = ("max_pending_requests", "max_pending_requests_hard_limit")
        limits = tuple((f"grpc.server.{name}", _MOST_UNTAKEN) for name in waiting)
        super().__init__(self._loop, None, [handler], None, (*options, *limits), None)
        self._judge = judge
        self._taking: list[asyncio.Task[None]] = []
        self._admitted: deque[tuple[object, asyncio.Future[None]]] = deque()
        self._wanted: asyncio.Future[object] | None = None
        self._end: Exception | None = None
        self._refusing: set[asyncio.Task[None]] = set()

    def set_apart(self, paths: Iterable[str]) -> None:
        """Must be said before the server starts."""
        # Their handlers are found as all are.
        self.add_registered_method_handlers(dict.fromkeys(paths))

    @override
    async def shutdown(self, grace: float | None) -> None:
        """Whoever was let in and is not served yet is sent elsewhere, as those are whom gRPC has not taken."""
        self._judge = lambda: _LEAVING
        while self._admitted:
            call, served = self._admitted.popleft()
            self._refuse(call, _LEAVING)
            served.set_result(None)
        await super().shutdown(grace)

    @override
    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[object]":
        if method is not None:
            return cast("asyncio.Future[object]", super()._make_request_call_future(method))
        if not self._taking:
            self._taking = [asyncio.create_task(self._take()) for _ in range(_TAKEN_AT_ONCE)]
        self._wanted = self._loop.create_future()
        self._serve()
        return self._wanted

    def _serve(self) -> None:
        """Hand over who was let in first, if anybody is wanted."""
        if self._wanted is None or self._wanted.done():
            return
        if self._admitted:
            call, served = self._admitted.popleft()
            self._wanted.set_result(call)
            served.set_result(None)
        elif self._end is not None:
            self._wanted.set_exception(self._end)

    async def _take(self) -> None:
        """Take one call after the other, none before the one that was let in is served."""
        while self.is_running():
            try:
                call = await self._request_call()
            except cygrpc._RequestCallError:  # noqa: SLF001
                # Its caller had gone before it was taken, or nothing comes in any more.
                continue
            except Exception as error:  # noqa: BLE001  # which is for gRPC to judge
                self._end = error
                break
            await self._decide(call)
        # Of a server that has ended nothing may be asked: what would answer is gone.
        self._end = self._end or cygrpc._RequestCallError("The server is leaving.")  # noqa: SLF001
        self._serve()

    async def _decide(self, call: object) -> None:
        refusal = self._judge()
        if refusal is not None:
            self._refuse(call, refusal)
            return
        served = self._loop.create_future()
        self._admitted.append((call, served))
        self._serve()
        await served

    def _refuse(self, call: object, refusal: Refusal) -> None:
        send = cygrpc._send_error_status_from_server  # noqa: SLF001  # there is no other way to answer a call unserved
        begin = cygrpc.SendInitialMetadataOperation((), 0)
        told = send(call, refusal.code.value[0], refusal.message, refusal.trailers, begin, self._loop)
        sending = asyncio.create_task(told)
        self._refusing.add(sending)
        sending.add_done_callback(self._refused)

    def _refused(self, sending: "asyncio.Task[None]") -> None:
        self._refusing.discard(sending)
        if not sending.cancelled():
            # Whoever has gone meanwhile cannot be told.
            sending.exception()
