"""ListBroadcasts: who sees what, in which order, page by page."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID, uuid4

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wedsync.broadcast.v1 import common_pb2, sender_pb2

from tests.integration.sender.records import NOON, Recorded, forget_all, put_on_record
from tests.integration.sender.site import Metadata, ServingSite, Site, a_send, ahead
from tests.integration.shared.edge import refusal_of

STATES = ("pending", "dispatching", "sent", "failed", "cancelled")
TYPES = ("form.locked", "feature.released", "wedding.emergency", "wedding.cancelled")
LISTED_STATES = {
    state: common_pb2.BroadcastState.Value(f"BROADCAST_STATE_{state.upper()}") for state in STATES
}


async def listed(site: Site, caller: Metadata, **request: object) -> sender_pb2.ListBroadcastsResponse:
    """One page."""
    message = sender_pb2.ListBroadcastsRequest(**request)  # type: ignore[arg-type]
    return await site.stub.ListBroadcasts(message, metadata=caller)


async def ids(site: Site, caller: Metadata, **request: object) -> list[str]:
    """The ids on one page."""
    return [each.broadcast_id for each in (await listed(site, caller, **request)).broadcasts]


async def pages(site: Site, caller: Metadata, page_size: int, **request: object) -> list[list[str]]:
    """The ids on all pages, one after the other."""
    found: list[list[str]] = []
    token = ""
    while True:
        page = await listed(site, caller, page_size=page_size, page_token=token, **request)
        found.append([each.broadcast_id for each in page.broadcasts])
        token = page.next_page_token
        if not token:
            return found


def interval(start: datetime | None, end: datetime | None) -> Interval | None:
    """From and before, either of which may be open."""
    if start is None and end is None:
        return None
    return Interval(start_time=_timestamp(start), end_time=_timestamp(end))


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


async def test_the_newest_is_on_top_whole(site: Site) -> None:
    """As GetBroadcast shows it; what is scheduled for next week was accepted now."""
    _, admin = site.person("admin")
    first = (await site.send(admin, a_send(scheduled_for=ahead(days=7)))).broadcast
    second = (await site.send(admin)).broadcast
    found = (await listed(site, admin, page_size=2)).broadcasts
    assert [each.broadcast_id for each in found] == [second.broadcast_id, first.broadcast_id]
    request = sender_pb2.GetBroadcastRequest(broadcast_id=first.broadcast_id)
    assert found[1] == (await site.stub.GetBroadcast(request, metadata=admin)).broadcast


async def test_fifty_a_page_and_a_hundred_at_most(site: ServingSite) -> None:
    """Pages are full, follow one another without gap or repetition, and the last one has no token."""
    author, coordinator = site.person("coordinator")
    # Most of them of one moment, so that only their ids tell them apart.
    recorded = [Recorded(author, NOON + timedelta(seconds=number // 50)) for number in range(120)]
    await put_on_record(site.admin, recorded)
    by_hundred = await pages(site, coordinator, 100)
    assert [len(page) for page in by_hundred] == [100, 20]
    assert [len(page) for page in await pages(site, coordinator, 0)] == [50, 50, 20]
    assert [len(page) for page in await pages(site, coordinator, 60)] == [60, 60]
    expected = sorted(recorded, key=lambda each: (each.created_at, each.broadcast_id), reverse=True)
    assert [str(each.broadcast_id) for each in expected] == list(chain(*by_hundred))


async def test_pages_stay_as_they_are_while_more_is_sent(site: ServingSite) -> None:
    """What is accepted between two pages is on neither of those that follow."""
    author, coordinator = site.person("coordinator")
    recorded = [Recorded(author, NOON + timedelta(seconds=number)) for number in range(4)]
    await put_on_record(site.admin, recorded)
    first = await listed(site, coordinator, page_size=2)
    await put_on_record(site.admin, [Recorded(author, NOON + timedelta(hours=1))])
    second = await ids(site, coordinator, page_size=2, page_token=first.next_page_token)
    assert second == [str(each.broadcast_id) for each in recorded[1::-1]]


async def test_a_page_token_is_good_for_its_query_and_caller_only(site: ServingSite) -> None:
    """Another filter, another caller, a changed or invented token: INVALID_PAGE_TOKEN, which names the field."""
    author, coordinator = site.person("coordinator")
    await put_on_record(site.admin, [Recorded(author) for _ in range(3)])
    token = (await listed(site, coordinator, page_size=1)).next_page_token
    assert len(await ids(site, coordinator, page_size=2, page_token=token)) == 2
    for caller, request in (
        (site.person("coordinator")[1], {}),
        (site.service("broadcast.read"), {}),
        (coordinator, {"type": "form.locked"}),
        (coordinator, {"states": [common_pb2.BROADCAST_STATE_SENT]}),
        (coordinator, {"create_time": interval(NOON, None)}),
    ):
        refusal = await refusal_of(listed(site, caller, page_token=token, **request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
        assert refusal.fields == ("page_token",)
    for wrong in (token[:-1], token + "=", "x", "/" * 512):
        refusal = await refusal_of(listed(site, coordinator, page_token=wrong))
        assert refusal.reason == "INVALID_PAGE_TOKEN"


async def test_filters_that_break_a_rule_are_all_named(site: Site) -> None:
    """Each broken field at once."""
    refusal = await refusal_of(
        listed(
            site,
            site.person("admin")[1],
            states=[0, 99],
            type="Wedding",
            priorities=[7],
            created_by="x" * 65,
            wedding_id="wedding-1",
            create_time=interval(NOON, NOON - timedelta(seconds=1)),
            scheduled_for=interval(NOON, NOON - timedelta(days=1)),
            page_size=101,
            page_token="x" * 513,
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refusal.fields) == {
        "states[0]",
        "states[1]",
        "type",
        "priorities[0]",
        "created_by",
        "wedding_id",
        "create_time",
        "scheduled_for",
        "page_size",
        "page_token",
    }


async def test_each_sees_what_is_theirs_to_see(site: ServingSite) -> None:
    """By sender, team, role and scope; a filter widens nothing, and a wedding of others finds only what they sent."""
    await forget_all(site.admin)
    author, coordinator = site.person("coordinator")
    teammate, on_the_team = site.person("coordinator")
    florist, on_the_team_without_a_role = site.person("florist")
    wedding_id, other_id = site.wedding(author, teammate, florist), site.wedding()
    own = Recorded(author, wall=(wedding_id,))
    about_two = Recorded(site.person("admin")[0], wall=(other_id, wedding_id))
    about_another = Recorded(site.person("admin")[0], wall=(other_id,))
    of_forms = Recorded("forms")
    await put_on_record(site.admin, [own, about_two, about_another, of_forms])
    everything, both, none = {own, about_two, about_another, of_forms}, {wedding_id, other_id}, set[str]()
    for caller, seen, known in (
        (site.person("admin")[1], everything, both),
        (site.service("broadcast.read"), everything, both),
        (coordinator, {own, about_two}, {wedding_id}),
        (on_the_team, {own, about_two}, {wedding_id}),
        (site.person("coordinator")[1], set[Recorded](), none),
        (site.service("broadcast.send", name="forms"), {of_forms}, none),
        (site.service("broadcast.send:form.locked", name="forms"), {of_forms}, none),
        (site.service("broadcast.send", name="billing"), set(), none),
    ):
        assert set(await ids(site, caller)) == {str(each.broadcast_id) for each in seen}
        for wedding in (wedding_id, other_id, str(uuid4())):
            about = {str(each.broadcast_id) for each in seen if wedding in known & set(each.wall)}
            assert set(await ids(site, caller, wedding_id=wedding)) == about
        for name in (author, "forms"):
            by = {str(each.broadcast_id) for each in seen if each.created_by == name}
            assert set(await ids(site, caller, created_by=name)) == by
    for caller in (on_the_team_without_a_role, site.person("couple")[1], site.service("internal")):
        assert (await refusal_of(listed(site, caller))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_coordinator_off_the_team_loses_its_broadcasts_at_once(site: ServingSite) -> None:
    """All but those that they sent themselves; put back on, they have them again, also in the middle of the pages."""
    author, coordinator = site.person("coordinator")
    wedding_id, kept_id = site.wedding(author), site.wedding(author)
    own = Recorded(author, NOON, wall=(wedding_id,))
    about = [
        Recorded("billing", NOON + timedelta(seconds=number), wall=(wedding_id,)) for number in range(1, 4)
    ]
    kept = Recorded("billing", NOON - timedelta(days=1), wall=(kept_id, wedding_id))
    await put_on_record(site.admin, [own, *about, kept])
    first = await listed(site, coordinator, page_size=2)
    assert [each.broadcast_id for each in first.broadcasts] == [
        str(each.broadcast_id) for each in about[:0:-1]
    ]
    team = site.neighbours.preferences.weddings[wedding_id].team
    team.clear()
    left = [str(own.broadcast_id), str(kept.broadcast_id)]
    assert await ids(site, coordinator) == left
    assert await ids(site, coordinator, page_token=first.next_page_token) == left
    assert await ids(site, coordinator, wedding_id=wedding_id) == [str(own.broadcast_id)]
    assert await ids(site, coordinator, wedding_id=kept_id) == [str(kept.broadcast_id)]
    team.add(author)
    assert len(await ids(site, coordinator)) == 5


async def test_somebody_who_is_no_coordinator_any_more_sees_nothing(site: ServingSite) -> None:
    """Not even what they sent."""
    author, coordinator = site.person("coordinator")
    await put_on_record(site.admin, [Recorded(author)])
    assert len(await ids(site, coordinator)) == 1
    site.neighbours.preferences.people[author] = "photographer"
    assert (await refusal_of(listed(site, coordinator))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_without_the_directory_nobody_is_shown_anything(site: Site) -> None:
    """Who is on which team cannot be guessed. A service account's list needs no team."""
    _, coordinator = site.person("coordinator")
    site.neighbours.preferences.is_down = True
    refusal = await refusal_of(listed(site, coordinator))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    await listed(site, site.service("broadcast.read"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter twice: as it is asked, and as a question about one broadcast."""

    request: dict[str, object]
    holds: Callable[[Recorded], bool]

    def names(self, weddings: set[str]) -> bool:
        """Whether the wedding that is asked for, if any, is one of these."""
        return {self.request.get("wedding_id")} <= {None, *weddings}


def a_filter(dice: random.Random, authors: list[str], weddings: list[str]) -> Wanted:
    """Any filter, most often of one or two parts."""
    parts: list[tuple[dict[str, object], Callable[[Recorded], bool]]] = []
    states, type_ = dice.sample(STATES, dice.randint(1, 3)), dice.choice((*TYPES, "wedding.", "nothing."))
    priorities, author, wedding = dice.sample(range(1, 5), 2), dice.choice(authors), dice.choice(weddings)
    start, end = sorted(NOON + timedelta(seconds=dice.randint(-3, 8)) for _ in range(2))
    first, last = dice.choice(((start, end), (None, end), (start, None)))

    def within(moment: datetime) -> bool:
        return (first is None or moment >= first) and (last is None or moment < last)

    parts += [
        ({"states": [LISTED_STATES[each] for each in states]}, lambda each: each.state in states),
        (
            {"type": type_},
            lambda each: each.type == type_ or (type_[-1] == "." and each.type.startswith(type_)),
        ),
        ({"priorities": priorities}, lambda each: each.priority in priorities),
        ({"created_by": author}, lambda each: each.created_by == author),
        ({"wedding_id": wedding}, lambda each: wedding in each.wall),
        ({"create_time": interval(first, last)}, lambda each: within(each.created_at)),
        ({"scheduled_for": interval(first, last)}, lambda each: within(each.due_at)),
    ]
    chosen = dice.sample(parts, dice.choice((0, 1, 1, 2, 3)))
    request = {name: value for part, _ in chosen for name, value in part.items()}
    return Wanted(request, lambda each: all(holds(each) for _, holds in chosen))


def a_world(dice: random.Random, authors: list[str], weddings: list[str]) -> Iterable[Recorded]:
    """Broadcasts of a few moments, so that many share one."""
    for _ in range(dice.randint(0, 40)):
        created_at = NOON + timedelta(seconds=dice.randint(0, 4))
        yield Recorded(
            dice.choice(authors),
            created_at,
            dice.choice((None, created_at + timedelta(seconds=dice.randint(0, 4)))),
            dice.choice(TYPES),
            dice.randint(1, 4),
            dice.choice(STATES),
            tuple(dice.sample(weddings, dice.choice((0, 0, 1, 2)))),
            UUID(int=dice.getrandbits(128), version=4),
        )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), page_size=st.integers(1, 7))
async def test_a_list_is_what_is_theirs_sorted_and_filtered(
    site: ServingSite, seed: int, page_size: int
) -> None:
    """Whatever is there and whatever is asked, all pages together are those of a list that is sorted and filtered."""
    dice = random.Random(seed)
    await forget_all(site.admin)
    coordinator_id, coordinator = site.person("coordinator")
    weddings = [site.wedding(*([coordinator_id] if dice.random() < 0.5 else [])) for _ in range(3)]
    on_team = {each for each in weddings if site.neighbours.preferences.weddings[each].team}
    authors = [coordinator_id, site.person("admin")[0], "forms"]
    world = list(a_world(dice, authors, weddings))
    await put_on_record(site.admin, world)
    for caller, author, known in (
        (site.person("admin")[1], None, set(weddings)),
        (coordinator, coordinator_id, on_team),
        (site.service("broadcast.send", name="forms"), "forms", set[str]()),
    ):
        for wanted in (Wanted({}, lambda each: True), *(a_filter(dice, authors, weddings) for _ in range(3))):
            # What somebody sent, and while they ask about no wedding of others, what is about theirs.
            about = [each for each in world if known & set(each.wall)] if wanted.names(known) else []
            theirs = [each for each in world if author in (None, each.created_by) or each in about]
            seen = [each for each in theirs if wanted.holds(each)]
            seen.sort(key=lambda each: (each.created_at, each.broadcast_id), reverse=True)
            found = await pages(site, caller, page_size, **wanted.request)
            assert list(chain(*found)) == [str(each.broadcast_id) for each in seen]
            assert all(len(page) == page_size for page in found[:-1])
