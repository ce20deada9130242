"""The demo world: the same seed gives the same world, and everyone in it could exist."""

from datetime import date
from zoneinfo import available_timezones

import pytest

from stack.world import CAST, FIRST_TEAM, World, demo_id

TODAY = date(2026, 11, 22)


@pytest.fixture(scope="module")
def world() -> World:
    """A world of the default size."""
    return World(2_000, seed=7, today=TODAY)


def test_the_same_seed_gives_the_same_world(world: World) -> None:
    """People, weddings and preferences are equal, whoever makes them and how often."""
    again = World(2_000, seed=7, today=TODAY)
    assert list(world.people()) == list(again.people())
    assert list(world.weddings()) == list(again.weddings())
    assert list(world.edited_preferences()) == list(again.edited_preferences())


def test_everyone_has_a_number_and_an_id_of_their_own(world: World) -> None:
    """Numbers run from 1 without gaps, and no two people share an id."""
    people = list(world.people())
    assert list(range(1, 2_001)) == [person.number for person in people]
    assert len({person.user_id for person in people}) == 2_000


def test_zones_are_in_the_zone_database(world: World) -> None:
    """Each person's zone and each wedding's is one that can be computed with."""
    zones = {person.time_zone for person in world.people()} | {each.time_zone for each in world.weddings()}
    assert set() == zones - available_timezones()


def test_the_tour_finds_its_people(world: World) -> None:
    """The cast opens every world, and the outsider is not on the team of the first wedding."""
    people = list(world.people())
    assert [demo_id(member.name) for member in CAST] == [person.user_id for person in people[: len(CAST)]]
    first = next(world.weddings())
    assert first.team == FIRST_TEAM
    assert demo_id("outsider") not in {people[number - 1].user_id for number in first.team}


def test_each_couple_has_one_wedding_with_suppliers(world: World) -> None:
    """A team opens with its couple, nobody is on it twice, and no couple is on two."""
    roles = {person.number: person.role for person in world.people()}
    couples = [number for wedding in world.weddings() for number in wedding.team[:2]]
    assert {"couple"} == {roles[number] for number in couples}
    assert len(couples) == len(set(couples))
    for wedding in world.weddings():
        assert len(wedding.team) == len(set(wedding.team))


def test_a_past_wedding_is_not_planned_any_more(world: World) -> None:
    """Status and date agree."""
    past = {wedding.status for wedding in world.weddings() if wedding.wedding_date < TODAY}
    assert past <= {"completed", "cancelled"}


def test_a_world_too_small_for_its_cast_is_refused() -> None:
    """The error names the setting and the rule."""
    with pytest.raises(ValueError, match="recipients: at least 100"):
        World(10, seed=7, today=TODAY)
