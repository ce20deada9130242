"""Calls turned away on the doorstep: what they are told, who comes in all the same, and how a server leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from typing_extensions import override
from wedsync.broadcast.client.retries import Retries

from shared.admission import Refusal, refusal
from shared.channels import service_config
from shared.doorstep import Doorstep
from shared.errors import TooManyCalls
from tests.integration.shared.edge import read_refusal

SERVICE = "wedsync.broadcast.v1.InboxService"
JUDGED, APART, ASKED = "/test.Doors/Judged", "/test.Doors/Apart", f"/{SERVICE}/Ask"
TOO_MANY = refusal(TooManyCalls(retry_after_s=1.5))
Ask = Callable[[str], Awaitable[bytes]]


@dataclass(slots=True)
class House(grpc.GenericRpcHandler):
    """Answers whatever comes in with the name that it was called by, once `answers` is set."""

    refusal: Refusal | None = None
    entered: list[str] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def judge(self) -> Refusal | None:
        """Whether the next call may come in."""
        return self.refusal

    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        async def answer(request: bytes, context: object) -> bytes:
            self.entered.append(handler_call_details.method)
            await self.answers.wait()
            return handler_call_details.method.encode()

        return grpc.unary_unary_rpc_method_handler(answer)


async def serve(house: House, port: int) -> tuple[grpc.aio.Server, int]:
    """A server with that inside on a port that others may have as well, 0 for any."""
    server = grpc.aio.server()
    doorstep = Doorstep(house, house.judge, [("grpc.so_reuseport", 1)])
    doorstep.set_apart([APART])
    server._server = doorstep
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port


@asynccontextmanager
async def open_house(house: House) -> AsyncIterator[tuple[grpc.aio.Server, Ask]]:
    """A server with that inside, and how to ask it."""
    server, port = await serve(house, 0)
    async with open_door(port) as ask:
        yield server, ask
    await server.stop(None)


@asynccontextmanager
async def open_door(port: int, config: str = "{}") -> AsyncIterator[Ask]:
    """How to ask whoever listens there, by this service config."""
    options = (("grpc.service_config", config), ("grpc.initial_reconnect_backoff_ms", 100))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:

        async def ask(path: str) -> bytes:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            return await method(b"", timeout=10)

        yield ask


async def until(true: Callable[[], bool]) -> None:
    """Returns once something is true."""
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_call_that_may_not_come_in_is_told_why_and_when_to_come_again() -> None:
    """Its status carries the reason and the delay, and nothing of it comes as far as a handler."""
    house = House(TOO_MANY)
    async with open_house(house) as (_, ask):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(JUDGED)
    told = read_refusal(raised.value)
    assert (told.code, told.reason, told.retry_after_s) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_CALLS",
        1.5,
    )
    assert house.entered == []


async def test_calls_of_a_method_set_apart_come_in_whoever_else_is_refused() -> None:
    """Nobody judges them."""
    house = House(TOO_MANY)
    house.answers.set()
    async with open_house(house) as (_, ask):
        assert await ask(APART) == APART.encode()


async def test_every_call_that_may_come_in_is_answered() -> None:
    """More at once than are taken at a time, each by its own name."""
    house = House()
    house.answers.set()
    async with open_house(house) as (_, ask):
        answers = await asyncio.gather(*(ask(f"/test.Doors/M{n}") for n in range(200)))
    assert answers == [f"/test.Doors/M{n}".encode() for n in range(200)]


async def test_thousands_of_calls_at_once_are_all_refused_with_a_reason() -> None:
    """Also those that come before any of them has been taken: gRPC would answer CANCELLED to most."""
    house = House(TOO_MANY)
    async with open_house(house) as (_, ask):
        refused = await asyncio.gather(*(ask(JUDGED) for _ in range(5_000)), return_exceptions=True)
    codes = {each.code() if isinstance(each, grpc.aio.AioRpcError) else each for each in refused}
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize("refused", [None, TOO_MANY])
async def test_callers_who_go_at_once_leave_the_door_as_it_was(refused: Refusal | None) -> None:
    """Whether they were to come in or not: whoever calls after them is answered."""
    house = House(refused)
    house.answers.set()
    async with open_house(house) as (_, ask):
        for _ in range(20):
            gone = [asyncio.create_task(ask(JUDGED)) for _ in range(50)]
            await asyncio.sleep(0.001)
            for each in gone:
                each.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        house.refusal = None
        answers = await asyncio.gather(*(ask(JUDGED) for _ in range(50)))
    assert answers == [JUDGED.encode()] * 50


async def test_leaving_server_finishes_what_it_serves() -> None:
    """Calls that came in are answered although the server leaves."""
    house = House()
    async with open_house(house) as (server, ask):
        served = [asyncio.create_task(ask(JUDGED)) for _ in range(50)]
        await until(lambda: len(house.entered) == len(served))
        leaving = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0)
        house.answers.set()
        assert await asyncio.gather(*served) == [JUDGED.encode()] * len(served)
        await asyncio.wait_for(leaving, 5)


async def test_leaving_in_a_flood_ends_every_call_at_once() -> None:
    """Each is answered or told that the server is gone: none is forgotten between the two."""
    house = House()
    house.answers.set()
    async with open_house(house) as (server, ask):
        calls = [asyncio.create_task(ask(JUDGED)) for _ in range(500)]
        await until(lambda: len(house.entered) > 20)
        await asyncio.wait_for(server.stop(10), 5)
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    codes = {each.code() for each in ended if isinstance(each, grpc.aio.AioRpcError)}
    # CANCELLED is what gRPC itself tells those whom it has not taken yet.
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert len(house.entered) == ended.count(JUDGED.encode())


CONFIGS = pytest.mark.parametrize(
    "config",
    [
        pytest.param(Retries.PATIENT.service_config(), id="callers"),
        pytest.param(service_config([SERVICE]), id="services"),
    ],
)


@CONFIGS
async def test_no_call_fails_while_one_process_after_the_other_leaves(config: str) -> None:
    """Also those that come when it has begun to leave and they cannot know: gRPC tells these CANCELLED."""
    house = House()
    house.answers.set()
    server, port = await serve(house, 0)
    answers: list[bytes] = []
    is_over = asyncio.Event()

    async def call(ask: Ask) -> None:
        while not is_over.is_set():
            answers.append(await ask(ASKED))

    async with open_door(port, config) as ask, asyncio.TaskGroup() as callers:
        for _ in range(100):
            callers.create_task(call(ask))
        for _ in range(5):
            before, wanted = server, len(answers) + 1_000
            server, _ = await serve(house, port)
            await until(lambda wanted=wanted: len(answers) > wanted)
            # A service ends so once those that came in are answered; until then gRPC may forget one that came just now.
            await before.stop(0.2)
        is_over.set()
    await server.stop(None)


@CONFIGS
async def test_call_that_its_caller_has_cancelled_is_not_made_again(config: str) -> None:
    """CANCELLED is tried again only where a server has said it."""
    house = House()
    server, port = await serve(house, 0)
    async with open_door(port, config) as ask:
        gone = asyncio.create_task(ask(ASKED))
        await until(lambda: house.entered == [ASKED])
        gone.cancel()
        await asyncio.sleep(0.5)
    await server.stop(None)
    assert house.entered == [ASKED]
