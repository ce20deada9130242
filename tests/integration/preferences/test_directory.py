"""The directory through a real channel: people, weddings and teams, and who may see whom."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from google.type.date_pb2 import Date
from wedsync.broadcast.v1 import audience_pb2, directory_pb2, events_pb2

from shared import messaging
from shared.audience import Audience
from shared.failpoints import armed
from shared.messaging import MessagingSettings
from shared.pull_worker import Delivery, PullWorker
from shared.streams import INBOX_DIRECTORY
from stack.nats import NatsAccess
from tests.integration.preferences.inbox import AppliedTeam
from tests.integration.preferences.site import Metadata, Site, a_person, a_wedding, a_word
from tests.integration.shared.edge import Refusal, refusal_of
from tests.integration.shared.polling import until

ABSENT = "3f2b8f58-52b3-4a44-9c7e-0b6b5ad5b9a1"


async def _upsert(
    site: Site, *people: directory_pb2.Recipient, scopes: tuple[str, ...] = ("directory.write",)
) -> directory_pb2.UpsertRecipientsResponse:
    request = directory_pb2.UpsertRecipientsRequest(recipients=people)
    return await site.directory.UpsertRecipients(request, metadata=site.service(*scopes))


async def _get(site: Site, user_id: str, metadata: Metadata) -> directory_pb2.Recipient:
    request = directory_pb2.GetRecipientRequest(user_id=user_id)
    return (await site.directory.GetRecipient(request, metadata=metadata)).recipient


async def test_numbers_are_given_once_in_the_order_of_the_request(site: Site) -> None:
    """New people get ascending numbers; writing them again changes who they are, and no number."""
    people = [a_person() for _ in range(3)]
    first = await _upsert(site, *people)
    assert list(first.numbers) == sorted(first.numbers)
    people[1].display_name = "Somebody Else"
    again = await _upsert(site, people[2], people[1], a_person())
    assert list(again.numbers)[:2] == [first.numbers[2], first.numbers[1]]
    assert (first.created, again.created) == (3, 1)
    assert again.directory_version > first.directory_version


async def test_writing_the_same_again_is_no_change(site: Site) -> None:
    """Idempotent: nothing is created, and the directory version stays."""
    person = a_person()
    first = await _upsert(site, person)
    again = await _upsert(site, person)
    assert (again.created, again.directory_version) == (0, first.directory_version)


async def test_people_written_at_the_same_time_get_one_number_each(site: Site) -> None:
    """Several feeds with the same new person agree on who that is."""
    person = a_person()
    answers = await asyncio.gather(*(_upsert(site, person, a_person()) for _ in range(5)))
    assert len({answer.numbers[0] for answer in answers}) == 1
    assert len({answer.numbers[1] for answer in answers}) == 5
    assert sum(answer.created for answer in answers) == 6


async def test_one_bad_entry_refuses_all_and_every_one_is_named(site: Site) -> None:
    """A zone that does not exist, and a user who is there twice: nothing is written."""
    good, bad = a_person(), a_person(time_zone="Europe/Gotham")
    refusal = await refusal_of(_upsert(site, good, bad, good))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.fields) == {"recipients[1].time_zone", "recipients[2].user_id"}
    absent = await refusal_of(_get(site, good.user_id, site.service("directory.read")))
    assert absent.code is grpc.StatusCode.NOT_FOUND


async def test_the_admin_role_is_given_and_taken_by_directory_admins_only(site: Site) -> None:
    """Without the scope it can be neither given nor taken; the rest of an admin's entry can be written."""
    person = a_person(role="admin")
    refused = await refusal_of(_upsert(site, a_person(), person))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    await _upsert(site, person, scopes=("directory.write", "directory.admin"))
    person.display_name = "Still an Admin"
    await _upsert(site, person)
    person.role = "florist"
    refused = await refusal_of(_upsert(site, person))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    await _upsert(site, person, scopes=("directory.write", "directory.admin"))


@pytest.mark.parametrize("scopes", [("directory.read",), ("directory.admin",), ("internal",)])
async def test_writing_takes_the_scope_to_write(site: Site, scopes: tuple[str, ...]) -> None:
    """No other scope does."""
    refusal = await refusal_of(_upsert(site, a_person(), scopes=scopes))
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_thousand_and_one_people_are_too_many(site: Site) -> None:
    """The list is measured before it is read."""
    refusal = await refusal_of(_upsert(site, *(a_person() for _ in range(1_001))))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ("recipients",))


async def test_one_sees_oneself_whole(site: Site) -> None:
    """With email and phone, as written."""
    person = await site.someone()
    found = await _get(site, person.user_id, site.person(person.user_id))
    assert (found.number, found.email, found.phone) == (person.number, person.entry.email, person.entry.phone)
    assert found.HasField("update_time")


