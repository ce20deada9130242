"""What changes of people's rights reaches the audit log: each change once, in order, whatever breaks on the way."""

import asyncio
from collections.abc import Iterable
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1 import directory_pb2, preferences_pb2, sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.preferences.auditing import AuditStore, AuditTeller
from shared import database
from shared.channels import open_channel
from shared.failpoints import FailpointError, armed
from shared.settings import Address
from shared.tls import Transport
from tests.integration.preferences.inbox import told_inbox
from tests.integration.preferences.segments import delete, update
from tests.integration.preferences.site import Metadata, Site, Someone, a_person
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

# What, of whom, about which wedding, from which role, to which, by whom.
Told = tuple[str, str, str, str, str, str]


def told(site: Site, people: Iterable[str]) -> list[Told]:
    """What the sender knows of these people, in the order in which it was told."""
    among = set(people)
    return [
        (
            sender_pb2.AuditAction.Name(event.action).removeprefix("AUDIT_ACTION_").lower(),
            event.user_id,
            event.wedding_id,
            event.role_before,
            event.role_after,
            event.actor,
        )
        for event in site.inbox.sender.events.values()
        if event.user_id in among
    ]


async def waiting(site: Site) -> int:
    """How much the sender has not been told."""
    return int(await site.admin.fetchval("SELECT count(*) FROM preferences.audit_events"))


async def all_told(site: Site) -> None:
    """Return once the sender has everything."""
    await until_equal(0, lambda: waiting(site))


async def set_role(site: Site, person: Someone, role: str) -> None:
    """Give somebody another role."""
    entry = directory_pb2.Recipient()
    entry.CopyFrom(person.entry)
    entry.role = role
    await site.upsert(entry)


async def test_role_is_on_record(site: Site) -> None:
    """When one with rights is given, to somebody new or not, when it is taken, and any change; by who did it."""
    one, other = await site.someone(role="admin"), await site.someone(role="florist")
    await set_role(site, one, "coordinator")
    await set_role(site, other, "coordinator")
    await set_role(site, other, "venue")
    await set_role(site, other, "florist")
    await all_told(site)
    assert told(site, [one.user_id, other.user_id]) == [
        ("role_changed", one.user_id, "", "", "admin", "billing"),
        ("role_changed", one.user_id, "", "admin", "coordinator", "billing"),
        ("role_changed", other.user_id, "", "florist", "coordinator", "billing"),
        ("role_changed", other.user_id, "", "coordinator", "venue", "billing"),
        ("role_changed", other.user_id, "", "venue", "florist", "billing"),
    ]


async def test_what_changes_no_role_is_not_on_record(site: Site) -> None:
    """Somebody new without rights, another name, and an upsert that changes nothing."""
    one, admin = await site.someone(role="florist"), await site.someone(role="admin")
    await site.upsert(admin.entry)
    admin.entry.display_name = "Somebody Else"
    await site.upsert(admin.entry)
    await all_told(site)
    assert told(site, [one.user_id]) == []
    assert len(told(site, [admin.user_id])) == 1


async def test_team_is_on_record(site: Site) -> None:
    """Who joins it and who leaves it, one by one; those who stay are not."""
    nadia, olu = await site.someone(role="coordinator"), await site.someone(role="coordinator")
    petra = await site.someone(role="photographer")
    wedding_id = await site.wedding(nadia, petra)
    await site.set_team(wedding_id, nadia, olu, petra)
    await site.set_team(wedding_id, olu)
    await site.set_team(wedding_id, olu)
    await all_told(site)
    members = [nadia.user_id, olu.user_id, petra.user_id]
    assert [each[:3] for each in told(site, members) if each[2]] == [
        ("team_joined", nadia.user_id, wedding_id),
        ("team_joined", petra.user_id, wedding_id),
        ("team_joined", olu.user_id, wedding_id),
        ("team_left", nadia.user_id, wedding_id),
        ("team_left", petra.user_id, wedding_id),
    ]


