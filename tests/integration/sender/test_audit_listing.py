"""ListAuditEvents: filters, pages and page tokens, against sorting a list."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from wedsync.broadcast.v1 import sender_pb2

from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite
from tests.integration.sender.audit_log import listed, word
from tests.integration.sender.neighbours import Neighbours
from tests.integration.sender.site import Servers, ServingSite, Site, serving_site
from tests.integration.shared.edge import refusal_of

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ACTIONS = ("critical_accepted", "cancel_requested", "role_changed", "team_joined")
ACTORS = (str(UUID(int=1)), str(UUID(int=2)), "billing")
IDS = [UUID(int=number) for number in range(10, 14)]
ENTRIES = 230


@pytest.fixture(scope="module")
async def sender_database(make_suite: MakeSuite) -> SuiteDatabase:
    """A log of this module's own with entries of every kind, whose times are not in its order."""
    suite, random = await make_suite("sender"), Random(7)
    worker = await asyncpg.connect(suite.url("sender", "worker"))
    for _ in range(ENTRIES):
        await worker.execute(
            """
            INSERT INTO audit_log (at, actor, action, broadcast_id, broadcast_type, targeted, user_id, wedding_id)
            VALUES ($1, $2, $3, $4, 'security.alert', 3, $5, $6)
            """,
            NOON + timedelta(minutes=random.randrange(60)),
            random.choice(ACTORS),
            random.choice(ACTIONS),
            *(random.choice([None, *IDS]) for _ in range(3)),
        )
    await worker.close()
    return suite


@pytest.fixture(scope="module")
async def entries(sender_database: SuiteDatabase) -> list[asyncpg.Record]:
    """All of them, newest first."""
    admin = await asyncpg.connect(sender_database.admin_url)
    rows = await admin.fetch("SELECT * FROM sender.audit_log")
    await admin.close()
    return sorted(rows, key=lambda row: -row["position"])


@pytest.fixture
async def site(
    tmp_path: Path, sender_database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ServingSite]:
    """A sender on that log."""
    async with serving_site(tmp_path, sender_database, servers, beside) as running:
        yield running


def at(minute: int) -> Timestamp:
    """So many minutes after noon."""
    timestamp = Timestamp()
    timestamp.FromDatetime(NOON + timedelta(minutes=minute))
    return timestamp


def action(name: str) -> int:
    """An action as requests have it."""
    return sender_pb2.AuditAction.Value(f"AUDIT_ACTION_{name.upper()}")


FILTERS: list[tuple[dict[str, Any], Callable[[asyncpg.Record], bool]]] = [
    ({}, lambda row: True),
    ({"actions": [action("role_changed")]}, lambda row: row["action"] == "role_changed"),
    (
        {"actions": [action("cancel_requested"), action("critical_accepted")]},
        lambda row: row["action"] in ("cancel_requested", "critical_accepted"),
    ),
    ({"actor": "billing"}, lambda row: row["actor"] == "billing"),
    ({"actor": ACTORS[0].upper()}, lambda row: row["actor"] == ACTORS[0]),
    ({"broadcast_id": str(IDS[0]).upper()}, lambda row: row["broadcast_id"] == IDS[0]),
    ({"user_id": str(IDS[1])}, lambda row: row["user_id"] == IDS[1]),
    ({"wedding_id": str(IDS[2])}, lambda row: row["wedding_id"] == IDS[2]),
    (
        {"time": Interval(start_time=at(20), end_time=at(40))},
        lambda row: NOON + timedelta(minutes=20) <= row["at"] < NOON + timedelta(minutes=40),
    ),
    (
        {"actor": "billing", "time": Interval(start_time=at(30)), "actions": [action("role_changed")]},
        lambda row: (
            (row["actor"], row["action"]) == ("billing", "role_changed")
            and row["at"] >= NOON + timedelta(minutes=30)
        ),
    ),
    ({"actor": "nobody"}, lambda row: False),
    ({"actions": [action("erased")]}, lambda row: False),
]


@pytest.mark.parametrize("case", range(len(FILTERS)))
@pytest.mark.parametrize("page_size", [0, 7, 100])
async def test_pages_are_the_list_that_was_asked_for(
    site: Site, entries: list[asyncpg.Record], case: int, page_size: int
) -> None:
    """Newest first, every page but the last one full, nothing twice and nothing left out, whatever the filter."""
    fields, matches = FILTERS[case]
    expected = [row["position"] for row in entries if matches(row)]
    pages: list[list[int]] = []
    request = sender_pb2.ListAuditEventsRequest(page_size=page_size, **fields)
    while True:
        page = await site.stub.ListAuditEvents(request, metadata=site.service("audit.read"))
        pages.append([event.position for event in page.events])
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    size = page_size or 50
    assert [position for page in pages for position in page] == expected
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    assert pages[-1] or not expected


