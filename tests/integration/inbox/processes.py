"""The inbox as processes of its own, which a test starts and may kill."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import grpc
import nats
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared import subjects
from stack.nats import NatsAccess
from stack.permissions import PROVISIONER
from stack.ports import Ports
from stack.processes import Program, RunningProgram, spawn
from stack.provision import SuiteDatabase
from stack.tokens import TokenMint
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.inbox.site import Dispatcher, Site, environment
from tests.integration.shared.polling import until, until_equal

ROOT = Path(__file__).parents[3]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Processes(Site):
    """A site whose inbox is one or more processes that a test may kill."""

    folder: Path
    started: list[RunningProgram]

    async def launch(self, **changes: str) -> RunningProgram:
        """Start one and return once the port serves."""
        variables = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **self.environment, **changes}
        log = self.folder / f"inbox-{len(self.started)}.log"
        command = (sys.executable, "-m", "services.inbox.main")
        process = spawn(Program("inbox", command, variables, ROOT, log))
        self.started.append(process)
        await until(lambda: log.exists() and '"serving"' in log.read_text())
        await until_equal(SERVING, self.health)
        return process

    async def health(self, service: str = "") -> int | None:
        """What it says of its health, None when it says nothing."""
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=1)
        except grpc.aio.AioRpcError:
            return None
        return int(answer.status)


@asynccontextmanager
async def open_processes(
    folder: Path, database: SuiteDatabase, access: NatsAccess, redis: str, beside: Neighbours
) -> AsyncIterator[Processes]:
    """An inbox that is not running yet."""
    mint = TokenMint(folder)
    address = f"127.0.0.1:{Ports(folder / 'ports.json').choose('inbox')}"
    variables = environment(folder, mint, database, access, redis, beside.address) | {
        "INBOX_LISTEN": address,
        "LOG_FORMAT": "json",
    }
    admin = await asyncpg.connect(database.admin_url)
    await admin.execute("SET search_path TO inbox")
    await forget_deliveries(access)
    dispatcher = await Dispatcher.open(access)
    channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    site = Processes(beside, mint, channel, database, admin, dispatcher, variables, None)  # type: ignore[arg-type]
    site.folder, site.started = folder, []
    try:
        yield site
    finally:
        for process in site.started:
            process.kill()
        await channel.close()
        await dispatcher.close()
        await admin.close()


async def forget_deliveries(access: NatsAccess) -> None:
    """What a killed process of an earlier test had taken would be delivered again to one of this test."""
    password = access.passwords[PROVISIONER]
    connection = await nats.connect(
        access.url, user=PROVISIONER, password=password, inbox_prefix=subjects.inbox_prefix(PROVISIONER)
    )
    await connection.jetstream().purge_stream(subjects.DELIVERY_INBOX_STREAM)
    await connection.close()
