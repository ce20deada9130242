"""The loop under gRPC: its threads interrupt nobody, and what they have handed over is taken in one turn."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from shared import event_loop
from shared.event_loop import EventLoop

ROOT = Path(__file__).parents[3]

A_SERVER = """
import asyncio, json, os
from pathlib import Path
import grpc
from shared import event_loop

async def main():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    kinds, looks = {}, 0
    # A thread gives itself its name some time after it was started.
    while hasattr(os, "SCHED_BATCH") and not {"event_engine", "lifeguard"} <= kinds.keys() and looks < 500:
        kinds, looks = {}, looks + 1
        for thread in Path("/proc/self/task").iterdir():
            kinds.setdefault((thread / "comm").read_text().strip(), set()).add(os.sched_getscheduler(int(thread.name)))
        await asyncio.sleep(0.01)
    here = os.sched_getscheduler(0) if kinds else None
    await server.stop(None)
    kinds = {name: sorted(each) for name, each in kinds.items()}
    return {"handovers": asyncio.get_running_loop().handovers, "kinds": kinds, "here": here}

print(json.dumps(event_loop.run(main())))
"""


def _like_grpc(handle: Callable[[], None]) -> Callable[[], None]:
    """A reader as gRPC gives one to a loop."""

    def handle_events() -> None:
        handle()

    handle_events.__qualname__ = "PollerCompletionQueue._handle_events"
    return partial(handle_events)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What a server sees of itself in a process of its own: here gRPC may have its threads already."""
    told = subprocess.run([sys.executable, "-c", A_SERVER], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    seen: dict[str, Any] = json.loads(told.stdout)
    return seen


def test_grpc_hands_over_in_the_way_that_the_loop_knows(seen: dict[str, Any]) -> None:
    """There is one pipe of gRPC in a process, and the loop has seen it."""
    assert seen["handovers"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this kind of thread")
def test_threads_of_grpc_interrupt_nobody_and_the_one_of_the_loop_is_like_any(seen: dict[str, Any]) -> None:
    """Also those that a server has started later."""
    kinds = seen["kinds"]
    assert kinds["event_engine"] == kinds["lifeguard"] == [os.SCHED_BATCH]
    assert seen["here"] == os.SCHED_OTHER


def test_where_the_kernel_does_not_allow_it_all_works_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox costs speed and nothing else."""

    def refuse(*_: object) -> None:
        raise PermissionError

    async def main() -> str:
        return "done"

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    assert event_loop.run(main()) == "done"


def test_what_was_handed_over_together_is_taken_in_one_turn() -> None:
    """A thousand bytes are one turn."""
    reader, writer = socket.socketpair()
    taken: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, _like_grpc(lambda: taken.append(reader.recv(1))))
        writer.send(b"1" * 1_000)
        await _until(lambda: bool(taken))
        # So many turns would have taken each of them.
        for _ in range(2_000):
            await asyncio.sleep(0)
        loop.remove_reader(reader)

    with reader, writer:
        uvloop.run(main(), loop_factory=EventLoop)
    assert taken == [b"1"]


def test_what_is_handed_over_meanwhile_has_a_turn_of_its_own() -> None:
    """A byte that comes while others are handled is not lost: it may stand for what is not handled yet."""
    reader, writer = socket.socketpair()
    taken: list[bytes] = []

    def handle() -> None:
        if not taken:
            writer.send(b"2")
        taken.append(reader.recv(1))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, _like_grpc(handle))
        writer.send(b"1")
        await _until(lambda: len(taken) == 2)
        loop.remove_reader(reader)

    with reader, writer:
        uvloop.run(main(), loop_factory=EventLoop)
    assert taken == [b"1", b"2"]


def test_other_readers_are_left_as_they_are() -> None:
    """Whose bytes mean something get all of them."""
    reader, writer = socket.socketpair()
    taken: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, lambda: taken.append(reader.recv(1)))
        writer.send(b"123")
        await _until(lambda: len(taken) == 3)
        loop.remove_reader(reader)

    with reader, writer:
        uvloop.run(main(), loop_factory=EventLoop)
    assert taken == [b"1", b"2", b"3"]
