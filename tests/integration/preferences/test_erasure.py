"""Whoever is erased is nobody from then on: nothing of them is left here, and the other services follow."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from wedsync.broadcast.v1 import audience_pb2, common_pb2, directory_pb2, preferences_pb2, sender_pb2

from services.preferences.erasing import ErasureFollower
from services.preferences.privacy_store import ErasureStore
from shared.replays import OnceOnly
from tests.integration.preferences.erasures import edited, erase, left_of, rows_of, settled
from tests.integration.preferences.site import Metadata, Site, Someone, a_person
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

Code = grpc.StatusCode
PRIVACY = "privacy"


async def test_nothing_but_a_number_is_left(site: Site) -> None:
    """Name, addresses, settings, teams and the user id itself are gone with the answer."""
    person, _ = await edited(site)
    answer = await erase(site, person)
    assert list(answer.pending_services) == []
    row = await site.admin.fetchrow("SELECT * FROM preferences.recipients WHERE number = $1", person.number)
    kept = {name: row[name] for name in ("display_name", "role", "user_type", "tier", "time_zone")}
    assert kept == {
        "display_name": "Erased",
        "role": "erased",
        "user_type": "staff",
        "tier": "erased",
        "time_zone": "UTC",
    }
    assert (row["email"], row["phone"], row["user_id"] == UUID(person.user_id)) == (None, None, False)
    assert set((await left_of(site, person.number)).values()) == {0}
    await settled(site)
    assert await rows_of(site, "requests", caller=person.user_id) == 0


async def test_who_is_erased_is_unknown_to_every_call(site: Site) -> None:
    """Their token is still good, and worth as much as that of somebody whom nobody knows."""
    person, _ = await edited(site)
    stranger = str(uuid4())
    await erase(site, person)
    refusals = []
    for user_id in (person.user_id, stranger):
        metadata = site.person(user_id)
        calls = (
            site.preferences.GetPreferences(preferences_pb2.GetPreferencesRequest(), metadata=metadata),
            site.preferences.UpdatePreferences(
                preferences_pb2.UpdatePreferencesRequest(
                    preferences=preferences_pb2.Preferences(critical_only=True)
                ),
                metadata=metadata,
            ),
            site.directory.GetRecipient(
                directory_pb2.GetRecipientRequest(user_id=user_id), metadata=metadata
            ),
            site.directory.ExportRecipient(
                directory_pb2.ExportRecipientRequest(user_id=user_id), metadata=metadata
            ),
            site.directory.EraseRecipient(
                directory_pb2.EraseRecipientRequest(user_id=user_id), metadata=metadata
            ),
        )
        refusals.append([await refusal_of(each) for each in calls])
    assert refusals[0] == refusals[1]
    assert {each.code for each in refusals[0]} == {Code.NOT_FOUND}


async def test_they_are_in_no_audience_any_more(site: Site) -> None:
    """Neither by their id, by role, by tier nor among everyone; and what was meant for them is decided anew."""
    person, wedding_id = await edited(site, role="violinist", tier="starter")
    before = await site.resolve_users([person])
    assert before.outcomes("in_app")
    await erase(site, person)
    by_id = await site.count(user_ids=[person.user_id])
    assert (by_id.targeted, by_id.unknown_user_ids) == (0, 1)
    assert (await site.count(roles=["violinist"])).targeted == 0
    everyone = await site.resolve(common_pb2.Targeting(everyone=True))
    assert person.number not in everyone.outcomes("in_app")
    again = await site.reevaluate([person.number], before)
    assert again.outcomes("in_app") == {person.number: "suppressed:erased"}
    found = await site.audience.LookupRecipients(
        audience_pb2.LookupRecipientsRequest(user_ids=[person.user_id], wedding_ids=[wedding_id]),
        metadata=site.service("internal"),
    )
    assert list(found.recipients) == []


async def test_the_inbox_learns_that_they_left_their_teams(site: Site) -> None:
    """The wall there is the directory's, also when it could not be reached at that moment."""
    person, wedding_id = await edited(site)
    assert person.number in site.inbox.teams[wedding_id].members
    site.inbox.is_down = True
    assert list((await erase(site, person)).pending_services) == ["inbox"]
    site.inbox.is_down = False
    await until_equal(False, lambda: _is_on_team(site, person, wedding_id))


