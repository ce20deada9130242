"""Pages of an inbox, and requests that get none."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, inbox_pb2

from shared.errors import ServiceError
from tests.integration.inbox.site import Person, Site, bearer, error_of


async def refused(site: Site, person: Person, **request: object) -> ServiceError:
    """The error that a list call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.listed(person, **request)
    return error_of(caught.value)


async def test_newest_arrival_first_whatever_the_age_of_the_broadcast(site: Site) -> None:
    """What was made first and delivered last is on top."""
    amara = site.person()
    old, new = site.broadcast(), site.broadcast()
    await site.deliver(new, [amara])
    await site.deliver(old, [amara])
    assert await site.ids(amara) == [old, new]


async def test_fifty_a_page_and_a_hundred_at_most(site: Site) -> None:
    """Pages are full, and follow one another without gap or repetition."""
    amara = site.person()
    for _ in range(3):
        await asyncio.gather(*(site.send([amara]) for _ in range(35)))
    everything = await site.listed(amara, page_size=100)
    first = await site.listed(amara)
    second = await site.listed(amara, page_token=first.next_page_token)
    third = await site.listed(amara, page_token=second.next_page_token)
    assert [len(page.items) for page in (everything, first, second, third)] == [100, 50, 50, 5]
    assert third.next_page_token == ""
    pages = [item.broadcast_id for page in (first, second, third) for item in page.items]
    assert len(set(pages)) == 105
    assert pages[:100] == [item.broadcast_id for item in everything.items]
    assert {page.total_count for page in (everything, first, second, third)} == {105}


async def test_pages_stay_as_they_are_while_new_items_arrive(site: Site) -> None:
    """What arrives between two pages is on neither of those that follow."""
    amara = site.person()
    ids = [await site.send([amara]) for _ in range(6)]
    first = await site.listed(amara, page_size=3)
    newest = await site.send([amara])
    second = await site.listed(amara, page_size=3, page_token=first.next_page_token)
    assert [item.broadcast_id for item in second.items] == ids[2::-1]
    assert (second.total_count, second.unread_count) == (7, 7)
    assert (await site.ids(amara, page_size=1)) == [newest]


async def test_a_page_token_is_good_for_its_query_and_person_only(site: Site) -> None:
    """Another filter, another person, a changed or invented token: INVALID_PAGE_TOKEN. Another page size is fine."""
    amara, jonas = site.people(2)
    for _ in range(3):
        await site.send([amara, jonas])
    token = (await site.listed(amara, page_size=1)).next_page_token
    assert len((await site.listed(amara, page_size=2, page_token=token)).items) == 2
    wrong = [
        await refused(site, jonas, page_token=token),
        await refused(site, amara, page_token=token, unread_only=True),
        await refused(site, amara, page_token=token, search="plans"),
        await refused(site, amara, page_token=token, priorities=[common_pb2.PRIORITY_NORMAL]),
        await refused(site, amara, page_token=token[:-1]),
        await refused(site, amara, page_token=token + "="),
        await refused(site, amara, page_token="x"),
        await refused(site, amara, page_token="/" * 512),
    ]
    assert {error.reason_name for error in wrong} == {"INVALID_PAGE_TOKEN"}
    same = await site.listed(amara, page_token=token, priorities=[])
    assert len(same.items) == 2


async def test_requests_that_break_a_rule_are_told_every_field(site: Site) -> None:
    """Each broken field is named at once."""
    amara = site.person()
    error = await refused(
        site, amara, page_size=101, type="DROP TABLE", wedding_id="x", search="y" * 201, priorities=[0, 9]
    )
    assert error.reason_name == "INVALID_FIELD"
    assert {violation.field for violation in error.violations} == {
        "page_size",
        "type",
        "wedding_id",
        "search",
        "priorities[0]",
        "priorities[1]",
    }
    assert (await refused(site, amara, page_size=-1)).reason_name == "INVALID_FIELD"
    assert (await refused(site, amara, priorities=[1] * 5)).reason_name == "TOO_LARGE"
    assert (await refused(site, amara, search="a\0b")).reason_name == "INVALID_FIELD"


@pytest.mark.parametrize(
    "search",
    [
        "'",
        "''",
        "\\",
        "a & b | !c",
        "<->",
        "(",
        ":*",
        "%",
        "é" * 200,
        "💍",
        " \t\n",
        "a:b*",
        "--",
        "\u202e",
        "ﬁ",
        "İ",
    ],
)
async def test_odd_searches_never_fail(site: Site, search: str) -> None:
    """Quotes, operators, wildcards, marks and blanks are no syntax."""
    amara = site.person()
    await site.send([amara], title="It's a & b", message="100% (sure): *")
    await site.listed(amara, search=search)


