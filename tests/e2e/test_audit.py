"""The audit log of the running suite: what people do ends up in it, through gRPC alone and by the command."""

import json
from uuid import uuid4

from wedsync.broadcast.v1.common_pb2 import Priority
from wedsync.broadcast.v1.directory_pb2 import (
    USER_TYPE_SUPPLIER,
    Recipient,
    SetWeddingTeamRequest,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    WeddingEntry,
    WeddingStatus,
)
from wedsync.broadcast.v1.sender_pb2 import (
    AuditAction,
    AuditCheckpoint,
    AuditEvent,
    CancelBroadcastRequest,
    ListAuditEventsRequest,
    VerifyAuditLogRequest,
)

from stack.background import BackgroundStack
from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, eventually
from tests.e2e.test_command_line import Command

ADMIN = str(demo_id("admin"))


async def _listed(client: Client, **filters: object) -> list[AuditEvent]:
    """The newest entries of a query, oldest first."""
    request = ListAuditEventsRequest(page_size=100, **filters)  # type: ignore[arg-type]
    page = await client.sender.ListAuditEvents(request, metadata=client.person("admin"), timeout=CALL_S)
    return list(reversed(page.events))


def _words(events: list[AuditEvent]) -> list[str]:
    return [AuditAction.Name(event.action).removeprefix("AUDIT_ACTION_").lower() for event in events]


async def _critical(client: Client) -> str:
    return await client.send(
        "admin",
        type="wedding.emergency",
        wedding_id=str(demo_id("wedding-1")),
        priority=Priority.PRIORITY_CRITICAL,
    )


async def test_a_critical_broadcast_is_on_record_from_send_to_cancel(client: Client) -> None:
    """Who sent it, and who took it back; an ordinary one leaves nothing."""
    broadcast_id, ordinary = await _critical(client), await client.send("admin")
    request = CancelBroadcastRequest(broadcast_id=broadcast_id, retract=True, reason="A mistake.")
    await client.sender.CancelBroadcast(request, metadata=client.person("admin"), timeout=CALL_S)
    sent, asked, done = await _listed(client, broadcast_id=broadcast_id)
    assert _words([sent, asked, done]) == ["critical_accepted", "cancel_requested", "cancelled"]
    author = (await client.show(broadcast_id)).broadcast.created_by
    assert (sent.actor, asked.actor, asked.retract, done.retract) == (author, ADMIN, True, True)
    assert (sent.wedding_id, sent.targeted) == (str(demo_id("wedding-1")), done.stopped + done.already_sent)
    assert await _listed(client, broadcast_id=ordinary) == []


async def test_a_new_coordinator_is_on_record_from_role_to_team(client: Client) -> None:
    """The directory tells the sender, which keeps the log: who gave the role, who put them on the team and off it."""
    person = Recipient(
        user_id=str(uuid4()),
        display_name="Mira Novak",
        role="coordinator",
        user_type=USER_TYPE_SUPPLIER,
        tier="free",
        time_zone="Europe/Vienna",
    )
    wedding = WeddingEntry(
        wedding_id=str(uuid4()),
        couple_name="Noor & Ida",
        status=WeddingStatus.WEDDING_STATUS_PLANNING,
        time_zone="Europe/Vienna",
    )
    feed = client.service("directory.write", name="forms")
    await client.directory.UpsertRecipients(
        UpsertRecipientsRequest(recipients=[person]), metadata=feed, timeout=CALL_S
    )
    await client.directory.UpsertWeddings(
        UpsertWeddingsRequest(weddings=[wedding]), metadata=feed, timeout=CALL_S
    )
    for team in ([person.user_id], []):
        request = SetWeddingTeamRequest(wedding_id=wedding.wedding_id, user_ids=team)
        await client.directory.SetWeddingTeam(request, metadata=feed, timeout=CALL_S)

    async def all_told() -> list[AuditEvent] | None:
        events = await _listed(client, user_id=person.user_id)
        return events if len(events) == 3 else None

    events = await eventually(all_told, "three entries about a coordinator")
    assert _words(events) == ["role_changed", "team_joined", "team_left"]
    assert {(event.actor, event.source) for event in events} == {("forms", "preferences")}
    assert [event.wedding_id for event in events] == ["", wedding.wedding_id, wedding.wedding_id]
    assert (events[0].role_before, events[0].role_after) == ("", "coordinator")