async def _is_on_team(site: Site, person: Someone, wedding_id: str) -> bool:
    return person.number in site.inbox.teams[wedding_id].members


@pytest.mark.parametrize("away", ["inbox", "sender"])
async def test_an_outage_leaves_nothing_behind(site: Site, away: str) -> None:
    """The answer says who has not followed yet; it does once it can be reached, and the user id goes with that."""
    person = await site.someone()
    service = site.inbox if away == "inbox" else site.inbox.sender
    service.is_down = True
    assert list((await erase(site, person)).pending_services) == [away]
    assert person.user_id not in service.erased
    service.is_down = False
    await settled(site)
    assert person.user_id in site.inbox.erased
    assert person.user_id in site.inbox.sender.erased
    assert await rows_of(site, "erasures", user_id=person.user_id) == 0


async def test_each_service_is_told_twice(site: Site) -> None:
    """At least: what had found the person before may have written after the first time."""
    person = await site.someone()
    await erase(site, person)
    assert site.inbox.erased[person.user_id] >= 1
    await settled(site)
    assert min(site.inbox.erased[person.user_id], site.inbox.sender.erased[person.user_id]) >= 2


async def test_one_that_always_fails_is_in_nobodys_way(site: Site) -> None:
    """It is told of again behind the others, and they are told while it fails."""
    stuck, other = await site.someone(), await site.someone()
    site.inbox.sender.refused.add(stuck.user_id)
    assert list((await erase(site, stuck)).pending_services) == ["sender"]
    await erase(site, other)

    async def times_told() -> bool:
        return site.inbox.sender.erased[other.user_id] >= 2

    await until_equal(True, times_told)
    assert await rows_of(site, "erasures", user_id=stuck.user_id, service="sender") == 1
    site.inbox.sender.refused.clear()
    await settled(site)
    assert site.inbox.sender.erased[stuck.user_id] >= 2


async def test_an_upsert_does_not_bring_them_back(site: Site) -> None:
    """Whoever feeds the directory may name them for ever: it answers 0, and takes in the others of the call."""
    person, other = await site.someone(), a_person()
    await erase(site, person)
    numbers = await site.upsert(person.entry, other)
    assert (numbers[0], numbers[1] > 0) == (0, True)
    known = directory_pb2.GetRecipientRequest(user_id=person.user_id)
    refused = await refusal_of(site.directory.GetRecipient(known, metadata=site.service("directory.read")))
    assert refused.code is Code.NOT_FOUND
    assert await rows_of(site, "recipients", user_id=person.user_id) == 0


async def test_a_feed_that_still_has_them_as_an_admin_goes_on(site: Site) -> None:
    """Without the right to give that role: they get none, and the others of the call are written."""
    admin, other = await site.someone(role="admin"), a_person()
    await erase(site, admin)
    people = directory_pb2.UpsertRecipientsRequest(recipients=[admin.entry, other])
    answer = await site.directory.UpsertRecipients(people, metadata=site.service("directory.write"))
    assert (answer.numbers[0], answer.numbers[1] > 0, answer.created) == (0, True, 1)
    people.recipients.append(a_person(role="admin"))
    refused = await refusal_of(
        site.directory.UpsertRecipients(people, metadata=site.service("directory.write"))
    )
    assert refused.code is Code.PERMISSION_DENIED


async def test_a_team_list_that_still_names_them_takes_others_off(site: Site) -> None:
    """They are left out of it, and somebody else who is no longer named stops seeing the wedding."""
    gone, leaving, staying = await site.someone(), await site.someone(), await site.someone()
    wedding_id = await site.wedding(gone, leaving, staying)
    await erase(site, gone)
    answer = await site.set_team(wedding_id, gone, staying)
    assert (answer.added, answer.removed, answer.inbox_applied) == (0, 1, True)
    assert site.inbox.teams[wedding_id].members == {staying.number}


