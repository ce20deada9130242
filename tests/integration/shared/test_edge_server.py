"""A server as a whole: health and reflection for anybody, a clear word about its address, and an orderly end."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from wedsync.broadcast.v1 import inbox_pb2

from shared.auth import AuthSettings, TokenVerifier
from shared.health import Dependency, HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.server import GrpcServer, ServerSettings
from shared.settings import Address, Environment, SettingsError
from shared.tls import Transport
from stack.tokens import AUDIENCE, ISSUER, TokenMint
from tests.integration.shared.edge import INBOX, Counted, Edge, serving

ASK = inbox_pb2.GetUnreadCountRequest()
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
ROOT = Path(__file__).parents[3]


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    """What the health service says of a name."""
    answer = await HealthStub(channel).Check(HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_needs_no_token(edge: Edge) -> None:
    """Whoever schedules containers has none: the process and each service are told."""
    assert [await health_of(edge.channel, name) for name in ("", INBOX)] == [SERVING, SERVING]


async def test_health_follows_what_the_server_depends_on(tmp_path: Path) -> None:
    """A database that goes away takes the service out of rotation, and brings it back."""
    is_up = [True]

    async def check() -> None:
        if not is_up[0]:
            raise ConnectionRefusedError

    async with serving(tmp_path, dependencies=(Dependency("postgres", check),)) as edge:
        for up, expected in ((False, NOT_SERVING), (True, SERVING)):
            is_up[0] = up
            async with asyncio.timeout(5):
                while await health_of(edge.channel, INBOX) != expected:
                    await asyncio.sleep(0.005)
            assert await health_of(edge.channel, "postgres") == expected


async def test_reflection_needs_no_token(edge: Edge) -> None:
    """Tools can ask which services there are, and for their descriptors."""

    async def ask() -> AsyncIterator[ServerReflectionRequest]:
        yield ServerReflectionRequest(list_services="")
        yield ServerReflectionRequest(file_containing_symbol=INBOX)

    answers = [answer async for answer in ServerReflectionStub(edge.channel).ServerReflectionInfo(ask())]
    assert INBOX in {service.name for service in answers[0].list_services_response.service}
    assert answers[1].file_descriptor_response.file_descriptor_proto


def settings(listen: str, **more: str) -> ServerSettings:
    """Settings as they would come from the environment."""
    return ServerSettings.read(Environment({"INBOX_LISTEN": listen, **more}), "INBOX")


async def server_at(folder: Path, given: ServerSettings) -> GrpcServer:
    """A server without services, not started."""
    mint = TokenMint(folder)
    verifier = await TokenVerifier.open(AuthSettings(str(mint.jwks), ISSUER, AUDIENCE))
    return GrpcServer(given, EdgeInterceptor(verifier), HealthMonitor(()))


async def test_address_in_use_is_told_by_its_setting(edge: Edge, tmp_path: Path) -> None:
    """The second process on a port says which setting to change, instead of sharing the port in silence."""
    server = await server_at(tmp_path, settings(str(edge.address)))
    with pytest.raises(SettingsError, match=rf"INBOX_LISTEN: {edge.address} is in use by another process"):
        await server.start()


async def test_address_of_another_machine_is_told_by_its_setting(tmp_path: Path) -> None:
    """An address that this machine has not is another mistake, told as such."""
    server = await server_at(tmp_path, settings("192.0.2.1:5001", ALLOW_PLAINTEXT="1"))
    with pytest.raises(SettingsError, match=r"INBOX_LISTEN: cannot listen on 192\.0\.2\.1:5001: .*assign"):
        await server.start()


async def test_network_address_without_certificates_is_refused(tmp_path: Path) -> None:
    """Nobody serves tokens in the clear by mistake."""
    server = await server_at(tmp_path, settings("0.0.0.0:0"))
    with pytest.raises(SettingsError, match=r"INBOX_LISTEN: 0\.0\.0\.0:0 is not a loopback address"):
        await server.start()


async def test_processes_can_share_a_port_on_request(tmp_path: Path) -> None:
    """One event loop a process: several servers on one port, when the setting says so."""
    first = await server_at(tmp_path, settings("127.0.0.1:0", INBOX_REUSE_PORT="1"))
    address = await first.start()
    second = await server_at(tmp_path, settings(str(address), INBOX_REUSE_PORT="1"))
    assert await second.start() == address
    for server in (first, second):
        await server.finish_calls().run()


async def test_calls_that_run_are_finished(tmp_path: Path) -> None:
    """At the end a call in the middle is answered, a watcher of health is not waited for, and new calls are refused."""
    async with serving(tmp_path) as edge:
        entered, release = asyncio.Event(), asyncio.Event()

        async def count() -> Counted:
            entered.set()
            await release.wait()
            return Counted(unread_count=9)

        edge.inbox.count = count
        watching = HealthStub(edge.channel).Watch(HealthCheckRequest())
        await watching.read()
        running = asyncio.ensure_future(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))
        await entered.wait()
        await edge.server.leave().run()
        assert (await watching.read()).status == NOT_SERVING
        finishing = asyncio.ensure_future(edge.server.finish_calls().run())
        release.set()
        assert (await running).unread_count == 9
        await finishing
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await edge.stub.GetUnreadCount(ASK, metadata=edge.as_person())


async def call_without_end(edge: Edge) -> "asyncio.Future[Counted]":
    """A call that is being worked on, and that nothing but the server's end will end."""
    entered = asyncio.Event()

    async def count() -> Counted:
        entered.set()
        await asyncio.Event().wait()
        return Counted()

    edge.inbox.count = count
    running = asyncio.ensure_future(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person(), timeout=60))
    await entered.wait()
    return running


