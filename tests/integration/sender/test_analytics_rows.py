"""Random analytics against rows worked out one by one: by broadcast, type and priority, filtered, page by page."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from itertools import chain
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    pages,
    this_day,
    told,
)
from tests.integration.sender.site import ServingSite


def a_world(dice: random.Random, today: date, authors: list[str], weddings: list[str]) -> Iterable[Counted]:
    """Broadcasts of which something became on some days, some of them long ago."""
    for _ in range(dice.randint(0, 14)):
        targeted, people = dice.randint(0, 30), People()
        days: dict[date, People] = {}
        for days_ago in sorted(dice.sample(range(12), dice.randint(1, 5)), reverse=True):
            delivered = dice.randint(people.delivered, targeted)
            read = dice.randint(people.read, delivered)
            acknowledged, clicked = (
                dice.randint(people.acknowledged, read),
                dice.randint(people.clicked, read),
            )
            taken = people.time_to_read + 60 * (read - people.read)
            people = People(targeted, delivered, read, acknowledged, clicked, taken)
            days[today - days_ago * DAY] = people
        yield Counted(
            dice.choice(authors),
            days,
            dice.choice(TYPES),
            dice.randint(1, 4),
            tuple(dice.sample(weddings, dice.choice((0, 0, 1, 2)))),
            UUID(int=dice.getrandbits(128), version=4),
        )


def expected(counted: list[Counted], group: int, first: date, last: date) -> list[tuple[date, str, People]]:
    """The rows, worked out one by one."""
    days = [last - n * DAY for n in range((last - first).days + 1)]
    if group == BROADCAST:
        rows = [
            (day, str(each.broadcast_id), each.days[day])
            for day in days
            for each in counted
            if day in each.days
        ]
        return sorted(rows, reverse=True)
    rows = []
    for day in days:
        sums: defaultdict[str, list[People]] = defaultdict(list)
        for each in counted:
            standing = each.standing(day)
            if standing is not None:
                sums[each.type if group == TYPE else str(each.priority)].append(standing)
        rows += [(day, key, People(*map(sum, zip(*sums[key], strict=True)))) for key in sorted(sums)]
    return rows


def a_filter(
    dice: random.Random, world: list[Counted], authors: list[str], weddings: list[str]
) -> tuple[dict[str, object], Callable[[Counted], bool]]:
    """Any filter of at most two parts, as it is asked and as a question about one broadcast."""
    type_, author, wedding = dice.choice((*TYPES, "wedding.")), dice.choice(authors), dice.choice(weddings)
    priorities = dice.sample(range(1, 5), 2)
    ids = {str(each.broadcast_id) for each in dice.sample(world, min(3, len(world)))} | {str(uuid4())}
    parts: list[tuple[dict[str, object], Callable[[Counted], bool]]] = [
        (
            {"type": type_},
            lambda each: each.type == type_ or (type_[-1] == "." and each.type.startswith(type_)),
        ),
        ({"priorities": priorities}, lambda each: each.priority in priorities),
        ({"created_by": author}, lambda each: each.created_by == author),
        ({"wedding_id": wedding}, lambda each: wedding in each.wall),
        ({"broadcast_ids": sorted(ids)}, lambda each: str(each.broadcast_id) in ids),
    ]
    chosen = dice.sample(parts, dice.choice((0, 1, 2)))
    request = {name: value for part, _ in chosen for name, value in part.items()}
    return request, lambda each: all(holds(each) for _, holds in chosen)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), page_size=st.integers(1, 9))
async def test_rows_are_those_worked_out_one_by_one(site: ServingSite, seed: int, page_size: int) -> None:
    """Whatever was counted and whatever is asked: by broadcast, type and priority, page by page."""
    today = this_day()
    dice = random.Random(seed)
    author, coordinator = site.person("coordinator")
    weddings = [site.wedding(*([author] if dice.random() < 0.5 else [])) for _ in range(3)]
    on_team = {each for each in weddings if site.neighbours.preferences.weddings[each].team}
    authors = [author, "billing"]
    world = list(a_world(dice, today, authors, weddings))
    await keep(site, world)

    def is_coordinators(each: Counted, wedding: object) -> bool:
        """What they sent; and what is about their weddings, unless they ask about another."""
        is_about_theirs = wedding in (None, *on_team) and bool(on_team & set(each.wall))
        return each.created_by == author or is_about_theirs

    for caller, is_theirs in ((site.person("admin")[1], lambda *_: True), (coordinator, is_coordinators)):
        for group in (BROADCAST, TYPE, PRIORITY):
            request, holds = a_filter(dice, world, authors, weddings)
            first, last = sorted(today - dice.randint(0, 12) * DAY for _ in range(2))
            asked_about = request.get("wedding_id")
            seen = [each for each in world if is_theirs(each, asked_about) and holds(each)]
            found = await pages(
                site, caller, group, page_size, first_day=a_date(first), last_day=a_date(last), **request
            )
            assert [told(row) for row in chain(*found)] == expected(seen, group, first, last)
            assert all(len(each) == page_size for each in found[:-1])