async def test_a_team_list_with_somebody_never_known_is_refused_by_their_name_alone(site: Site) -> None:
    """Who was erased stands before them in the list, and is not what is wrong with it."""
    gone, staying = await site.someone(), await site.someone()
    wedding_id = await site.wedding(gone, staying)
    await erase(site, gone)
    stranger = Someone(str(uuid4()), 0, a_person())
    refused = await refusal_of(site.set_team(wedding_id, gone, stranger))
    assert (refused.code, refused.fields) == (Code.INVALID_ARGUMENT, ("user_ids[1]",))


async def test_the_audit_log_names_who_was_erased_and_by_whom(site: Site) -> None:
    """It is told of the erasure and of each team by the true user id, and not of a role that nobody has."""
    admin = await site.someone(role="admin")
    person, wedding_id = await edited(site, role="coordinator")
    await erase(site, person, site.person(admin.user_id))
    await until_equal(0, lambda: site.admin.fetchval("SELECT count(*) FROM preferences.audit_events"))
    events = [each for each in site.inbox.sender.events.values() if each.actor == admin.user_id]
    assert [(each.action, each.user_id, each.wedding_id) for each in events] == [
        (sender_pb2.AUDIT_ACTION_TEAM_LEFT, person.user_id, wedding_id),
        (sender_pb2.AUDIT_ACTION_ERASED, person.user_id, ""),
    ]


async def test_a_repeated_call_is_answered_as_it_was(site: Site) -> None:
    """Also for who has erased themselves, and is nobody by then; without an id there is nobody to be erased."""
    person, request_id = await site.someone(), str(uuid4())
    first = await erase(site, person, request_id=request_id)
    assert await erase(site, person, request_id=request_id) == first
    assert (await refusal_of(erase(site, person, request_id=str(uuid4())))).code is Code.NOT_FOUND
    other = directory_pb2.EraseRecipientRequest(user_id=str(uuid4()), request_id=request_id)
    refused = await refusal_of(site.directory.EraseRecipient(other, metadata=site.person(person.user_id)))
    assert refused.code is Code.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("where", "step"), [(ErasureStore, "erase"), (ErasureFollower, "tell_of"), (OnceOnly, "finish")]
)
async def test_a_call_that_lost_its_answer_is_finished_by_its_repetition(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: type, step: str
) -> None:
    """Whatever had happened by then, in the transaction or after it, the person is gone once and for good."""
    person, request_id = await site.someone(), str(uuid4())

    async def done_and_lost(*arguments: object, **options: object) -> None:
        await whole(*arguments, **options)
        raise RuntimeError("lost")

    whole = getattr(where, step)
    with monkeypatch.context() as patch:
        patch.setattr(where, step, done_and_lost)
        assert (await refusal_of(erase(site, person, request_id=request_id))).code is Code.INTERNAL
    answer = await erase(site, person, request_id=request_id)
    assert list(answer.pending_services) == []
    await settled(site)
    await until_equal(0, lambda: site.admin.fetchval("SELECT count(*) FROM preferences.audit_events"))
    told = [each for each in site.inbox.sender.events.values() if each.user_id == person.user_id]
    assert [each.action for each in told] == [sender_pb2.AUDIT_ACTION_ERASED]


async def _refused(site: Site, metadata: Metadata, who: Someone) -> set[Code]:
    exports = directory_pb2.ExportRecipientRequest(user_id=who.user_id)
    return {
        (await refusal_of(erase(site, who, metadata))).code,
        (await refusal_of(site.directory.ExportRecipient(exports, metadata=metadata))).code,
    }