async def test_admins_and_services_see_everyone_whole(site: Site) -> None:
    """Addresses too."""
    person, admin = await site.someone(), await site.someone(role="admin")
    for metadata in (
        site.person(admin.user_id),
        site.service("directory.read"),
        site.service("directory.write"),
    ):
        assert (await _get(site, person.user_id, metadata)).email == person.entry.email


async def test_coordinators_see_their_teams_without_addresses(site: Site) -> None:
    """Who is on one of their weddings; not their email, not their phone."""
    coordinator, colleague = await site.someone(role="coordinator"), await site.someone()
    await site.wedding(coordinator, colleague)
    found = await _get(site, colleague.user_id, site.person(coordinator.user_id))
    assert (found.display_name, found.email, found.phone) == (colleague.entry.display_name, "", "")


async def test_who_is_not_ones_to_see_is_as_if_absent(site: Site) -> None:
    """A supplier's colleague, a coordinator's stranger, and nobody at all: the same answer."""
    coordinator, supplier = await site.someone(role="coordinator"), await site.someone()
    colleague, stranger = await site.someone(), await site.someone()
    await site.wedding(supplier, colleague, coordinator)
    await site.wedding(stranger)
    refusals: list[Refusal] = [
        await refusal_of(_get(site, user_id, site.person(caller.user_id)))
        for caller, user_id in (
            (supplier, colleague.user_id),
            (supplier, ABSENT),
            (coordinator, stranger.user_id),
            (coordinator, ABSENT),
        )
    ]
    assert len(set(map(str, refusals))) == 1
    assert refusals[0].code is grpc.StatusCode.NOT_FOUND


async def test_a_coordinator_taken_off_a_team_no_longer_sees_it(site: Site) -> None:
    """Reach ends with the team, at the next call."""
    coordinator, colleague = await site.someone(role="coordinator"), await site.someone()
    wedding_id = await site.wedding(coordinator, colleague)
    await site.set_team(wedding_id, colleague)
    refusal = await refusal_of(_get(site, colleague.user_id, site.person(coordinator.user_id)))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_weddings_are_added_and_altered(site: Site) -> None:
    """Couple name and date come back as written; a second write counts nothing new."""
    entry = a_wedding(wedding_date=Date(year=2027, month=6, day=5))
    request = directory_pb2.UpsertWeddingsRequest(weddings=[entry])
    first = await site.directory.UpsertWeddings(request, metadata=site.service("directory.write"))
    entry.couple_name = "Amara & Joana"
    request = directory_pb2.UpsertWeddingsRequest(weddings=[entry, a_wedding()])
    again = await site.directory.UpsertWeddings(request, metadata=site.service("directory.write"))
    access = await site.audience.CheckWeddingAccess(
        audience_pb2.CheckWeddingAccessRequest(wedding_ids=[entry.wedding_id]),
        metadata=site.service("internal"),
    )
    assert (first.created, again.created) == (1, 1)
    assert access.weddings[0].couple_name == "Amara & Joana"
    assert access.weddings[0].wedding_date == entry.wedding_date


async def test_bad_weddings_are_refused_and_named(site: Site) -> None:
    """A zone and days that do not exist, and a wedding that is there twice."""
    twice = a_wedding(time_zone="Mars/Olympus")
    request = directory_pb2.UpsertWeddingsRequest(
        weddings=[
            twice,
            twice,
            a_wedding(wedding_date=Date(year=2027, month=2, day=30)),
            a_wedding(wedding_date=Date(year=2027)),
        ]
    )
    refusal = await refusal_of(
        site.directory.UpsertWeddings(request, metadata=site.service("directory.write"))
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.fields) == {
        "weddings[0].time_zone",
        "weddings[1].time_zone",
        "weddings[1].wedding_id",
        "weddings[2].wedding_date",
        "weddings[3].wedding_date",
    }


async def test_a_team_is_replaced_and_the_inbox_told(site: Site) -> None:
    """Who joined and who left are counted, and the inbox has the team before the answer."""
    one, two, three = [await site.someone() for _ in range(3)]
    wedding_id = await site.wedding()
    first = await site.set_team(wedding_id, one, two)
    assert (first.added, first.removed, first.team_version, first.inbox_applied) == (2, 0, 1, True)
    second = await site.set_team(wedding_id, two, three)
    assert (second.added, second.removed, second.team_version) == (1, 1, 2)
    assert site.inbox.teams[wedding_id] == AppliedTeam(2, frozenset({two.number, three.number}))


async def test_the_same_team_again_keeps_its_version(site: Site) -> None:
    """Idempotent, in any order; and an empty team is a team."""
    one, two = await site.someone(), await site.someone()
    wedding_id = await site.wedding(one, two)
    again = await site.set_team(wedding_id, two, one)
    assert (again.added, again.removed, again.team_version) == (0, 0, 1)
    cleared = await site.set_team(wedding_id)
    assert (cleared.removed, cleared.team_version) == (2, 2)


