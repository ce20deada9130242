"""A change that is asked for again under its request_id is not made again, and is answered as it was the first time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from wedsync.broadcast.v1 import directory_pb2, preferences_pb2

from shared.failpoints import armed
from tests.integration.preferences.repeatable import (
    KINDS,
    WRITES,
    Change,
    create_segment,
    delete_segment,
    reset_preferences,
    set_team,
    update_preferences,
    update_segment,
    upsert_recipients,
    upsert_weddings,
)
from tests.integration.preferences.site import Site, a_person, a_wedding
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.insisting import all_at_once


@pytest.fixture(params=KINDS, ids=[kind.__name__ for kind in KINDS])
async def change(request: pytest.FixtureRequest, site: Site) -> Change:
    """One of each kind."""
    made: Change = await request.param(site)
    return made


def again(change: Change, other: Message) -> Message:
    """Another body under the same id."""
    copy = type(other)()
    copy.CopyFrom(other)
    copy.request_id = change.request.request_id  # type: ignore[attr-defined]
    return copy


async def log_length(site: Site) -> int:
    """Where the directory's log ends."""
    return int(await site.admin.fetchval("SELECT position FROM preferences.log_head"))


async def test_a_repeated_change_gets_the_first_answer(site: Site, change: Change) -> None:
    """To the byte; and what others have made of it since stays."""
    before = await change.state()
    answer = await change.ask()
    assert await change.state() != before
    await change.undo()
    head = await log_length(site)
    repeated = await change.ask()
    assert repeated.SerializeToString() == answer.SerializeToString()
    assert (await change.state(), await log_length(site)) == (before, head)


