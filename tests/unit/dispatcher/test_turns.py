"""In which order those are let go who are held until one time, and in which parts."""

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.dispatcher.domain import Draft
from services.dispatcher.planner import PlanTerms
from services.dispatcher.turns import in_turn, turn_of
from shared.audience import BLOCK_SIZE, CHUNK_MEMBERS, MAX_NUMBER, Audience

MORNING = datetime(2026, 11, 23, 8, tzinfo=UTC)
AUDIENCES = st.sampled_from(
    [
        Audience.of(range(30_000)),
        Audience.of(range(0, 1_000 * BLOCK_SIZE, 1_024)),
        Audience.of(range(5, 4_000_000, 999)),
        Audience.of([3, 70_000]),
    ]
)


def cut(members: Audience, rate: int) -> list[Draft]:
    """The parts of a hold until the morning, in turn, as they are at a rate."""
    return list(in_turn(members, MORNING, PlanTerms({}, rate, 0.5).part))


@settings(max_examples=30)
@given(AUDIENCES, st.sampled_from([1, 7, 500, 4_096, 5_000, 1_000_000]))
def test_a_morning_is_no_stampede(members: Audience, rate: int) -> None:
    """What is held until one moment is cut so small that ten parts fill a second, all of them full but the last."""
    members = Audience.of(members.sample(50 * rate))
    parts = cut(members, rate)
    most = min(CHUNK_MEMBERS, max(1, rate // 10))
    assert [len(part.members) for part in parts[:-1]] == [most] * (len(parts) - 1)
    assert 0 < len(parts[-1].members) <= most
    assert Audience.union_of(part.members for part in parts) == members
    assert sum(len(part.members) for part in parts) == len(members)
    assert {part.release_at for part in parts} == {MORNING}
    turns = [part.turn for part in parts]
    assert turns == sorted(turns)
    assert 0 <= turns[0]
    assert turns[-1] < 2**31


@settings(max_examples=30)
@given(AUDIENCES, st.sampled_from([10, 500, 5_000]), st.data())
def test_everyone_has_the_same_place_in_every_hold(members: Audience, rate: int, data: st.DataObject) -> None:
    """Whoever else is held, and however many: of two people, the same one is always let go first, or both together."""
    numbers = members.to_list()
    some = data.draw(st.lists(st.sampled_from(numbers), min_size=2, max_size=50, unique=True))
    place_among_all = {
        number: place for place, part in enumerate(cut(members, rate)) for number in part.members.to_list()
    }
    # Each alone in its part, so that their order is seen.
    order = [number for part in cut(Audience.of(some), 10) for number in part.members.to_list()]
    assert sorted(order) == sorted(some)
    places = [place_among_all[number] for number in order]
    assert places == sorted(places)


@settings(max_examples=20)
@given(AUDIENCES, st.sampled_from([10, 500, 5_000]))
def test_a_part_goes_when_it_is_the_turn_of_the_first_of_its_people(members: Audience, rate: int) -> None:
    """All of a part before anybody of the next, and each part by the turn that its first has in every hold."""
    members = Audience.of(members.sample(50 * rate))
    parts = [sorted(map(turn_of, part.members.to_list())) for part in cut(members, rate)]
    assert [turns[0] for turns in parts] == [part.turn for part in cut(members, rate)]
    assert [turn for turns in parts for turn in turns] == sorted(map(turn_of, members.to_list()))


@given(st.sets(st.integers(0, MAX_NUMBER)))
def test_everybody_has_a_turn_of_their_own(numbers: set[int]) -> None:
    """It fits its column."""
    turns = {turn_of(number) for number in numbers}
    assert len(turns) == len(numbers)
    assert all(0 <= turn < 2**31 for turn in turns)


def test_in_a_small_directory_too_everybody_has_their_turn() -> None:
    """Not one broadcast after the other and the oldest accounts first, but everybody's alerts together."""
    people = Audience.of(range(50_000))
    parts = cut(people, 5_000)
    assert len({part.turn for part in parts}) == len(parts) == 100
    firsts = [part.members.sample(1)[0] for part in parts]
    assert firsts != sorted(firsts)
    # Of three broadcasts that are held for them, as they are let go: of each the same people, one after the other.
    together = sorted([*parts, *parts, *parts], key=lambda part: part.turn)
    assert [part.members for part in together] == [part.members for part in parts for _ in range(3)]


def test_neighbours_by_number_are_far_apart_in_turn() -> None:
    """The oldest accounts are not the first every morning: neighbours are not let go one after the other."""
    neighbours, many = 65_536, 40
    parts = cut(Audience.of(range(0, many * neighbours, 64)), 10 * neighbours // 64)
    order = [part.members.sample(1)[0] // neighbours for part in parts]
    assert sorted(order) == list(range(many))
    assert min(abs(one - next_one) for one, next_one in pairwise(order)) > 1


def test_the_parts_of_a_morning_have_a_bounded_size_wherever_their_people_are() -> None:
    """An alert fills no blocks in the inbox, so only its people are counted, up to as many as a chunk may have."""
    scattered = Audience.of(range(0, 250 * BLOCK_SIZE, 100))
    assert len(cut(scattered, 1_000_000)) == 1
    assert max(len(part.members) for part in cut(Audience.of(range(1_000_000)), 1_000_000)) == CHUNK_MEMBERS
