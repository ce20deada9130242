"""The event loop of a process that speaks gRPC, which its threads do not disturb at every turn.

gRPC does its work in threads of its own and hands over what is done by a byte in a pipe that the loop reads. Two things
of that cost more than many a call. Whenever one of the threads has something to do, the kernel lets it go first, so on
a busy processor the loop is interrupted several times for each call. And gRPC reads one byte for each thing that is
done, in a turn of the loop for each, though the first of those turns has handled all of them.
"""

import array
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import grpc
import structlog
import uvloop
from typing_extensions import override

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")
# Nothing is ever asked of it, so it is never connected.
_NOWHERE = "127.0.0.1:0"
_HANDOVER = "PollerCompletionQueue._handle_events"


class EventLoop(uvloop.Loop):
    """A loop that takes all that gRPC has handed over in one turn."""

    handovers = 0
    """How many of gRPC's pipes this loop reads; a version of gRPC that hands over otherwise fails a test."""

    @override
    def add_reader(  # type: ignore[override]  # which goes with its arguments is for who calls
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        if isinstance(fd, socket.socket) and _is_handover(callback):
            self.handovers += 1
            callback = _all_at_once(fd, callback)
        super().add_reader(fd, callback, *args)


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs a coroutine to its end, as `asyncio.run` does."""

    async def with_threads() -> _Result:
        with _giving_way():
            # The first thing of gRPC that there is starts its threads, and the last takes them along.
            channel = grpc.aio.insecure_channel(_NOWHERE)
        async with channel:
            return await main

    return uvloop.run(with_threads(), loop_factory=EventLoop)


@contextmanager
def _giving_way() -> Iterator[None]:
    """Threads that are started in here, and by those, run when a processor is free, but interrupt nobody who runs.

    That is what the kernel calls batch. Their part of the processor stays the same.
    """
    if sys.platform != "linux":
        yield
        return
    usual = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except PermissionError as error:
        # A sandbox may forbid it: slower under load, and nothing else.
        log.warning("threads_not_in_batch", error=str(error))
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, usual, os.sched_param(0))


def _is_handover(callback: Callable[..., object]) -> bool:
    return isinstance(callback, partial) and getattr(callback.func, "__qualname__", "") == _HANDOVER


def _all_at_once(pipe: socket.socket, handle: Callable[..., object]) -> Callable[[], None]:
    """`handle` reads a byte and handles everything that was handed over until then: all bytes but that are read here.

    They are read before, because a byte that comes later may stand for what is not handled yet.
    """
    waiting = array.array("i", [0])

    def take() -> None:
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
        if waiting[0] > 1:
            pipe.recv(waiting[0] - 1)
        if waiting[0]:
            handle()

    return take
