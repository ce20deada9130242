"""When a command shows what it was answered, and how it ends: against an inbox of its own, in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from wedsync.broadcast.v1.inbox_pb2 import (
    GetUnreadCountRequest,
    GetUnreadCountResponse,
    RecordReceiptsRequest,
    RecordReceiptsResponse,
)
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer, add_InboxServiceServicer_to_server

ROOT = Path(__file__).parents[3]
# What gRPC's own threads have done to a process while its channels were closed.
CRASHES = """
import os
from wedsync.broadcast.client import BroadcastClient

async def close(self):
    os.abort()

BroadcastClient.close = close
"""
NOBODY_READS = """
import os, sys
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, sys.stdout.fileno())
"""
SHOWING_FAILS = """
from cli import output

def broken(message):
    raise ValueError("not to be shown")

output.print_json = broken
"""
MAIN = "import cli.main\ncli.main.main()\n"


class Counting(InboxServiceServicer):
    """Has three unread items, and knows none by its id."""

    async def GetUnreadCount(
        self, request: GetUnreadCountRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> GetUnreadCountResponse:
        return GetUnreadCountResponse(unread_count=3)

    async def RecordReceipts(
        self, request: RecordReceiptsRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> RecordReceiptsResponse:
        return RecordReceiptsResponse(unknown_broadcast_ids=request.broadcast_ids, unread_count=3)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where that inbox is."""
    server = grpc.aio.server()
    add_InboxServiceServicer_to_server(Counting(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def _ended(address: str, before: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, what was said and what was complained, after something was done to the process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        before + MAIN,
        *arguments,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "INBOX_ADDR": address, "BROADCAST_TOKEN": "somebody"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    return await process.wait(), said.decode(), complained.decode()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [(("inbox", "count"), "3\n"), (("--json", "inbox", "count"), '{"unread_count": 3}\n')],
)
async def test_an_answer_is_out_before_its_connection_is_closed(
    address: str, arguments: tuple[str, ...], answer: str
) -> None:
    """Whatever becomes of the process then, into a pipe as well."""
    code, said, _ = await _ended(address, CRASHES, *arguments)
    assert (code, said) == (-6, answer)


async def test_what_goes_wrong_with_showing_is_no_failed_call(address: str) -> None:
    """It is told as what it is."""
    code, _, complained = await _ended(address, SHOWING_FAILS, "--json", "inbox", "count")
    assert code == 1
    assert complained.endswith("ValueError: not to be shown\n")


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_what_was_not_done_is_a_failure_read_or_not(address: str, form: tuple[str, ...]) -> None:
    """An answer that nobody reads is none, but it has been judged all the same."""
    done = await _ended(address, NOBODY_READS, *form, "inbox", "count")
    assert done == (0, "", "")
    code, _, complained = await _ended(address, NOBODY_READS, *form, "inbox", "read", "an-id")
    assert (code, "Not in this inbox: an-id" in complained) == (5, True)