async def test_words_are_found_without_regard_to_case_and_form(site: Site) -> None:
    """All words, in title or message; the last one may be a beginning."""
    amara = site.person()
    broadcast_id = await site.send(
        [amara], title="Straße gesperrt", message="Ballsaal ﬁrst, 14:30 Uhr; don't wait"
    )
    other = await site.send([amara], title="Rain", message="plan b, café Noël")
    for search in ("STRASSE", "gesperrt ballsaal", "first str", "14:30", "don't", "uhr wai", "ﬁrst"):
        assert await site.ids(amara, search=search) == [broadcast_id], search
    for search in ("cafe noel", "CAFÉ", "cafe\u0301 no"):
        assert await site.ids(amara, search=search) == [other], search
    for search in ("stra gesperrt", "rain ballsaal", "zzz", " ?! ", "💍"):
        assert await site.ids(amara, search=search) == [], search
    assert await site.ids(amara, search="  ") == [other, broadcast_id]


async def test_a_wedding_filter_finds_what_is_about_it(site: Site) -> None:
    """Also what is about several weddings; nothing for a wedding of others, which is no error."""
    amara = site.person()
    mine, other = site.wedding(amara), site.wedding(amara)
    one = site.about(mine)
    both = site.broadcast(type="timeline.changed", targeting=common_pb2.Targeting(wedding_ids=[mine, other]))
    for broadcast_id in (one, both, site.about(other), site.broadcast()):
        await site.deliver(broadcast_id, [amara])
    assert await site.ids(amara, wedding_id=mine.upper()) == [both, one]
    assert await site.ids(amara, wedding_id=str(uuid4())) == []


async def test_an_expired_broadcast_is_not_listed(site: Site) -> None:
    """Nor counted, nor to be had by its id."""
    amara = site.person()
    broadcast_id = await site.send([amara], expires_at={"seconds": 1_000_000_000})
    listed = await site.listed(amara)
    assert (list(listed.items), listed.unread_count, listed.total_count) == ([], 0, 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _get(site, amara, broadcast_id)
    assert error_of(caught.value).reason_name == "NOT_FOUND"


async def test_an_item_by_its_id(site: Site) -> None:
    """As it is listed; somebody else's, and one that never was, are not found in the same words."""
    amara, jonas = site.people(2)
    broadcast_id = await site.send([amara, *range(800_000, 800_020)])
    assert await _get(site, amara, broadcast_id) == (await site.listed(amara)).items[0]
    assert (await _get(site, amara, broadcast_id.upper())).broadcast_id == broadcast_id
    errors = []
    for wanted in (broadcast_id, str(uuid4())):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _get(site, jonas, wanted)
        errors.append((caught.value.code(), caught.value.details()))
    assert errors[0] == errors[1]
    assert errors[0][0] is grpc.StatusCode.NOT_FOUND


async def test_only_a_person_the_directory_knows_has_an_inbox(site: Site) -> None:
    """A stranger is refused, also when they ask again at once; once the directory knows them they have one."""
    user_id = uuid4()
    stranger = Person(user_id, 6_000_000, site.mint.mint_user_token(user_id))
    for _ in range(5):
        assert (await refused(site, stranger)).reason_name == "PERMISSION_DENIED"
    asked = [each for each in site.neighbours.directory.asked if str(user_id) in each.user_ids]
    assert len(asked) == 1


async def test_a_person_is_looked_up_once_for_good(site: Site) -> None:
    """After that their inbox needs no other service, not even on another node."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    assert await site.ids(amara) == [broadcast_id]
    site.neighbours.directory.is_down = True
    try:
        await site.restart()
        assert await site.ids(amara) == [broadcast_id]
        assert (await refused(site, site.person())).reason_name == "DEPENDENCY_UNAVAILABLE"
    finally:
        site.neighbours.directory.is_down = False


async def test_calls_without_a_good_token_are_refused(site: Site) -> None:
    """No token, rubbish, a service's: nobody but a person reads an inbox."""
    request = inbox_pb2.ListInboxItemsRequest()
    expected = [
        ("UNAUTHENTICATED", ()),
        ("UNAUTHENTICATED", bearer("x")),
        ("PERMISSION_DENIED", site.internal),
    ]
    for reason, metadata in expected:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.stub.ListInboxItems(request, metadata=metadata)
        assert error_of(caught.value).reason_name == reason


async def test_internal_calls_are_for_the_suites_own_services(site: Site) -> None:
    """A person, and a service without the scope, are refused before anything is looked at."""
    amara = site.person()
    calls = [
        (site.stub.GetEngagement, inbox_pb2.GetEngagementRequest()),
        (site.stub.ListReaders, inbox_pb2.ListReadersRequest()),
        (site.stub.RetractBroadcast, inbox_pb2.RetractBroadcastRequest()),
        (site.stub.ApplyTeamChange, inbox_pb2.ApplyTeamChangeRequest()),
    ]
    for method, request in calls:
        for metadata in (amara.metadata, site.service("inbox.connect")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request, metadata=metadata)
            assert error_of(caught.value).reason_name == "PERMISSION_DENIED"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, metadata=site.internal)
        assert error_of(caught.value).reason_name == "INVALID_FIELD"


async def _get(site: Site, person: Person, broadcast_id: str) -> inbox_pb2.InboxItem:
    request = inbox_pb2.GetInboxItemRequest(broadcast_id=broadcast_id)
    return (await site.stub.GetInboxItem(request, metadata=person.metadata)).item
