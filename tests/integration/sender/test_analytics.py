"""GetAnalytics: what stood at the end of each day, by broadcast, type and priority, and who is told."""

from datetime import timedelta
from itertools import chain
from uuid import uuid4

import grpc
import pytest
from google.type.date_pb2 import Date
from wedsync.broadcast.v1 import common_pb2

from tests.integration.sender.counted import (
    BROADCAST,
    DAY,
    PRIORITY,
    TYPE,
    TYPES,
    Counted,
    People,
    a_date,
    keep,
    page,
    pages,
    this_day,
    told,
)
from tests.integration.sender.site import Metadata, ServingSite, Site
from tests.integration.shared.edge import refusal_of


async def test_a_broadcast_has_a_row_for_each_day_on_which_something_changed(site: Site) -> None:
    """The newest first, with its type and priority, its rates, and what a reader took on average."""
    today = this_day()
    _, admin = site.person("admin")
    counted = Counted(
        "billing", {today - 3 * DAY: People(10, 8), today - DAY: People(10, 8, 2, 1, 1, 600)}, priority=2
    )
    await keep(site, [counted])
    last, first = (await page(site, admin)).rows
    assert told(last) == (today - DAY, str(counted.broadcast_id), People(10, 8, 2, 1, 1, 600))
    assert (last.type, last.priority) == ("form.locked", common_pb2.PRIORITY_HIGH)
    assert (last.delivery_rate, last.engagement_rate) == (0.8, 0.25)
    assert last.average_time_to_read.ToTimedelta() == timedelta(minutes=5)
    assert told(first)[2] == People(10, 8)
    assert (first.HasField("average_time_to_read"), first.HasField("engagement_rate")) == (False, True)


async def test_what_would_divide_by_nothing_is_absent(site: Site) -> None:
    """Nobody was meant, or nobody reached."""
    today = this_day()
    _, admin = site.person("admin")
    await keep(
        site, [Counted("a", {today: People()}), Counted("a", {today - DAY: People(3)}, type="trial.ending")]
    )
    unreached, unmeant = (
        await page(site, admin, TYPE, first_day=a_date(today), last_day=a_date(today))
    ).rows[::-1]
    assert (unmeant.HasField("delivery_rate"), unmeant.HasField("engagement_rate")) == (False, False)
    assert (unreached.delivery_rate, unreached.HasField("engagement_rate")) == (0, False)


async def test_a_type_has_the_sum_of_what_stood_every_day(site: Site) -> None:
    """Also on days on which nothing changed, because a broadcast's last row stands for all days since."""
    today = this_day()
    _, admin = site.person("admin")
    await keep(
        site,
        [
            Counted(
                "a", {today - 40 * DAY: People(10, 8, 1, 0, 0, 60), today - DAY: People(10, 9, 3, 1, 1, 300)}
            ),
            Counted("a", {today - 2 * DAY: People(5, 5, 1, 1, 0, 40)}, priority=1),
        ],
    )
    days = {"first_day": a_date(today - 3 * DAY), "last_day": a_date(today)}
    by_type = [told(row) for row in (await page(site, admin, TYPE, **days)).rows]
    assert by_type == [
        (today, "form.locked", People(15, 14, 4, 2, 1, 340)),
        (today - DAY, "form.locked", People(15, 14, 4, 2, 1, 340)),
        (today - 2 * DAY, "form.locked", People(15, 13, 2, 1, 0, 100)),
        (today - 3 * DAY, "form.locked", People(10, 8, 1, 0, 0, 60)),
    ]
    by_priority = [told(row) for row in (await page(site, admin, PRIORITY, **days)).rows]
    assert by_priority[:2] == [
        (today, "1", People(5, 5, 1, 1, 0, 40)),
        (today, "3", People(10, 9, 3, 1, 1, 300)),
    ]
    assert [(day, about) for day, about, _ in by_priority[-2:]] == [
        (today - 2 * DAY, "3"),
        (today - 3 * DAY, "3"),
    ]


async def test_the_last_thirty_days_are_shown_unless_others_are_asked_for(site: Site) -> None:
    """At most a year of them, and none that has not begun."""
    today = this_day()
    _, admin = site.person("admin")
    await keep(site, [Counted("a", {today - 400 * DAY: People(1)})])
    shown = [told(row)[0] for row in (await page(site, admin, TYPE)).rows]
    assert shown == [today - n * DAY for n in range(30)]
    year = chain(*await pages(site, admin, TYPE, 100, first_day=a_date(today - 365 * DAY)))
    assert [told(row)[0] for row in year] == [today - n * DAY for n in range(366)]
    ahead = await page(site, admin, TYPE, first_day=a_date(today), last_day=a_date(today + 300 * DAY))
    assert [told(row)[0] for row in ahead.rows] == [today]


