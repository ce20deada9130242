"""What a person may ask for: everything that is kept about them, and that nothing is, wherever one looks.

It has a suite of its own, because it looks through all of it: every column of every table, every message, every key and
every line that a process has logged.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, directory_pb2, inbox_pb2, preferences_pb2, sender_pb2

from cli.exits import ExitCode
from stack.background import BackgroundStack
from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, Watching, broadcast, eventually, refusal
from tests.e2e.marked_person import MARKERS, PERSON, know, live, set_team
from tests.e2e.remains import Finding, search
from tests.e2e.test_command_line import Command

Code = grpc.StatusCode
PRIVACY = "privacy"
# Where a user id may stay: who did what, and that this was asked for.
ON_RECORD = {
    "sender.audit_log.actor",
    "sender.audit_log.user_id",
    "sender.broadcasts.created_by",
    "sender.daily_analytics.created_by",
    "preferences.requests.caller",
}


@pytest.fixture(scope="module")
def own_suite() -> Iterator[BackgroundStack]:
    """A suite that nobody else looks at, which tells its services twice within seconds."""
    settings = {"PREFERENCES_ERASURE_RETRY_S": "0.5", "PREFERENCES_ERASURE_REPEAT_S": "2"}
    with BackgroundStack(300, settings=settings) as stack:
        yield stack


@pytest.fixture(scope="module")
async def client(own_suite: BackgroundStack) -> AsyncIterator[Client]:
    """Calls that suite."""
    async with Client(own_suite) as calls:
        await calls.add_admins(2)
        yield calls


async def counts(client: Client, broadcast_ids: list[str]) -> list[str]:
    """How many people each of these has come to, and what they did: now, and day by day once that is counted."""
    shown = [(await client.show(each, "admin-0")).stats for each in broadcast_ids]
    request = sender_pb2.GetAnalyticsRequest(
        group=sender_pb2.ANALYTICS_GROUP_BROADCAST, broadcast_ids=broadcast_ids
    )

    async def all_counted() -> list[str] | None:
        answer = await client.sender.GetAnalytics(request, metadata=client.person("admin-0"), timeout=CALL_S)
        # Each has been read by somebody.
        counted = [row for row in answer.rows if row.read]
        return [str(row) for row in counted] if len(counted) == len(broadcast_ids) else None

    rows = await eventually(all_counted, "analytics", 60)
    # An alert that is held is for nobody any more, which the dispatcher may know by now.
    ledgers = [[line for line in each.ledger if line.channel == common_pb2.CHANNEL_IN_APP] for each in shown]
    return [*rows, *(f"{each.targeted} {each.engagement}" for each in shown), *map(str, ledgers)]


async def settled(client: Client) -> None:
    """Return once every service has confirmed twice."""

    async def nobody_is_pending() -> bool:
        return not [
            each for each in await search(client, [PERSON]) if each.place.startswith("preferences.erasures")
        ]

    await eventually(nobody_is_pending, "every service to have followed", 60)


def places(findings: list[Finding], marker: object) -> set[str]:
    """Where something was found."""
    return {each.place for each in findings if each.marker == marker}


async def test_everything_is_exported_and_then_nothing_is_left_but_counts(
    client: Client, own_suite: BackgroundStack
) -> None:
    """The story of one person, from their first setting to the moment in which nobody knows them."""
    known = await live(client)
    async with client.watching(PERSON) as screen:
        before = await search(client, [*MARKERS, PERSON])
        # The search finds each of them while they are there, or it would prove nothing afterwards.
        assert {each.marker for each in before} == {*MARKERS, PERSON}
        assert places(before, PERSON) > {
            "sender.audit_log.actor",
            "sender.broadcasts.user_ids",
            "inbox.recipients.user_id",
        }
        counted = await counts(client, known)

        await exports_everything(own_suite, client.token(PERSON))
        await is_gone_from(client, screen)

    await settled(client)
    after = await search(client, [*MARKERS, PERSON])
    assert [each for each in after if each.marker != PERSON] == []
    assert places(after, PERSON) <= ON_RECORD
    assert await counts(client, known) == counted
    await is_on_record(client)
    await is_unknown(client)


async def exports_everything(suite: BackgroundStack, token: str) -> None:
    """By the command line, in one document, with every kind of record of every service."""
    code, text, errors = await Command(suite)("--token", token, "privacy", "export")
    assert (code, errors) == (0, "")
    document = json.loads(text)
    assert document["user_id"] == str(PERSON)
    kinds = {service: set(kinds) for service, kinds in document["services"].items()}
    # What the sender has been told already is in its audit log.
    kinds["preferences"].discard("audit_event")
    assert kinds == {
        "preferences": {
            "recipient",
            "preferences",
            "role_setting",
            "wedding_filter",
            "team_membership",
            "remembered_call",
        },
        "inbox": {"item", "receipt", "arrangement", "all_read", "remembered_call"},
        "sender": {
            "broadcast_sent",
            "broadcast_naming_you",
            "counted_sends",
            "audit_entry",
            "remembered_call",
        },
        "dispatcher": {"delivery"},
    }
    assert not [each for each in MARKERS if each not in text]
    states = {each["state"] for each in document["services"]["dispatcher"]["delivery"]}
    assert {"delivered", "held"} <= states
    assert str(demo_id("florist")) not in text


async def is_gone_from(client: Client, screen: Watching) -> None:
    """With the answer they have no inbox, and what they had open is closed."""
    request = directory_pb2.EraseRecipientRequest(user_id=str(PERSON), request_id=str(uuid4()))
    me = client.person(PERSON)
    answer = await client.directory.EraseRecipient(request, metadata=me, timeout=CALL_S)
    assert list(answer.pending_services) == []
    assert await client.directory.EraseRecipient(request, metadata=me, timeout=CALL_S) == answer

    async def has_ended() -> bool:
        return screen.ended is not None

    await eventually(has_ended, "the stream to end")
    assert screen.ended is not None
    assert screen.ended.code() is Code.PERMISSION_DENIED


async def is_on_record(client: Client) -> None:
    """The audit log says who did what, that they are gone, and is whole."""
    auditor = client.service("audit.read")
    verified = await client.sender.VerifyAuditLog(
        sender_pb2.VerifyAuditLogRequest(), metadata=auditor, timeout=CALL_S
    )
    assert not verified.HasField("flaw")
    request = sender_pb2.ListAuditEventsRequest(user_id=str(PERSON))
    found = await client.sender.ListAuditEvents(request, metadata=auditor, timeout=CALL_S)
    assert sender_pb2.AUDIT_ACTION_ERASED in {each.action for each in found.events}


async def is_unknown(client: Client) -> None:
    """Every service refuses their token, which is still good, as that of somebody unknown."""
    refusals = []
    for user_id in (PERSON, uuid4()):
        me = client.person(user_id)
        calls = (
            client.inbox.GetUnreadCount(inbox_pb2.GetUnreadCountRequest(), metadata=me, timeout=CALL_S),
            client.preferences.GetPreferences(
                preferences_pb2.GetPreferencesRequest(), metadata=me, timeout=CALL_S
            ),
            client.directory.GetRecipient(
                directory_pb2.GetRecipientRequest(user_id=str(user_id)), metadata=me, timeout=CALL_S
            ),
            client.sender.SendBroadcast(broadcast(), metadata=me, timeout=CALL_S),
            client.sender.ListBroadcasts(sender_pb2.ListBroadcastsRequest(), metadata=me, timeout=CALL_S),
        )
        told = [await refusal(call) for call in calls]
        refusals.append([(code, details.message) for code, details in told])
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("away", ["inbox", "sender"])
async def test_an_outage_during_an_erasure_leaves_nothing_behind(
    client: Client, own_suite: BackgroundStack, away: str
) -> None:
    """A service that is frozen is named in the answer, and has followed when it is back."""
    person, name = uuid4(), f"Away {uuid4()}"
    await know(client, person, name)
    # So that both of them know this person.
    await client.items(person)
    metadata = client.person(person)
    request = inbox_pb2.MarkAllReadRequest(request_id=str(uuid4()))
    await client.inbox.MarkAllRead(request, metadata=metadata, timeout=CALL_S)
    text = {"title": name, "targeting": common_pb2.Targeting(user_ids=[str(person)])}
    await client.send("admin", **text)
    processes = own_suite.services(away)
    for process in processes:
        process.suspend()
    try:
        erasure = directory_pb2.EraseRecipientRequest(user_id=str(person))
        answer = await client.directory.EraseRecipient(
            erasure, metadata=client.service(PRIVACY), timeout=CALL_S
        )
        assert away in answer.pending_services
    finally:
        for process in processes:
            process.resume()

    async def is_gone() -> bool:
        return {each.place for each in await search(client, [name, person])} <= ON_RECORD

    await eventually(is_gone, "everything to be gone", 60)


async def test_a_race_of_everything_with_an_erasure_ends_with_nothing(client: Client) -> None:
    """Whatever is sent, set, read and told at that moment: nobody comes back."""
    person, name = uuid4(), f"Racing {uuid4()}"
    await know(client, person, name)
    metadata, text = client.person(person), {"title": name}
    text |= {"targeting": common_pb2.Targeting(user_ids=[str(person)])}  # type: ignore[dict-item]
    update = preferences_pb2.UpdatePreferencesRequest(
        request_id=str(uuid4()), preferences=preferences_pb2.Preferences(critical_only=True)
    )
    erasure = directory_pb2.EraseRecipientRequest(user_id=str(person))
    await asyncio.gather(
        client.send("admin", **text),
        know(client, person, name),
        client.preferences.UpdatePreferences(update, metadata=metadata, timeout=CALL_S),
        client.inbox.MarkAllRead(
            inbox_pb2.MarkAllReadRequest(request_id=str(uuid4())), metadata=metadata, timeout=CALL_S
        ),
        client.directory.EraseRecipient(erasure, metadata=client.service(PRIVACY), timeout=CALL_S),
        set_team(client, "wedding-q", person),
        client.items(person),
        know(client, person, name),
        client.send("admin", **text),
        return_exceptions=True,
    )

    async def is_gone() -> bool:
        return {each.place for each in await search(client, [name, person])} <= ON_RECORD

    await eventually(is_gone, "everything to be gone", 60)


async def test_the_command_asks_before_it_erases(client: Client, own_suite: BackgroundStack) -> None:
    """Without --yes and without an answer nobody is; whom one may not see does not exist; a service must say whom."""
    command, person = Command(own_suite), uuid4()
    await know(client, person, "Peter Prompt")
    token = client.token(person)
    code, _, _ = await command("--token", token, "privacy", "erase")
    assert code not in (0, ExitCode.NOT_FOUND)
    assert len(await client.items(person)) >= 0
    code, _, errors = await command("--token", token, "privacy", "export", "--user", str(PERSON))
    assert (code, "no such recipient" in errors) == (ExitCode.NOT_FOUND, True)
    code, _, errors = await command.service(PRIVACY, "privacy", "erase", "--yes")
    assert (code, "give --user" in errors) == (ExitCode.USAGE, True)
    code, output, _ = await command.service(
        PRIVACY, "--json", "privacy", "erase", "--yes", "--user", str(person)
    )
    assert (code, json.loads(output)["pending_services"]) == (0, [])
    code, _, _ = await command("--token", token, "privacy", "erase", "--yes")
    assert code == ExitCode.NOT_FOUND