async def test_call_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """Past the time for finishing, what still runs is cut off and the process can go."""
    async with serving(tmp_path) as edge:
        running = await call_without_end(edge)
        await edge.server.finish_calls().run()
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_only_one_of_two_endings_ends_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC crashes where the grace of one ends just as another is done: the server keeps the time by itself."""
    graces: list[float | None] = []
    stop = grpc.aio._server.Server.stop

    async def recorded(server: grpc.aio._server.Server, grace: float | None) -> None:
        graces.append(grace)
        await stop(server, grace)

    async with serving(tmp_path) as edge:
        running = await call_without_end(edge)
        with monkeypatch.context() as patched:
            patched.setattr(grpc.aio._server.Server, "stop", recorded)
            await edge.server.finish_calls().run()
        with pytest.raises(grpc.aio.AioRpcError):
            await running
    first, last = graces
    assert last is None
    assert first is not None
    assert first > 600


A_MAIN = """
import os
from shared import logging
from shared.auth import AuthSettings, TokenVerifier
from shared.drain import DrainStep, run_until_signal
from shared.health import HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.server import GrpcServer, ServerSettings, run_service
from shared.settings import Environment
from tests.integration.shared.edge import REPLAYS, RIGHTS, ObedientInbox, add_InboxServiceServicer_to_server

async def main() -> int:
    env = Environment(os.environ)
    logging.configure("inbox")
    settings = ServerSettings.read(env, "INBOX")
    edge = EdgeInterceptor(await TokenVerifier.open(AuthSettings.read(env)), role_of=nobody)
    server = GrpcServer(settings, edge, HealthMonitor(()))
    server.add(add_InboxServiceServicer_to_server, ObedientInbox(), RIGHTS, REPLAYS)
    await server.start()
    return await run_until_signal([server.leave(), server.finish_calls(), DrainStep("close_pools", done)])

async def nobody(user_id):
    return None

async def done():
    pass

run_service(main)
"""


def variables(folder: Path, listen: str) -> Mapping[str, str]:
    """The environment of a service process."""
    mint = TokenMint(folder)
    auth = {"AUTH_JWKS": str(mint.jwks), "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    return {**os.environ, **auth, "INBOX_LISTEN": listen, "INBOX_DRAIN_PAUSE_S": "0"}


async def start(environment: Mapping[str, str]) -> Process:
    """Starts the process."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", A_MAIN, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE
    )


async def lines_until(process: Process, event: str) -> list[dict[str, object]]:
    """Reads the process's lines up to the one about `event`."""
    assert process.stdout is not None
    lines: list[dict[str, object]] = []
    async with asyncio.timeout(20):
        while not lines or lines[-1]["event"] != event:
            lines.append(json.loads(await process.stdout.readline()))
    return lines


async def test_process_serves_and_drains(tmp_path: Path) -> None:
    """From its environment to its exit code: it says where it serves, and on SIGTERM takes its steps in order."""
    process = await start(variables(tmp_path, "127.0.0.1:0"))
    serving_line = (await lines_until(process, "serving"))[-1]
    async with grpc.aio.insecure_channel(str(serving_line["listen"])) as channel:
        assert await health_of(channel) == SERVING
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["step"] for line in lines if line["event"] == "drain_step_finished"] == [
        "leave",
        "finish_calls",
        "close_pools",
    ]
    assert (process.returncode, errors) == (0, b"")


async def test_process_with_bad_settings_says_so_in_one_line(tmp_path: Path) -> None:
    """No traceback: the setting, what is wrong, and an exit code that tells a supervisor not to insist."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await start(variables(tmp_path, listen))
        _, errors = await asyncio.wait_for(process.communicate(), 20)
    told = errors.decode().splitlines()
    assert (
        told[-1] == f"INBOX_LISTEN: {listen} is in use by another process; stop it, or choose another port."
    )
    assert "Traceback" not in errors.decode()
    assert process.returncode == 78


def test_transport_of_settings_comes_from_the_environment() -> None:
    """One switch for a server and its channels."""
    given = settings("10.0.0.1:1", ALLOW_PLAINTEXT="1")
    assert (given.transport, given.listen) == (Transport(plaintext_allowed=True), Address("10.0.0.1", 1))