async def test_another_body_under_the_same_id_is_refused(change: Change) -> None:
    """And changes nothing; the first answer stands."""
    answer = await change.ask()
    state = await change.state()
    refusal = await refusal_of(change.ask(again(change, change.other)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refusal.fields == ("request_id",)
    assert (await change.state(), await change.ask()) == (state, answer)


async def test_first_answer_outlives_the_right(site: Site) -> None:
    """A service account that may no longer write is told what it was told; a new change it may not make."""
    change = await upsert_recipients(site)
    answer = await change.ask()
    reader = site.service("directory.read")
    assert await change.ask(metadata=reader) == answer
    refusal = await refusal_of(change.ask(change.other, metadata=reader))
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_ids_of_other_callers_and_other_methods_do_not_meet(site: Site) -> None:
    """Two service accounts may happen upon one id, and one of them use it for two methods."""
    people, weddings = await upsert_recipients(site), await upsert_weddings(site)
    await people.ask()
    await people.undo()
    await people.ask(metadata=site.service(WRITES, name="forms"))
    assert await people.state() == "Petra Horvat"
    same_id = directory_pb2.UpsertWeddingsRequest(
        request_id=people.request.request_id,  # type: ignore[attr-defined]
        weddings=weddings.request.weddings,  # type: ignore[attr-defined]
    )
    await weddings.ask(same_id)
    assert await weddings.state() == "Mira & Noor"


async def test_what_was_refused_may_be_tried_again(site: Site) -> None:
    """Once the reason has gone, under the same id."""
    person = await site.someone()
    entry = a_wedding()
    request = directory_pb2.SetWeddingTeamRequest(
        request_id=str(uuid4()), wedding_id=entry.wedding_id, user_ids=[person.user_id]
    )
    call = site.directory.SetWeddingTeam
    refusal = await refusal_of(call(request, metadata=site.service(WRITES)))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    upsert = directory_pb2.UpsertWeddingsRequest(weddings=[entry])
    await site.directory.UpsertWeddings(upsert, metadata=site.service(WRITES))
    assert (await call(request, metadata=site.service(WRITES))).added == 1
    kept = "SELECT count(*) FROM preferences.requests WHERE request_id = $1"
    stale = preferences_pb2.UpdatePreferencesRequest(
        request_id=str(uuid4()), preferences=preferences_pb2.Preferences(critical_only=True, etag="7")
    )
    update = site.preferences.UpdatePreferences(stale, metadata=site.person(person.user_id))
    assert (await refusal_of(update)).reason == "STALE_ETAG"
    assert await site.admin.fetchval(kept, stale.request_id) == 0


async def test_an_edit_that_changed_nothing_changes_nothing_later_either(site: Site) -> None:
    """It was answered: when somebody has changed what it asks for since, its repetition leaves that alone."""
    person = await site.someone()
    request = preferences_pb2.UpdatePreferencesRequest(
        request_id=str(uuid4()),
        preferences=preferences_pb2.Preferences(business=True),
        update_mask=FieldMask(paths=["business"]),
    )
    metadata = site.person(person.user_id)
    answer = await site.preferences.UpdatePreferences(request, metadata=metadata)
    assert not answer.preferences.edited
    await site.edit(person, "business", business=False)
    assert await site.preferences.UpdatePreferences(request, metadata=metadata) == answer
    assert not (await site.get(person)).business


async def test_an_answer_says_what_is_then_found(site: Site) -> None:
    """An edit is answered with the preferences as they are kept, time and etag included."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    edited = await site.edit(
        person,
        "role_settings",
        "wedding_filters",
        "quiet_hours.enabled",
        role_settings=[
            preferences_pb2.RoleSetting(role=role, muted_types=["trial.ending"])
            for role in ("venue", "florist")
        ],
        wedding_filters=[preferences_pb2.WeddingFilter(wedding_id=wedding_id, muted=True)],
    )
    assert await site.get(person) == edited


async def test_the_largest_upsert_is_repeated_whole(site: Site) -> None:
    """A thousand people: the same numbers again, kept in a few kilobytes."""
    people = [a_person() for _ in range(1_000)]
    request = directory_pb2.UpsertRecipientsRequest(request_id=str(uuid4()), recipients=people)
    answer = await site.directory.UpsertRecipients(request, metadata=site.service(WRITES))
    assert (answer.created, len(answer.numbers)) == (1_000, 1_000)
    assert await site.directory.UpsertRecipients(request, metadata=site.service(WRITES)) == answer
    kept = "SELECT octet_length(response) FROM preferences.requests WHERE request_id = $1"
    assert await site.admin.fetchval(kept, request.request_id) < 6_000


async def test_what_the_inbox_could_not_be_told_stays_so_in_the_answer(site: Site) -> None:
    """The first answer was that it could not be reached; its repetition says so too, and tells it nothing."""
    change = await set_team(site)
    site.inbox.is_down = True
    answer = await change.ask()
    site.inbox.is_down = False
    assert isinstance(answer, directory_pb2.SetWeddingTeamResponse)
    assert not answer.inbox_applied
    assert await change.ask() == answer


STEPS = [
    (upsert_recipients, "preferences.upsert"),
    (upsert_weddings, "preferences.upsert"),
    (set_team, "preferences.team"),
    (update_preferences, "preferences.edit"),
    (create_segment, "preferences.segment"),
    (update_segment, "preferences.segment"),
    (delete_segment, "preferences.segment"),
    (reset_preferences, "preferences.edit"),
]


@pytest.mark.parametrize(("kind", "step"), STEPS)
async def test_a_change_that_was_not_committed_is_made_by_its_repetition(
    site: Site, kind: Callable[[Site], Awaitable[Change]], step: str
) -> None:
    """A crash before the commit leaves nothing, the id included."""
    change = await kind(site)
    before = await change.state()
    with armed(f"{step}.before_commit=error@1"):
        assert (await refusal_of(change.ask())).code is grpc.StatusCode.INTERNAL
    assert await change.state() == before
    await change.ask()
    assert await change.state() != before


@pytest.mark.parametrize(
    ("kind", "step"),
    [*((kind, f"{step}.after_commit") for kind, step in STEPS), (set_team, "preferences.team.after_told")],
)
async def test_a_change_whose_answer_was_lost_is_not_made_again(
    site: Site, kind: Callable[[Site], Awaitable[Change]], step: str
) -> None:
    """The repetition is answered, and leaves alone what has become of the change."""
    change = await kind(site)
    before = await change.state()
    with armed(f"{step}=error@1"):
        assert (await refusal_of(change.ask())).code is grpc.StatusCode.INTERNAL
    await change.undo()
    answer = await change.ask()
    assert await change.state() == before
    if isinstance(answer, directory_pb2.SetWeddingTeamResponse):
        assert (answer.added, answer.inbox_applied) == (1, True)
    assert await change.ask() == answer


async def test_an_answer_holds_for_a_day(site: Site, change: Change) -> None:
    """A moment before it is over the repetition gets it; then the id is free, for another body too."""
    answer = await change.ask()
    older = "UPDATE preferences.requests SET at = at - $2::interval WHERE request_id = $1"
    request_id = change.request.request_id  # type: ignore[attr-defined]
    await site.admin.execute(older, request_id, timedelta(hours=23, minutes=59))
    assert await change.ask() == answer
    await site.admin.execute(older, request_id, timedelta(minutes=1))
    await change.undo()
    other = again(change, change.other)
    await change.ask(other)
    assert await change.ask(other) != answer
    assert (await refusal_of(change.ask())).reason == "REQUEST_ID_REUSED"


async def test_simultaneous_calls_with_other_bodies_are_one_change(site: Site, change: Change) -> None:
    """One of the two wins; the other learns that the id is taken."""
    head = await log_length(site)
    other = again(change, change.other)
    calls = (change.ask(other if place % 2 else None) for place in range(10))
    results = await asyncio.gather(*calls, return_exceptions=True)
    answered = [each for each in results if isinstance(each, Message)]
    lost = {each.code() for each in results if isinstance(each, grpc.aio.AioRpcError)}
    assert (len(answered), lost) == (5, {grpc.StatusCode.ALREADY_EXISTS})
    assert await log_length(site) <= head + 1


async def test_fifty_calls_with_one_id_are_one_change(site: Site, change: Change) -> None:
    """One makes it, the others get its answer; the log has it once."""
    head = await log_length(site)
    answers = await all_at_once(change.ask, 50)
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert await log_length(site) == head + 1