async def test_erasure_is_on_record(site: Site) -> None:
    """Whatever marks somebody as erased, once; here an administrator, who is on record by the login."""
    person = await site.someone(role="florist")
    for _ in range(2):
        await site.admin.execute(
            "UPDATE preferences.recipients SET erased_at = now() WHERE user_id = $1", UUID(person.user_id)
        )
    await all_told(site)
    assert told(site, [person.user_id]) == [("erased", person.user_id, "", "", "", "postgres")]


async def test_segments_are_on_record(site: Site) -> None:
    """Made, changed and removed, by whom; not what changes nothing, is refused, or counts who is in one."""
    segment = await site.segment()
    for description in ("New", "New"):
        await update(site, segment.segment_id, "description", description=description)
    await refusal_of(update(site, segment.segment_id, "name", name=""))
    counted = "UPDATE preferences.segments SET user_count = 7, user_count_time = now() WHERE segment_id = $1"
    await site.admin.execute(counted, segment.segment_id)
    await delete(site, segment.segment_id)
    await all_told(site)
    assert [
        (sender_pb2.AuditAction.Name(event.action), event.actor, event.user_id)
        for event in site.inbox.sender.events.values()
        if event.segment_id == segment.segment_id
    ] == [(f"AUDIT_ACTION_SEGMENT_{action}", "billing", "") for action in ("CREATED", "UPDATED", "DELETED")]


async def test_change_that_is_refused_is_not_on_record(site: Site) -> None:
    """All of a call or nothing: one entry that may not be written, and no event of the others."""
    good, bad = a_person(role="coordinator"), a_person(role="admin")
    request = directory_pb2.UpsertRecipientsRequest(recipients=[good, bad])
    call = site.directory.UpsertRecipients(request, metadata=site.service("directory.write"))
    assert (await refusal_of(call)).code is grpc.StatusCode.PERMISSION_DENIED
    await all_told(site)
    assert told(site, [good.user_id, bad.user_id]) == []


async def test_without_an_event_no_role_is_given(site: Site) -> None:
    """When it cannot be put down, the change is refused and leaves nothing."""
    entry = a_person(role="coordinator")
    await site.admin.execute("REVOKE INSERT ON preferences.audit_events FROM preferences_worker")
    try:
        request = directory_pb2.UpsertRecipientsRequest(recipients=[entry])
        call = site.directory.UpsertRecipients(request, metadata=site.service("directory.write"))
        assert (await refusal_of(call)).code is grpc.StatusCode.INTERNAL
    finally:
        await site.admin.execute("GRANT INSERT ON preferences.audit_events TO preferences_worker")
    query = "SELECT count(*) FROM preferences.recipients WHERE user_id = $1"
    assert await site.admin.fetchval(query, UUID(entry.user_id)) == 0


async def test_events_wait_for_a_sender_that_is_away(site: Site) -> None:
    """In order, more than fit into one call, and over a restart; changes go on meanwhile."""
    site.inbox.sender.is_down = True
    people = [a_person(role="coordinator") for _ in range(450)]
    await site.upsert(*people)
    person = await site.someone(role="admin")
    await set_role(site, person, "coordinator")
    assert await waiting(site) == 452
    await site.restart()
    assert told(site, [person.user_id]) == []
    site.inbox.sender.is_down = False
    await all_told(site)
    everybody = [*(each.user_id for each in people), person.user_id, person.user_id]
    assert [each[1] for each in told(site, everybody)] == everybody


@pytest.mark.parametrize(("moment", "calls"), [("before_forget", 2), ("after_forget", 1)])
async def test_event_is_told_again_until_it_is_known_to_be_told(site: Site, moment: str, calls: int) -> None:
    """A process that dies in between tells it twice under one id, and it is one."""
    site.inbox.sender.is_down = True
    person = await site.someone(role="coordinator")
    worker = await database.connect(site.database.url("preferences", "worker"), application_name="teller")
    async with told_inbox() as other:
        channel = open_channel("sender", Address.parse(other.address), Transport(), lambda: "token")
        teller = AuditTeller(AuditStore(worker), SenderServiceStub(channel), retry_s=60)
        with armed(f"preferences.audit.{moment}=error@1"), pytest.raises(FailpointError):
            await teller.tell()
        await teller.tell()
        assert (other.sender.calls, await waiting(site)) == (calls, 0)
        assert [event.user_id for event in other.sender.events.values()] == [person.user_id]
        await channel.close()
    await worker.close()