async def test_people_and_coordinators_may_erase_and_export_themselves_alone(site: Site) -> None:
    """Not even whom they work with: to them, others do not exist."""
    person, coordinator = await site.someone(), await site.someone(role="coordinator")
    await site.wedding(person, coordinator)
    assert await _refused(site, site.person(coordinator.user_id), person) == {Code.NOT_FOUND}
    assert await _refused(site, site.person(person.user_id), coordinator) == {Code.NOT_FOUND}
    assert await _refused(site, site.service("directory.write"), person) == {Code.PERMISSION_DENIED}
    for metadata in (site.service(PRIVACY), site.person((await site.someone(role="admin")).user_id)):
        assert (await erase(site, await site.someone(), metadata)).HasField("erase_time")


async def test_edits_that_race_with_an_erasure_leave_nothing(site: Site) -> None:
    """Whichever comes first: a person who is gone has no settings and no answers, and is refused from then on."""
    for _ in range(5):
        person = await site.someone()
        edits = [
            site.preferences.UpdatePreferences(
                preferences_pb2.UpdatePreferencesRequest(
                    request_id=str(uuid4()),
                    preferences=preferences_pb2.Preferences(critical_only=bool(turn % 2)),
                    update_mask={"paths": ["critical_only"]},
                ),
                metadata=site.person(person.user_id),
            )
            for turn in range(12)
        ]
        results = await asyncio.gather(*edits[:6], erase(site, person), *edits[6:], return_exceptions=True)
        codes = {each.code() for each in results if isinstance(each, grpc.aio.AioRpcError)}
        assert codes <= {Code.NOT_FOUND, Code.ABORTED}
        assert set((await left_of(site, person.number)).values()) == {0}
        await settled(site)
        assert await rows_of(site, "requests", caller=person.user_id) == 0


async def test_upserts_and_teams_that_race_with_an_erasure_bring_nobody_back(site: Site) -> None:
    """They take turns with it, and find somebody known or somebody unknown."""
    for _ in range(3):
        person = await site.someone()
        wedding_id = await site.wedding()
        await asyncio.gather(
            *(site.upsert(a_person(user_id=person.user_id, display_name=f"Petra {n}")) for n in range(4)),
            site.set_team(wedding_id, person),
            erase(site, person),
            *(site.upsert(a_person(user_id=person.user_id, display_name=f"Petra {n}")) for n in range(4)),
            site.set_team(wedding_id, person),
            return_exceptions=True,
        )
        assert set((await left_of(site, person.number)).values()) == {0}
        name = "SELECT display_name FROM preferences.recipients WHERE number = $1"
        assert await site.admin.fetchval(name, person.number) == "Erased"
        assert await rows_of(site, "recipients", user_id=person.user_id) == 0


async def test_two_who_erase_the_same_person_do_it_once(site: Site) -> None:
    """One of them finds nobody there."""
    person = await site.someone()
    results = await asyncio.gather(
        erase(site, person), erase(site, person, site.service(PRIVACY)), return_exceptions=True
    )
    refused = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
    assert [each.code() for each in refused] == [Code.NOT_FOUND]


async def test_a_restart_goes_on_where_the_process_ended(site: Site) -> None:
    """What is to be told is on record."""
    person = await site.someone()
    site.inbox.is_down = site.inbox.sender.is_down = True
    assert set((await erase(site, person)).pending_services) == {"inbox", "sender"}
    site.inbox.is_down = site.inbox.sender.is_down = False
    await site.restart()
    await settled(site)
    assert {person.user_id} <= site.inbox.erased.keys() & site.inbox.sender.erased.keys()


async def test_no_statement_of_the_worker_gives_a_number_to_another_user(site: Site) -> None:
    """A user id is replaced when its person goes, and never before or after."""
    person, gone = await site.someone(), await site.someone()
    await erase(site, gone)
    statement = "UPDATE preferences.recipients SET user_id = gen_random_uuid() WHERE number = $1"
    for number in (person.number, gone.number):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only when its person is erased"):
            await site.admin.execute(statement, number)