async def test_a_team_stands_when_the_inbox_is_out_of_reach(site: Site) -> None:
    """The answer says that the inbox has not applied it; setting it again, with the inbox back, puts that right."""
    person = await site.someone()
    wedding_id = await site.wedding()
    site.inbox.is_down = True
    told = await site.set_team(wedding_id, person)
    assert (told.added, told.inbox_applied) == (1, False)
    assert (await site.count(wedding_ids=[wedding_id])).targeted == 1
    site.inbox.is_down = False
    assert (await site.set_team(wedding_id, person)).inbox_applied


async def test_an_inbox_that_is_back_is_told_of_the_last_team(site: Site) -> None:
    """Nobody has to set a team again: the inbox has it as it is now, although every message about it may be lost."""
    person = await site.someone()
    wedding_id = await site.wedding()
    site.inbox.is_down = True
    await site.set_team(wedding_id, person)
    await site.set_team(wedding_id)
    await site.set_team(wedding_id, person)
    assert wedding_id not in site.inbox.teams
    site.inbox.is_down = False
    await until(lambda: wedding_id in site.inbox.teams)
    assert site.inbox.teams[wedding_id].version == 3


async def test_unknown_users_of_a_team_are_named(site: Site) -> None:
    """Nothing is changed, and each is told by its place."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    request = directory_pb2.SetWeddingTeamRequest(
        wedding_id=wedding_id, user_ids=[str(uuid4()), person.user_id, person.user_id, str(uuid4())]
    )
    refusal = await refusal_of(
        site.directory.SetWeddingTeam(request, metadata=site.service("directory.write"))
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ("user_ids[0]", "user_ids[3]")
    assert (await site.count(wedding_ids=[wedding_id])).targeted == 1


async def test_a_team_needs_its_wedding(site: Site) -> None:
    """NOT_FOUND for one that the directory does not know."""
    request = directory_pb2.SetWeddingTeamRequest(wedding_id=ABSENT)
    refusal = await refusal_of(
        site.directory.SetWeddingTeam(request, metadata=site.service("directory.write"))
    )
    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_change_of_a_team_is_published(site: Site, streams: NatsAccess) -> None:
    """DirectoryChanged reaches the inbox's consumer, under the inbox's own login."""
    heard: list[events_pb2.DirectoryChanged] = []

    async def hear(delivery: Delivery) -> None:
        heard.append(events_pb2.DirectoryChanged.FromString(delivery.payload))

    async def bury(delivery: Delivery, reason: str) -> None:
        raise AssertionError(reason)

    settings = MessagingSettings(streams.url, "inbox", "inbox", streams.passwords.get("inbox"))
    nats = await messaging.connect(settings)
    worker = PullWorker(nats, INBOX_DIRECTORY, hear, bury=bury)
    running = asyncio.create_task(worker.run())
    # One that answers has nothing left to be told.
    site.inbox.is_down = True
    wedding_id = await site.wedding(await site.someone())
    await site.set_team(wedding_id)
    site.inbox.is_down = False
    await until(lambda: [each.team_version for each in heard if each.wedding_id == wedding_id] == [1, 2])
    await worker.stop()
    await running
    await nats.drain()


async def test_a_crash_before_the_commit_leaves_the_team(site: Site) -> None:
    """Change, version, log and outbox row are one transaction."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    with armed("preferences.team.before_commit=error") as plan:
        await refusal_of(site.set_team(wedding_id))
    assert plan.hits["preferences.team.before_commit"] == 1
    assert (await site.count(wedding_ids=[wedding_id])).targeted == 1
    assert (await site.set_team(wedding_id, person)).team_version == 1


async def test_a_change_of_role_counts_for_the_very_next_answer(site: Site) -> None:
    """Role and tier move at once, and so does what the role may do."""
    person, other = await site.someone(role=a_word("role")), await site.someone()
    assert (await site.count(roles=[person.entry.role])).targeted == 1
    before = person.entry.role
    person.entry.role, person.entry.tier = a_word("role"), a_word("tier")
    await site.upsert(person.entry)
    assert (await site.count(roles=[before])).targeted == 0
    assert (await site.count(roles=[person.entry.role])).targeted == 1
    assert (await site.count(tiers=[person.entry.tier])).targeted == 1
    person.entry.role = "admin"
    await site.upsert(person.entry)
    assert (await _get(site, other.user_id, site.person(person.user_id))).number == other.number


async def test_what_the_directory_knows_survives_a_restart(site: Site) -> None:
    """The index is rebuilt from the tables."""
    person = await site.someone(role=a_word("role"))
    wedding_id = await site.wedding(person)
    await site.restart()
    request = audience_pb2.LookupRecipientsRequest(user_ids=[person.user_id], wedding_ids=[wedding_id])
    found = await site.audience.LookupRecipients(request, metadata=site.service("internal"))
    assert [(each.number, each.role) for each in found.recipients] == [(person.number, person.entry.role)]
    assert [Audience.from_bytes(each.members).to_list() for each in found.teams] == [[person.number]]
