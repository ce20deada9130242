"""Every kind of change that a caller of preferences may ask for twice, with what undoes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from wedsync.broadcast.v1 import directory_pb2, preferences_pb2

from tests.integration.preferences.site import Metadata, Site, Someone, a_person, a_segment, a_wedding
from tests.integration.shared.insisting import until_answered

WRITES = "directory.write"


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change: a request, another body for it, who asks, and what there is of it."""

    call: Callable[..., Awaitable[Message]]
    request: Message
    other: Message
    metadata: Metadata
    state: Callable[[], Awaitable[object]]
    undo: Callable[[], Awaitable[object]]

    async def ask(self, request: Message | None = None, metadata: Metadata | None = None) -> Message:
        return await until_answered(
            lambda: self.call(request or self.request, metadata=metadata or self.metadata)
        )


async def upsert_recipients(site: Site) -> Change:
    """Renames somebody; undone by their old entry."""
    person = await site.someone()
    renamed = a_person(user_id=person.user_id, display_name="Petra Horvat")
    return Change(
        site.directory.UpsertRecipients,
        directory_pb2.UpsertRecipientsRequest(request_id=str(uuid4()), recipients=[renamed]),
        directory_pb2.UpsertRecipientsRequest(recipients=[person.entry]),
        site.service(WRITES),
        lambda: _names(site, person),
        lambda: site.upsert(person.entry),
    )


async def _names(site: Site, person: Someone) -> str:
    request = directory_pb2.GetRecipientRequest(user_id=person.user_id)
    found = await site.directory.GetRecipient(request, metadata=site.service("directory.read"))
    return found.recipient.display_name


async def upsert_weddings(site: Site) -> Change:
    """Renames a wedding; undone by its old entry."""
    first = a_wedding()
    renamed = a_wedding(wedding_id=first.wedding_id, couple_name="Mira & Noor")

    async def upsert_first() -> None:
        request = directory_pb2.UpsertWeddingsRequest(weddings=[first])
        await site.directory.UpsertWeddings(request, metadata=site.service(WRITES))

    await upsert_first()
    return Change(
        site.directory.UpsertWeddings,
        directory_pb2.UpsertWeddingsRequest(request_id=str(uuid4()), weddings=[renamed]),
        directory_pb2.UpsertWeddingsRequest(weddings=[first]),
        site.service(WRITES),
        lambda: site.admin.fetchval(
            "SELECT couple_name FROM preferences.weddings WHERE wedding_id = $1", first.wedding_id
        ),
        upsert_first,
    )


async def set_team(site: Site) -> Change:
    """Puts one more on a team; undone by taking them off."""
    one, two = await site.someone(), await site.someone()
    wedding_id = await site.wedding(one)

    def request(*team: Someone, **fields: str) -> directory_pb2.SetWeddingTeamRequest:
        user_ids = [each.user_id for each in team]
        return directory_pb2.SetWeddingTeamRequest(wedding_id=wedding_id, user_ids=user_ids, **fields)

    return Change(
        site.directory.SetWeddingTeam,
        request(one, two, request_id=str(uuid4())),
        request(two),
        site.service(WRITES),
        lambda: site.admin.fetchval(
            "SELECT count(*) FROM preferences.team_members WHERE wedding_id = $1", wedding_id
        ),
        lambda: site.set_team(wedding_id, one),
    )


async def update_preferences(site: Site) -> Change:
    """Switches a category off, if nothing was edited before; undone by switching it on."""
    person = await site.someone()
    etag = (await site.get(person)).etag
    wanted = preferences_pb2.Preferences(business=False, etag=etag)
    mask = FieldMask(paths=["business"])
    return Change(
        site.preferences.UpdatePreferences,
        preferences_pb2.UpdatePreferencesRequest(
            request_id=str(uuid4()), preferences=wanted, update_mask=mask
        ),
        preferences_pb2.UpdatePreferencesRequest(
            preferences=preferences_pb2.Preferences(system=False), update_mask=FieldMask(paths=["system"])
        ),
        site.person(person.user_id),
        lambda: _is_on(site, person),
        lambda: site.edit(person, "business", business=True),
    )


async def reset_preferences(site: Site) -> Change:
    """Goes back to the preset; undone by switching a category off."""
    person = await site.someone()
    first = await site.edit(person, "business", business=False)
    return Change(
        site.preferences.ResetPreferences,
        preferences_pb2.ResetPreferencesRequest(request_id=str(uuid4()), etag=first.etag),
        preferences_pb2.ResetPreferencesRequest(),
        site.person(person.user_id),
        lambda: _is_on(site, person),
        lambda: site.edit(person, "business", business=False),
    )


async def _is_on(site: Site, person: Someone) -> bool:
    return (await site.get(person)).business


async def create_segment(site: Site) -> Change:
    """Makes a segment; undone by taking it away."""
    segment = a_segment()
    return Change(
        site.directory.CreateSegment,
        directory_pb2.CreateSegmentRequest(request_id=str(uuid4()), segment=segment),
        directory_pb2.CreateSegmentRequest(segment=a_segment(description="Another")),
        site.service(WRITES),
        lambda: _description(site, segment.name),
        lambda: site.admin.execute("DELETE FROM preferences.segments WHERE name = $1", segment.name),
    )


async def update_segment(site: Site) -> Change:
    """Describes a segment, if nobody has changed it before; undone by its old description."""
    segment = await site.segment()

    def request(description: str, **fields: str) -> directory_pb2.UpdateSegmentRequest:
        wanted = directory_pb2.Segment(description=description, etag=fields.pop("etag", ""))
        mask = FieldMask(paths=["description"])
        return directory_pb2.UpdateSegmentRequest(
            segment_id=segment.segment_id, segment=wanted, update_mask=mask, **fields
        )

    return Change(
        site.directory.UpdateSegment,
        request("New", request_id=str(uuid4()), etag=segment.etag),
        request("Other"),
        site.service(WRITES),
        lambda: _description(site, segment.name),
        lambda: site.directory.UpdateSegment(request(""), metadata=site.service(WRITES)),
    )


async def delete_segment(site: Site) -> Change:
    """Takes a segment away; undone by putting it back, under the same id."""
    segment, other = await site.segment(), await site.segment()
    site.inbox.sender.uses[other.segment_id] = 1
    return Change(
        site.directory.DeleteSegment,
        directory_pb2.DeleteSegmentRequest(request_id=str(uuid4()), segment_id=segment.segment_id),
        directory_pb2.DeleteSegmentRequest(segment_id=other.segment_id, force=True),
        site.service(WRITES),
        lambda: _description(site, segment.name),
        lambda: site.admin.execute(
            "INSERT INTO preferences.segments (segment_id, name, roles) VALUES ($1, $2, '{venue}')",
            segment.segment_id,
            segment.name,
        ),
    )


async def _description(site: Site, name: str) -> str | None:
    return str(
        await site.admin.fetchval("SELECT description FROM preferences.segments WHERE name = $1", name)
    )


KINDS = (
    upsert_recipients,
    upsert_weddings,
    set_team,
    update_preferences,
    reset_preferences,
    create_segment,
    update_segment,
    delete_segment,
)
