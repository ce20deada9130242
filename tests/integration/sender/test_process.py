"""The sender as a process of its own: its start, its health, its end, and what a crash may do."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wedsync.broadcast.v1 import sender_pb2

from stack.ports import Ports
from stack.processes import Program, RunningProgram, spawn
from stack.provision import SuiteDatabase
from stack.tokens import TokenMint
from tests.integration.sender.neighbours import Neighbours
from tests.integration.sender.site import Servers, Site, a_send, ahead, environment, surroundings
from tests.integration.sender.waiting import PENDING, approve, waiting
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until, until_equal

ROOT = Path(__file__).parents[3]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(slots=True)
class ProcessSite(Site):
    """A site whose sender is a process that a test may kill."""

    folder: Path
    process: RunningProgram | None = None

    async def start(self, **changes: str) -> None:
        """Start it and wait until it says that it serves."""
        self.process = spawn(self._program(changes))
        await until_equal(SERVING, self.health)

    def run(self, **changes: str) -> RunningProgram:
        """Start it, whatever comes of it."""
        self.process = spawn(self._program(changes))
        return self.process

    async def health(self, service: str = "") -> int | None:
        """What it says of its health, None when it says nothing."""
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=1)
        except grpc.aio.AioRpcError:
            return None
        return int(answer.status)

    async def stop(self) -> None:
        """End it as a supervisor does, and without complaint."""
        assert self.process is not None
        self.process.ask_to_stop()
        assert await self.exit_code() == 0

    async def exit_code(self) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        async with asyncio.timeout(20):
            return await self.process.exited()

    def _program(self, changes: dict[str, str]) -> Program:
        variables = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **self.environment, **changes}
        command = (sys.executable, "-m", "services.sender.main")
        return Program("sender", command, variables, ROOT, self.folder / "sender.log")


@asynccontextmanager
async def process_site(
    folder: Path, database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ProcessSite]:
    """Everything but the process, which is ended with the block."""
    mint = TokenMint(folder)
    address = f"127.0.0.1:{Ports(folder / 'ports.json').choose('sender')}"
    variables = environment(folder, mint, database, servers, beside.address) | {
        "SENDER_LISTEN": address,
        "SENDER_RELAY_LEASE_S": "1",
    }
    async with surroundings(database, servers.nats, address) as (channel, admin, lanes):
        site = ProcessSite(beside, mint, channel, database, admin, lanes, variables, folder)
        try:
            yield site
        finally:
            if site.process is not None:
                site.process.kill()


@pytest.fixture
async def site(
    tmp_path: Path, sender_database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ProcessSite]:
    """A sender that is not running yet."""
    async with process_site(tmp_path, sender_database, servers, beside) as made:
        yield made


async def test_health_tells_of_each_dependency(site: ProcessSite) -> None:
    """The sender serves without its neighbours, of which it says whether they are there."""
    await site.start()
    for dependency in ("postgres", "nats", "redis", "preferences", "dispatcher", "inbox"):
        assert await site.health(dependency) == SERVING
    assert await site.health("wedsync.broadcast.v1.SenderService") == SERVING


async def test_health_is_kept_when_a_neighbour_is_missing(site: ProcessSite) -> None:
    """What is accepted already goes on."""
    await site.start(PREFERENCES_ADDR="127.0.0.1:1")
    assert await site.health("preferences") == NOT_SERVING
    assert await site.health("inbox") == SERVING
    assert await site.health() == SERVING


async def test_signal_ends_it_in_order(site: ProcessSite) -> None:
    """Exit code 0, with a watcher connected, who is told."""
    await site.start()
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    watch = site.stub.WatchBroadcast(
        sender_pb2.WatchBroadcastRequest(broadcast_id=broadcast_id), metadata=admin
    )
    messages = aiter(watch)
    await anext(messages)
    ending = asyncio.ensure_future(site.stop())
    refusal = await refusal_of(anext(messages))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    await ending


@pytest.mark.parametrize(
    "missing",
    ["SENDER_DATABASE_URL", "NATS_URL", "REDIS_URL", "PREFERENCES_ADDR", "SENDER_SERVICE_TOKEN_FILE"],
)
async def test_missing_setting_is_named(site: ProcessSite, missing: str) -> None:
    """One clear line, and the exit code that tells a supervisor to wait for somebody."""
    process = site.run(**{missing: ""})
    assert await site.exit_code() == 78
    assert process.log_tail() == f"{missing} is not set."


async def test_identity_provider_that_is_down_is_no_fault_of_the_settings(site: ProcessSite) -> None:
    """The exit code that has a supervisor start it again, until the keys are there."""
    process = site.run(AUTH_JWKS="http://127.0.0.1:1/keys")
    assert await site.exit_code() == 1
    assert "The keys that tokens are signed with" in process.log_tail()


async def test_faulty_quota_is_named(site: ProcessSite) -> None:
    """The variable, the entry, and what an entry looks like."""
    process = site.run(SENDER_SERVICE_QUOTAS="billing:*=200,800; forms=1")
    assert await site.exit_code() == 78
    fault = "'forms=1' is not like billing:payment.required/high=1000,5000"
    assert process.log_tail() == f"SENDER_SERVICE_QUOTAS: {fault}."


@pytest.mark.parametrize("moment", ["send.before_commit", "send.after_commit"])
async def test_send_survives_a_crash_around_its_commit(site: ProcessSite, moment: str) -> None:
    """The caller is not answered, tries again with the same id, and has sent once."""
    await site.start(BROADCAST_FAILPOINTS=f"sender.{moment}=kill@1")
    _, admin = site.person("admin")
    before, request = await site.count("broadcasts"), a_send(request_id=str(uuid4()))
    assert (await refusal_of(site.send(admin, request))).code is grpc.StatusCode.UNAVAILABLE
    assert await site.exit_code() == -signal.SIGKILL
    await site.start()
    broadcast_id = (await site.send(admin, request)).broadcast.broadcast_id
    assert await site.count("broadcasts") == before + 1
    await until(lambda: bool(site.lanes.of(broadcast_id)))


@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
async def test_approval_survives_a_crash_around_its_commit(site: ProcessSite, moment: str) -> None:
    """The approver is not answered and calls again, without an id even: one decision, which is announced."""
    await site.start(BROADCAST_FAILPOINTS=f"sender.decide.{moment}=kill@1")
    broadcast_id = await waiting(site, site.service("broadcast.send"))
    _, approver = site.person("admin")
    assert (await refusal_of(approve(site, approver, broadcast_id))).code is grpc.StatusCode.UNAVAILABLE
    assert await site.exit_code() == -signal.SIGKILL
    await site.start()
    assert (await approve(site, approver, broadcast_id)).broadcast.state == PENDING
    await until(lambda: [each.epoch for each in site.lanes.of(broadcast_id)][:1] == [1])


@pytest.mark.parametrize(
    ("moment", "epochs"),
    [
        ("before_claim", [1]),
        ("after_claim", [2]),
        ("before_publish", [2]),
        ("after_publish", [1, 2]),
        ("before_mark", [1, 2]),
        ("after_mark", [1, 2]),
    ],
)
async def test_announcement_survives_a_crash_of_the_relay(
    site: ProcessSite, moment: str, epochs: list[int]
) -> None:
    """Killed anywhere, the broadcast is announced by whoever comes next, under a number of its own."""
    await site.admin.execute("UPDATE sender.outbox SET state = 'done', lease_until = NULL")
    await site.start()
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin, a_send(scheduled_for=ahead(hours=1)))).broadcast.broadcast_id
    await site.stop()
    await site.admin.execute("UPDATE sender.outbox SET due_at = now() WHERE key = $1", broadcast_id)
    site.run(BROADCAST_FAILPOINTS=f"sender.relay.{moment}=kill@1")
    assert await site.exit_code() == -signal.SIGKILL
    await site.start()
    await until(lambda: [each.epoch for each in site.lanes.of(broadcast_id)][: len(epochs)] == epochs)


async def test_order_survives_a_crash_after_its_beginning(site: ProcessSite) -> None:
    """It is dispatching; the dispatcher is told of it once more, asks again, and gets the same order."""
    await site.start(BROADCAST_FAILPOINTS="sender.plan.after_begin=kill@1")
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    assert (await refusal_of(site.plan(broadcast_id))).code is grpc.StatusCode.UNAVAILABLE
    assert await site.exit_code() == -signal.SIGKILL
    await site.start()
    await until(lambda: len(site.lanes.of(broadcast_id)) >= 2)
    assert (await site.plan(broadcast_id)).broadcast_id == broadcast_id


async def test_report_survives_a_crash_before_its_acknowledgement(site: ProcessSite) -> None:
    """It is committed and comes again, to no harm."""
    await site.start(BROADCAST_FAILPOINTS="sender_state.worker.before_ack=kill@1")
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    await site.plan(broadcast_id)
    await site.report(broadcast_id, "sent")
    assert await site.exit_code() == -signal.SIGKILL
    await site.start()
    await until_equal("sent", lambda: site.state(broadcast_id))