async def test_attempts_at_a_wall_reach_the_audit_log(site: Site) -> None:
    """A stranger looked up, and a filter for a wedding that is not theirs; when the process ends, at the latest."""
    petra, stranger = await site.someone(role="photographer"), await site.someone(role="florist")
    caller: Metadata = site.person(petra.user_id)
    for user_id in (stranger.user_id, stranger.user_id, str(uuid4())):
        request = directory_pb2.GetRecipientRequest(user_id=user_id)
        await refusal_of(site.directory.GetRecipient(request, metadata=caller))
    filters = [preferences_pb2.WeddingFilter(wedding_id=str(uuid4()), muted=True)]
    request = preferences_pb2.UpdatePreferencesRequest(
        preferences=preferences_pb2.Preferences(wedding_filters=filters),
        update_mask=FieldMask(paths=["wedding_filters"]),
    )
    await refusal_of(site.preferences.UpdatePreferences(request, metadata=caller))
    missing = directory_pb2.GetRecipientRequest(user_id=str(uuid4()))
    await refusal_of(site.directory.GetRecipient(missing, metadata=site.service("directory.read")))
    await site.restart()
    refused = {
        (event.actor, event.method, event.attempts)
        for event in site.inbox.sender.events.values()
        if event.action == sender_pb2.AUDIT_ACTION_WALL_REFUSED and event.actor in (petra.user_id, "billing")
    }
    assert refused == {
        (petra.user_id, "DirectoryService/GetRecipient", 3),
        (petra.user_id, "PreferencesService/UpdatePreferences", 1),
    }


GOOD = {"action": "erased", "actor": "forms", "user_id": UUID(int=1)}


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        (None, {}),
        (None, {"action": "role_changed", "role_after": "admin"}),
        (None, {"action": "team_left", "wedding_id": UUID(int=2)}),
        ("audit_events_action_known", {"action": "promoted"}),
        ("audit_events_actor_named", {"actor": ""}),
        ("audit_events_actor_named", {"actor": "x" * 65}),
        ("audit_events_wedding_of_team", {"wedding_id": UUID(int=2)}),
        ("audit_events_wedding_of_team", {"action": "team_joined"}),
        ("audit_events_person_or_segment", {"user_id": None}),
        ("audit_events_person_or_segment", {"segment_id": UUID(int=2)}),
        ("audit_events_person_or_segment", {"action": "segment_deleted"}),
        ("audit_events_roles_of_change", {"action": "role_changed"}),
        ("audit_events_roles_of_change", {"role_after": "admin"}),
        ("audit_events_roles_of_change", {"action": "role_changed", "role_before": "x", "role_after": "x"}),
    ],
)
async def test_event_says_what_it_must(
    site: Site, constraint: str | None, changes: dict[str, object]
) -> None:
    """Each invariant by its name."""
    row = GOOD | changes
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    statement = f"INSERT INTO preferences.audit_events ({', '.join(row)}) VALUES ({places})"  # noqa: S608 ours
    transaction = site.admin.transaction()
    await transaction.start()
    if constraint is None:
        await site.admin.execute(statement, *row.values())
    else:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await site.admin.execute(statement, *row.values())
        assert refused.value.constraint_name == constraint
    await transaction.rollback()


async def test_changes_at_once_are_told_in_their_order(site: Site) -> None:
    """What happened to one person later is told later, whoever did it and however many there were."""
    people = [await site.someone(role="coordinator") for _ in range(4)]

    async def toggle(person: Someone) -> None:
        for role in ("florist", "coordinator") * 5:
            await set_role(site, person, role)

    await asyncio.gather(*map(toggle, people))
    await all_told(site)
    for person in people:
        steps = [(before, after) for *_, before, after, _ in told(site, [person.user_id])]
        assert steps == [("", "coordinator"), *[("coordinator", "florist"), ("florist", "coordinator")] * 5]
