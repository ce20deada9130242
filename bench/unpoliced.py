"""Owns the inbox without policies: a copy of its personal queries with their conditions in it, and who reads by it."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc

from shared.errors import DependencyUnavailable
from shared.health import check_serving
from shared.queries import load
from stack.background import BackgroundStack
from stack.ports import LOOPBACK, Ports
from stack.processes import Program, RunningProgram, spawn
from stack.state import CHECKOUT

_SCHEMA: Final = "bench_unpoliced"
_READY_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1
_QUERIES: Final = load(Path(__file__).with_name("unpoliced.sql"), schema=_SCHEMA)


@asynccontextmanager
async def reader(admin_url: str) -> AsyncIterator[str]:
    """The URL of a login that bypasses policies and reads by the copy; both are gone with the block."""
    password = secrets.token_hex(16)
    connection = await asyncpg.connect(admin_url)
    try:
        async with connection.transaction():
            await connection.execute(_QUERIES["make_schema"])
            await connection.execute(_QUERIES["copy_queries"])
            await connection.execute(_QUERIES["keep_password"], password)
            await connection.execute(_QUERIES["make_reader"])
        try:
            yield _url_of(f"{_SCHEMA}_reader:{password}", admin_url)
        finally:
            await connection.execute(_QUERIES["remove_all"])
    finally:
        await connection.close()


def _url_of(login: str, admin_url: str) -> str:
    parts = urlsplit(admin_url)
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


@asynccontextmanager
async def inbox(stack: BackgroundStack, reader_url: str) -> AsyncIterator[str]:
    """The address of one more inbox of a stack, which reads what is personal by that login until the block ends."""
    address = f"{LOOPBACK}:{Ports(stack.state.ports).choose('unpoliced-inbox')}"
    changes = {
        "INBOX_LISTEN": address,
        "INBOX_METRICS_LISTEN": "",
        "INBOX_DATABASE_URL": reader_url,
    }
    environment = {**stack.services("inbox")[0].environ(), **changes}
    command = (sys.executable, "-m", "services.inbox.main")
    log = stack.state.logs / "unpoliced-inbox.log"
    running = spawn(Program("unpoliced-inbox", command, environment, CHECKOUT, log))
    try:
        await _until_serving(address, running)
        yield address
    finally:
        await asyncio.to_thread(running.stop)


async def _until_serving(address: str, running: RunningProgram) -> None:
    async with asyncio.timeout(_READY_TIMEOUT_S), grpc.aio.insecure_channel(address) as channel:
        while True:
            if running.exit_code() is not None:
                raise running.failure("ended before it was ready")
            with suppress(grpc.aio.AioRpcError, DependencyUnavailable):
                return await check_serving(channel)
            await asyncio.sleep(_POLL_S)