async def test_the_log_of_the_suite_is_intact(client: Client, suite: BackgroundStack) -> None:
    """From the first entry to the last, and the checkpoint to keep still holds after more was added."""
    await _critical(client)
    command = Command(suite)
    code, output, _ = await command("audit", "verify")
    assert (code, "The audit log is intact" in output) == (0, True)
    kept = output.split("--expect ")[1].strip()
    await _critical(client)
    code, output, _ = await command("--json", "audit", "verify", "--expect", kept)
    answer = json.loads(output)
    assert (code, answer["complete"], answer["checked"]) == (0, True, int(answer["through"]["position"]))
    code, output, _ = await command("--json", "audit", "verify", "--since", kept)
    rest = json.loads(output)
    assert rest["checked"] == int(rest["through"]["position"]) - int(kept.split(":")[0])
    assert (code, rest["complete"], rest["checked"] > 0) == (0, True, True)


async def test_a_log_that_does_not_agree_with_what_was_kept_ends_the_command_with_9(
    client: Client, suite: BackgroundStack
) -> None:
    """A checkpoint of another log: the command says what is wrong and where."""
    await _critical(client)
    command = Command(suite)
    for kept, complaint in (
        (f"1:{'00' * 32}", "entry 1 has another hash than the checkpoint of it"),
        (f"1000000000:{'00' * 32}", "its end is missing, from entry"),
    ):
        code, _, errors = await command("audit", "verify", "--expect", kept)
        assert code == 9
        assert "The audit log is broken" in errors
        assert complaint in " ".join(errors.split())
    code, output, errors = await command("--json", "audit", "verify", "--since", f"1:{'00' * 32}")
    assert (code, json.loads(errors)["exit_code"]) == (9, 9)
    assert json.loads(output)["flaw"]["kind"] == "AUDIT_FLAW_KIND_CHECKPOINT_DIFFERS"


async def test_the_command_lists_what_was_asked_for(client: Client, suite: BackgroundStack) -> None:
    """By what, by whom and about what; whoever may not look learns nothing."""
    broadcast_id, command = await _critical(client), Command(suite)
    author = (await client.show(broadcast_id)).broadcast.created_by
    code, output, _ = await command(
        "audit", "list", "--action", "critical_accepted", "--by", author, "--broadcast", broadcast_id
    )
    assert code == 0
    assert broadcast_id in output
    assert "critical_accepted: wedding.emergency" in output
    code, output, _ = await command("--json", "audit", "list", "--page-size", "1")
    assert (code, len(json.loads(output)["events"])) == (0, 1)
    code, output, _ = await command("audit", "list", "--by", f"account-{uuid4()}")
    assert (code, "No entries." in output) == (0, True)
    code, _, errors = await command("audit", "list", "--action", "promoted")
    assert (code, "--action must be one of critical_accepted" in errors) == (2, True)
    for wrong in ("12", "12:6f", f"0:{'00' * 32}", f"-1:{'00' * 32}"):
        code, _, errors = await command("audit", "verify", f"--expect={wrong}")
        assert (code, "--expect must be a position and a hash" in " ".join(errors.split())) == (2, True)
    code, _, errors = await command("audit", "list", who="coordinator")
    assert (code, "PERMISSION_DENIED" in errors) == (4, True)


async def test_a_verification_that_begins_at_nothing_begins_at_the_first(client: Client) -> None:
    """An empty checkpoint is the beginning."""
    request = VerifyAuditLogRequest(since=AuditCheckpoint())
    answer = await client.sender.VerifyAuditLog(
        request, metadata=client.service("audit.read"), timeout=CALL_S
    )
    assert not answer.HasField("flaw")
    assert answer.checked == answer.through.position