async def test_it_is_said_which_days_will_not_change_any_more(site: ServingSite) -> None:
    """Up to yesterday, unless there is a broadcast that is not counted so far."""
    today = this_day()
    _, admin = site.person("admin")
    await site.admin.execute("DELETE FROM sender.tallies")
    sent = await site.send(admin)
    await site.plan(sent.broadcast.broadcast_id)
    assert (await page(site, admin)).counted_through == a_date(today - DAY)
    await site.admin.execute("UPDATE sender.tallies SET next_day = $1, due_at = 'infinity'", today - 4 * DAY)
    assert (await page(site, admin)).counted_through == a_date(today - 5 * DAY)
    await site.admin.execute("DELETE FROM sender.tallies")
    assert (await page(site, admin)).counted_through == a_date(today - DAY)


async def test_requests_that_break_a_rule_are_told_every_field(site: Site) -> None:
    """Those of the contract and those of the calendar together."""
    today = this_day()
    _, admin = site.person("admin")
    refusal = await refusal_of(
        page(
            site,
            admin,
            group=0,
            first_day=Date(year=2027, month=2, day=30),
            last_day=Date(year=2027, month=5),
            broadcast_ids=["x"],
            type="Wedding",
            priorities=[9],
            created_by="x" * 65,
            wedding_id="wedding-1",
            page_size=1001,
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refusal.fields) == {
        "group",
        "first_day",
        "last_day",
        "broadcast_ids[0]",
        "type",
        "priorities[0]",
        "created_by",
        "wedding_id",
        "page_size",
    }
    for days in (
        {"first_day": a_date(today), "last_day": a_date(today - DAY)},
        {"first_day": a_date(today - 366 * DAY), "last_day": a_date(today)},
        {"first_day": a_date(today - 366 * DAY)},
    ):
        assert (await refusal_of(page(site, admin, **days))).fields == ("last_day",)
    too_many = await refusal_of(page(site, admin, broadcast_ids=[str(uuid4())] * 101))
    assert too_many.fields == ("broadcast_ids",)


async def test_a_page_token_is_good_for_its_query_and_caller_only(site: Site) -> None:
    """INVALID_PAGE_TOKEN otherwise."""
    today = this_day()
    _, admin = site.person("admin")
    await keep(site, [Counted("a", {today: People(1)}, type=type_) for type_ in TYPES])
    token = (await page(site, admin, TYPE, page_size=1)).next_page_token
    assert len((await page(site, admin, TYPE, page_token=token)).rows) == 2
    for caller, group, request in (
        (site.person("admin")[1], TYPE, {}),
        (admin, PRIORITY, {}),
        (admin, TYPE, {"type": "wedding."}),
        (admin, TYPE, {"first_day": a_date(today)}),
    ):
        refusal = await refusal_of(page(site, caller, group, page_token=token, **request))
        assert (refusal.reason, refusal.fields) == ("INVALID_PAGE_TOKEN", ("page_token",))


async def test_each_is_told_of_what_is_theirs_to_see(site: ServingSite) -> None:
    """Alone and in sums: a coordinator's have nothing in them of weddings on whose team they are not just then."""
    today = this_day()
    author, coordinator = site.person("coordinator")
    teammate, on_the_team = site.person("coordinator")
    wedding_id, other_id = site.wedding(author, teammate), site.wedding()
    own = Counted(author, {today: People(1, 1)}, wall=(wedding_id,))
    about_two = Counted("a", {today: People(20, 2)}, wall=(other_id, wedding_id))
    about_another = Counted("a", {today: People(300, 3)}, wall=(other_id,))
    about_none = Counted("b", {today: People(4000, 4)})
    await keep(site, [own, about_two, about_another, about_none])

    async def seen(caller: Metadata, **filters: object) -> int:
        """How many were targeted by what somebody sees, which is the same by whatever it is grouped."""
        sums = set()
        for group in (BROADCAST, TYPE, PRIORITY):
            answer = await page(
                site, caller, group, first_day=a_date(today), last_day=a_date(today), **filters
            )
            sums.add(sum(row.targeted for row in answer.rows))
        return sums.pop() if len(sums) == 1 else -1

    for caller, targeted in (
        (site.person("admin")[1], 4321),
        (site.service("broadcast.read"), 4321),
        (coordinator, 21),
        (on_the_team, 21),
        (site.person("coordinator")[1], 0),
    ):
        assert await seen(caller) == targeted
    # Nor does a filter tell that what they see is about a wedding of others too.
    assert (await seen(coordinator, wedding_id=wedding_id), await seen(coordinator, wedding_id=other_id)) == (
        21,
        0,
    )
    assert await seen(coordinator, created_by="b") == 0
    assert (
        await seen(coordinator, broadcast_ids=[str(about_another.broadcast_id), str(own.broadcast_id)]) == 1
    )
    site.neighbours.preferences.weddings[wedding_id].team.clear()
    assert (await seen(coordinator), await seen(on_the_team)) == (1, 0)
    for caller in (
        site.person("florist")[1],
        site.person("couple")[1],
        site.service("broadcast.send", name="b"),
        site.service("internal"),
    ):
        assert (await refusal_of(page(site, caller))).code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("group", [BROADCAST, TYPE, PRIORITY])
async def test_where_nothing_was_counted_there_are_no_rows(site: Site, group: int) -> None:
    """And one page of none."""
    await keep(site, [])
    answer = await page(site, site.person("admin")[1], group)
    assert (list(answer.rows), answer.next_page_token) == ([], "")
