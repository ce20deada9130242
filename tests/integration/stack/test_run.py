"""`python -m stack`: what a person sees and gets, from the first start to the last process gone."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import grpc
import nats
import nats.errors
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared import subjects
from shared.auth import AuthSettings, TokenVerifier
from shared.streams import STREAMS
from stack.environment import OWN_URLS, read_environment
from stack.permissions import PROVISIONER, SERVICES
from stack.ports import LOOPBACK
from stack.processes import Program, spawn
from stack.services import groups
from stack.state import CHECKOUT, StateFolder
from stack.tokens import AUDIENCE, ISSUER
from stack.world import demo_id

_READY_S = 60.0
_GONE_S = 30.0
_PROCESSES = 3 + sum(len(group) for group in groups(1))


class Run:
    """One `python -m stack run` on a state folder."""

    def __init__(self, state: StateFolder, **variables: str) -> None:
        self._state = state
        self._running = spawn(
            Program(
                name="stack",
                command=tuple(_command("run", state, "--recipients", "100")),
                environment=_environment(**variables),
                folder=CHECKOUT,
                log=state.path.with_name("output"),
                death_signal=signal.SIGTERM,
            )
        )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._running.log_tail()

    def until_ready(self) -> dict[str, str]:
        """Wait until it serves; answers the variables for a shell."""
        self.until(self._state.env.exists)
        return read_environment(self._state.env)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for the condition while the stack runs."""
        deadline = time.monotonic() + _READY_S
        while not condition():
            assert self._running.wait(0.02) is None, self.output
            assert time.monotonic() < deadline, self.output

    def children(self) -> list[psutil.Process]:
        """Every process that it has started."""
        return psutil.Process(self._running.pid).children(recursive=True)

    def end(self, how: signal.Signals) -> int | None:
        """Send a signal and wait for the end; answers the exit code."""
        os.kill(self._running.pid, how)
        return self._running.wait(_GONE_S)

    def clean_up(self) -> None:
        """For a test that failed in between."""
        self._running.stop()


@pytest.fixture
def state() -> Iterator[StateFolder]:
    """A state folder that is not there yet, where the user of Postgres may go."""
    folder = Path(tempfile.mkdtemp(prefix="wedsync-tests-"))
    folder.chmod(0o711)
    yield StateFolder(folder / "state")
    shutil.rmtree(folder)


@pytest.fixture
def start(state: StateFolder) -> Iterator[Callable[..., Run]]:
    """Starts the stack on the state folder, and leaves nothing behind when the test fails."""
    runs: list[Run] = []

    def begin(**variables: str) -> Run:
        runs.append(Run(state, **variables))
        return runs[-1]

    yield begin
    for run in runs:
        run.clean_up()


def _command(name: str, state: StateFolder, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "stack", name, "--state-dir", str(state.path), *arguments]


def _environment(**variables: str) -> dict[str, str]:
    """This shell's variables, without those that would make the stack use other servers."""
    others = {"DATABASE_URL", "NATS_URL", "REDIS_URL", OWN_URLS}
    return {name: value for name, value in os.environ.items() if name not in others} | variables


def _call(name: str, state: StateFolder, *arguments: str, **variables: str) -> tuple[int, str]:
    """A command that ends by itself: its exit code and what it printed."""
    done = subprocess.run(
        _command(name, state, *arguments),
        cwd=CHECKOUT,
        env=_environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_READY_S,
        check=False,
    )
    return done.returncode, done.stdout


def _until_gone(processes: list[psutil.Process]) -> None:
    """Fails unless every one of the processes ends soon."""
    _, alive = psutil.wait_procs(processes, timeout=_GONE_S)
    assert [process.cmdline() for process in alive] == []


async def _until_streams_are_there(url: str) -> None:
    """Wait until NATS has every stream of the suite."""
    wanted = {stream.name for stream in STREAMS}
    async with asyncio.timeout(_READY_S):
        while True:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                prefix = subjects.inbox_prefix(PROVISIONER)
                client = await nats.connect(url, inbox_prefix=prefix, allow_reconnect=False)
                found = {info.config.name for info in await client.jetstream().streams_info()}
                await client.close()
                if wanted <= found:
                    return
            await asyncio.sleep(0.05)