async def test_entry_has_all_that_is_on_record(site: Site, entries: list[asyncpg.Record]) -> None:
    """And nothing where nothing is."""
    shown = {event.position: event for event in await listed(site)}
    for row in entries:
        event = shown[row["position"]]
        assert (word(event), event.actor, event.source) == (row["action"], row["actor"], "sender")
        assert event.time.ToDatetime(UTC) == row["at"]
        assert event.record_time.ToDatetime(UTC) == row["recorded_at"]
        assert (event.event_id, event.hash) == (str(row["event_id"]), row["hash"])
        for name in ("broadcast_id", "user_id", "wedding_id"):
            assert getattr(event, name) == ("" if row[name] is None else str(row[name]))
        assert event.targeted == 3
        assert not event.HasField("retract")
        assert not event.HasField("stopped")
        assert (event.role_before, event.role_after, event.method, event.attempts) == ("", "", "", 0)


async def test_page_goes_on_where_the_one_before_ended_while_the_log_grows(site: Site) -> None:
    """What is added meanwhile is on no later page."""
    reader, request = site.service("audit.read"), sender_pb2.ListAuditEventsRequest(page_size=10)
    first = await site.stub.ListAuditEvents(request, metadata=reader)
    await site.admin.execute("BEGIN")
    await site.admin.execute(
        "INSERT INTO sender.audit_log (at, actor, action) VALUES (now(), 'postgres', 'erased')"
    )
    request.page_token = first.next_page_token
    second = await site.stub.ListAuditEvents(request, metadata=reader)
    await site.admin.execute("ROLLBACK")
    assert second.events[0].position == first.events[-1].position - 1


async def test_token_is_good_for_its_query_only(site: Site) -> None:
    """Another filter or reader, a changed or invented token: INVALID_PAGE_TOKEN. Another page size is fine."""
    reader = site.service("audit.read")
    request = sender_pb2.ListAuditEventsRequest(actor="billing", page_size=3)
    token = (await site.stub.ListAuditEvents(request, metadata=reader)).next_page_token
    for other in (
        sender_pb2.ListAuditEventsRequest(page_token=token),
        sender_pb2.ListAuditEventsRequest(actor=ACTORS[0], page_token=token),
        sender_pb2.ListAuditEventsRequest(actor="billing", page_token=token + "A"),
        sender_pb2.ListAuditEventsRequest(actor="billing", page_token="rubbish"),
    ):
        refusal = await refusal_of(site.stub.ListAuditEvents(other, metadata=reader))
        assert (refusal.reason, refusal.fields) == ("INVALID_PAGE_TOKEN", ("page_token",))
    _, admin = site.person("admin")
    again = sender_pb2.ListAuditEventsRequest(actor="billing", page_size=5, page_token=token)
    assert (await site.stub.ListAuditEvents(again, metadata=reader)).events
    refusal = await refusal_of(site.stub.ListAuditEvents(again, metadata=admin))
    assert refusal.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": 101}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"actions": [0]}, "actions[0]"),
        ({"actions": [99]}, "actions[0]"),
        ({"actor": "x" * 65}, "actor"),
        ({"broadcast_id": "x"}, "broadcast_id"),
        ({"user_id": "x"}, "user_id"),
        ({"wedding_id": "x"}, "wedding_id"),
        ({"time": Interval(start_time=at(5), end_time=at(4))}, "time"),
        ({"time": Interval(start_time=Timestamp(seconds=10**12))}, "time.start_time"),
    ],
)
async def test_broken_field_is_named(site: Site, fields: dict[str, Any], field: str) -> None:
    """INVALID_ARGUMENT with its path."""
    request = sender_pb2.ListAuditEventsRequest(**fields)
    refusal = await refusal_of(site.stub.ListAuditEvents(request, metadata=site.service("audit.read")))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


async def test_log_is_for_admins_and_auditors(site: Site) -> None:
    """Neither who reads broadcasts nor a coordinator may look, or have it checked."""
    _, admin = site.person("admin")
    _, coordinator = site.person("coordinator")
    for metadata, may in (
        (admin, True),
        (site.service("audit.read"), True),
        (coordinator, False),
        (site.service("broadcast.read", "broadcast.send", "internal"), False),
    ):
        for call in (
            site.stub.ListAuditEvents(sender_pb2.ListAuditEventsRequest(page_size=1), metadata=metadata),
            site.stub.VerifyAuditLog(sender_pb2.VerifyAuditLogRequest(), metadata=metadata),
        ):
            if may:
                await call
            else:
                assert (await refusal_of(call)).code is grpc.StatusCode.PERMISSION_DENIED
    told = sender_pb2.RecordAuditEventsRequest(
        events=[
            sender_pb2.RecordedAuditEvent(
                event_id=str(uuid4()), time=at(0), actor="x", action=action("erased"), user_id=str(uuid4())
            )
        ]
    )
    for metadata in (admin, site.service("audit.read")):
        refusal = await refusal_of(site.stub.RecordAuditEvents(told, metadata=metadata))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
