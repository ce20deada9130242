"""Calls about the audit log, and hands that reach into its table past everything that guards it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from wedsync.broadcast.v1 import sender_pb2

from tests.integration.sender.site import Metadata, Site


def word(event: sender_pb2.AuditEvent) -> str:
    """What an entry is about, in a word."""
    return sender_pb2.AuditAction.Name(event.action).removeprefix("AUDIT_ACTION_").lower()


async def listed(site: Site, **fields: object) -> list[sender_pb2.AuditEvent]:
    """All entries of a query, newest first, page by page."""
    reader, found, token = site.service("audit.read"), [], ""
    while True:
        request = sender_pb2.ListAuditEventsRequest(page_size=100, page_token=token, **fields)  # type: ignore[arg-type]
        page = await site.stub.ListAuditEvents(request, metadata=reader)
        found += page.events
        token = page.next_page_token
        if not token:
            return found


async def about(site: Site, broadcast_id: str) -> list[str]:
    """What was done to a broadcast, in order."""
    return [word(event) for event in reversed(await listed(site, broadcast_id=broadcast_id))]


async def verified(
    site: Site, metadata: Metadata | None = None, **fields: object
) -> sender_pb2.VerifyAuditLogResponse:
    """One call that checks the chain."""
    request = sender_pb2.VerifyAuditLogRequest(**fields)  # type: ignore[arg-type]
    return await site.stub.VerifyAuditLog(request, metadata=metadata or site.service("audit.read"))


def flaw(answer: sender_pb2.VerifyAuditLogResponse) -> tuple[str, int] | None:
    """What is wrong, in a word, and where; None when nothing is."""
    if not answer.HasField("flaw"):
        return None
    kind = sender_pb2.AuditFlawKind.Name(answer.flaw.kind).removeprefix("AUDIT_FLAW_KIND_").lower()
    return kind, answer.flaw.position


@asynccontextmanager
async def past_its_guards(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """As a superuser who switches the triggers off; the log is put back as it was after the block."""
    await admin.execute("SET search_path TO sender; SET session_replication_role TO replica")
    await admin.execute("CREATE TEMPORARY TABLE kept_log AS TABLE audit_log")
    await admin.execute("CREATE TEMPORARY TABLE kept_checkpoints AS TABLE audit_checkpoints")
    try:
        yield
    finally:
        for table, kept in (("audit_log", "kept_log"), ("audit_checkpoints", "kept_checkpoints")):
            await admin.execute(f"DELETE FROM {table}")  # noqa: S608 names of ours
            await admin.execute(f"INSERT INTO {table} SELECT * FROM {kept}; DROP TABLE {kept}")  # noqa: S608
        await admin.execute("RESET session_replication_role; RESET search_path")