def _is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _count_recipients(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM preferences.recipients")
    finally:
        await connection.close()
    return count


@pytest.mark.timeout(300)
async def test_a_stack_starts_stops_and_starts_again_with_its_data(
    state: StateFolder, start: Callable[..., Run]
) -> None:
    """Ctrl-C leaves no process behind; the next run has the same people, keys and addresses; neither does SIGKILL."""
    first = start()
    before = first.until_ready()
    children = first.children()
    assert len(children) >= _PROCESSES
    assert f"export SENDER_ADDR={before['SENDER_ADDR']}\n" in _call("env", state)[1]
    assert (0, "".join(f"{service}: nothing to do\n" for service in SERVICES)) == _call("migrate", state)
    assert first.end(signal.SIGINT) == 0
    _until_gone(children)
    assert not state.env.exists()

    second = start()
    after = second.until_ready()
    assert await _count_recipients(after["DATABASE_URL"]) == 100
    assert {**before, "BROADCAST_TOKEN": ""} == {**after, "BROADCAST_TOKEN": ""}
    verifier = await TokenVerifier.open(AuthSettings(str(state.keys / "jwks.json"), ISSUER, AUDIENCE))
    assert demo_id("admin") == (await verifier.verify(before["BROADCAST_TOKEN"])).user_id

    children = second.children()
    assert second.end(signal.SIGKILL) == -signal.SIGKILL
    _until_gone(children)
    assert _call("reset", state)[0] == 0
    assert not state.path.exists()


@pytest.mark.timeout(300)
async def test_servers_and_services_that_die_come_back(state: StateFolder, start: Callable[..., Run]) -> None:
    """A service that was killed serves again, and a NATS server that lost its store has its streams again."""
    run = start()
    variables = run.until_ready()
    sender = next(each for each in run.children() if "services.sender.main" in each.cmdline())
    nats_server = next(each for each in run.children() if "nats-server" in each.name())
    shutil.rmtree(state.path / "nats" / "store")
    sender.kill()
    nats_server.kill()
    run.until(lambda: run.output.count("was killed by signal 9; starting it again") == 2)
    await _until_streams_are_there(variables["NATS_URL"])
    run.until(lambda: _is_serving(variables["SENDER_ADDR"]))
    assert run.end(signal.SIGTERM) == 0


def test_ctrl_c_while_it_starts_leaves_no_process_behind(
    state: StateFolder, start: Callable[..., Run]
) -> None:
    """Whoever changes their mind at once is left with nothing running."""
    run = start()
    run.until((state.path / "postgres" / "data" / "postmaster.pid").exists)
    children = run.children()
    assert run.end(signal.SIGINT) == 0
    assert children
    _until_gone(children)


def test_a_second_stack_on_the_same_folder_is_refused(state: StateFolder) -> None:
    """It says which process has the folder and how to go on, and so do the commands that would disturb it."""
    with state.held():
        for command in ("run", "reset"):
            code, printed = _call(command, state)
            assert code == 1
            assert f"Another stack is running on {state.path} (process {os.getpid()})" in printed
            assert "--state-dir" in printed


def test_a_port_in_use_is_said_before_anything_is_started(state: StateFolder) -> None:
    """Who fixes a port is told that it is taken and which variable to change."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        code, printed = _call("run", state, STACK_INBOX_PORT=str(listener.getsockname()[1]))
    assert code == 1
    assert "is already in use" in printed
    assert "unset STACK_INBOX_PORT" in printed
    assert not (state.path / "postgres").exists()


def test_too_small_a_world_is_refused(state: StateFolder) -> None:
    """A handful of people cannot be a platform of weddings."""
    code, printed = _call("run", state, "--recipients", "5")
    assert code == 1
    assert "Ask for at least 100, or for 0 for none." in printed


def test_without_a_stack_the_other_commands_say_what_to_do(state: StateFolder) -> None:
    """There is nothing to print and nothing to migrate yet."""
    for command in ("env", "migrate"):
        code, printed = _call(command, state)
        assert code == 1
        assert "make run" in printed


def test_clearing_nothing_is_fine(state: StateFolder) -> None:
    """`make reset` may be typed at any time."""
    assert _call("reset", state)[0] == 0
