"""Audiences against Python sets: whatever an audience does with blocks and bits, a set does number by number."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from shared.audience import BLOCK_SIZE, MAX_NUMBER, Audience, BrokenAudience

NUMBERS = st.integers(0, MAX_NUMBER) | st.integers(0, 3 * BLOCK_SIZE) | st.integers(60_000, 70_000)


@st.composite
def members(draw: st.DrawFn) -> set[int]:
    """Sets as audiences are: scattered numbers, with dense runs that cross blocks, windows and containers."""
    found = draw(st.sets(NUMBERS, max_size=40))
    for start, length in draw(
        st.lists(st.tuples(st.integers(0, 140_000), st.integers(1, 9_000)), max_size=3)
    ):
        found.update(range(start, start + length, draw(st.sampled_from([1, 1, 2, 37]))))
    return found


def pg_bits(block: int, numbers: set[int]) -> bytes:
    """The text that Postgres prints for the block's bit string, packed eight to a byte."""
    text = "".join(
        "1" if number in numbers else "0" for number in range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
    )
    return int(text, 2).to_bytes(BLOCK_SIZE // 8)


def by_block(numbers: set[int]) -> dict[int, set[int]]:
    """The members of each block that has any."""
    return {
        block: {n for n in numbers if n // BLOCK_SIZE == block}
        for block in {n // BLOCK_SIZE for n in numbers}
    }


@given(members(), members())
def test_set_operations_are_those_of_sets(left: set[int], right: set[int]) -> None:
    """Union, intersection, difference, overlap and the comparisons agree with Python's sets."""
    one, other = Audience.of(left), Audience.of(right)
    assert set((one | other).to_list()) == left | right
    assert set((one & other).to_list()) == left & right
    assert set((one - other).to_list()) == left - right
    assert one.overlap(other) == len(left & right)
    assert one.isdisjoint(other) == left.isdisjoint(right)
    assert one.issubset(other) == left.issubset(right)
    assert Audience.union_of([one, other, Audience()]) == Audience.of(left | right)
    assert (one == other) == (left == right)


@given(members(), NUMBERS)
def test_it_counts_and_finds_its_members(numbers: set[int], number: int) -> None:
    """len, bool, in, sample and to_list agree with the set."""
    audience = Audience.of(numbers)
    assert len(audience) == len(numbers)
    assert bool(audience) == bool(numbers)
    assert (number in audience) == (number in numbers)
    assert audience.sample(5) == sorted(numbers)[:5]
    assert audience.to_list() == sorted(numbers)


@given(members())
def test_blocks_split_it_without_loss(numbers: set[int]) -> None:
    """Each block that has members comes once, in order, with exactly those."""
    split = [(block, set(part.to_list())) for block, part in Audience.of(numbers).split_blocks()]
    assert split == sorted(by_block(numbers).items())


@given(members(), st.integers(1, 5))
def test_chunks_are_in_order_and_bounded(numbers: set[int], max_blocks: int) -> None:
    """Chunks put together are the audience, and each but the last has exactly the blocks allowed."""
    chunks = [chunk.to_list() for chunk in Audience.of(numbers).chunks(max_blocks)]
    blocks_of = [len({number // BLOCK_SIZE for number in chunk}) for chunk in chunks]
    assert [number for chunk in chunks for number in chunk] == sorted(numbers)
    assert all(blocks == max_blocks for blocks in blocks_of[:-1])
    assert all(1 <= blocks <= max_blocks for blocks in blocks_of)


@given(members(), st.integers(1, 50))
def test_partition_gives_bits_for_dense_blocks_and_numbers_for_the_rest(
    numbers: set[int], threshold: int
) -> None:
    """A block is bits exactly from `threshold` members on, in the order in which Postgres reads bits."""
    blocks = by_block(numbers)
    partition = Audience.of(numbers).partition(threshold)
    dense = {block for block, found in blocks.items() if len(found) >= threshold}
    assert partition.dense == [(block, pg_bits(block, blocks[block])) for block in sorted(dense)]
    assert partition.sparse == sorted(n for n in numbers if n // BLOCK_SIZE not in dense)


@given(members())
def test_blocks_of_bits_come_back_as_the_same_audience(numbers: set[int]) -> None:
    """from_blocks undoes partition, also when a block is given in parts."""
    audience = Audience.of(numbers)
    assert Audience.from_blocks(audience.partition(threshold=1).dense) == audience
    halves = [audience.modulo(2, 0).partition(1).dense, audience.modulo(2, 1).partition(1).dense]
    assert Audience.from_blocks([*halves[0], *halves[1]]) == audience


@given(members(), st.integers(0, 40))
def test_one_block_as_bits(numbers: set[int], block: int) -> None:
    """to_bits is the block's bit string, also of a block that nobody is in."""
    assert Audience.of(numbers).to_bits(block) == pg_bits(block, numbers)


@given(members(), st.integers(1, 100))
def test_modulo_parts_are_disjoint_and_complete(numbers: set[int], slots: int) -> None:
    """Slot s holds exactly the numbers that leave s, so the slots together are everyone once."""
    parts = [set(Audience.of(numbers).modulo(slots, slot).to_list()) for slot in range(slots)]
    assert parts == [{n for n in numbers if n % slots == slot} for slot in range(slots)]


@given(members())
def test_bytes_round_trip(numbers: set[int]) -> None:
    """from_bytes reads what to_bytes wrote, and what another roaring library writes."""
    audience = Audience.of(numbers)
    assert Audience.from_bytes(audience.to_bytes()) == audience
    assert Audience.from_bytes(BitMap(numbers).serialize()) == audience


def test_a_million_consecutive_recipients_take_a_few_hundred_bytes() -> None:
    """Runs are used, so a message about everybody stays small."""
    assert len(Audience.of(range(1_000_000)).to_bytes()) < 300


@given(members(), st.data())
def test_broken_bytes_are_refused_or_still_an_audience(numbers: set[int], data: st.DataObject) -> None:
    """Bytes that were changed or cut on the way raise BrokenAudience; what is accepted is a proper set."""
    serialised = bytearray(Audience.of(numbers).to_bytes())
    place = data.draw(st.integers(0, len(serialised) - 1))
    serialised[place] ^= data.draw(st.integers(1, 255))
    try:
        found = Audience.from_bytes(bytes(serialised[: data.draw(st.integers(0, len(serialised)))]))
    except BrokenAudience:
        return
    listed = found.to_list()
    assert listed == sorted(set(listed))
    assert len(listed) == len(found)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not a bitmap", id="other bytes"),
        pytest.param(Audience.of([1, 2]).to_bytes()[:-1], id="cut off"),
        pytest.param(Audience.of([1, 2]).to_bytes() + b"\0", id="something behind it"),
        pytest.param(BitMap([MAX_NUMBER + 1]).serialize(), id="beyond the last number"),
    ],
)
def test_what_is_no_audience_is_refused(broken: bytes) -> None:
    """Each kind of damage is BrokenAudience and nothing else."""
    with pytest.raises(BrokenAudience):
        Audience.from_bytes(broken)


def test_bytes_beyond_the_bound_are_refused_unread() -> None:
    """A blob larger than allowed costs nothing."""
    with pytest.raises(BrokenAudience, match="more than the 10"):
        Audience.from_bytes(Audience.of(range(0, 100, 3)).to_bytes(), max_bytes=10)


@pytest.mark.parametrize("number", [-1, MAX_NUMBER + 1, 2**32])
def test_numbers_out_of_range_are_refused(number: int) -> None:
    """An audience holds Postgres integers from 0."""
    with pytest.raises(OverflowError):
        Audience.of([number])


def test_a_block_of_the_wrong_size_is_refused() -> None:
    """A bit string that is not 4,096 bits is BrokenAudience."""
    with pytest.raises(BrokenAudience):
        Audience.from_blocks([(0, b"\1")])


def test_a_full_container_partitions_into_full_blocks() -> None:
    """65,536 consecutive members, which roaring keeps as a single run, still come out as bits."""
    assert Audience.of(range(65_536)).partition().dense == [(block, b"\xff" * 512) for block in range(16)]


def test_audiences_cannot_be_hashed() -> None:
    """An audience as a dictionary key would be a mistake, and is a TypeError."""
    with pytest.raises(TypeError):
        hash(Audience())


def test_its_repr_names_a_few_and_counts_all() -> None:
    """A log or a failing test shows five numbers, not a million."""
    assert repr(Audience.of(range(100))) == "Audience(0, 1, 2, 3, 4, …; 100)"
    assert repr(Audience()) == "Audience(; 0)"


def test_scattered_recipients_split_as_sets_do() -> None:
    """Ten thousand over a million numbers: the case that element by element would be slow."""
    numbers = set(random.Random(7).sample(range(1_000_000), 10_000))
    partition = Audience.of(numbers).partition()
    assert Audience.from_blocks(partition.dense) | Audience.of(partition.sparse) == Audience.of(numbers)
    assert len(partition.dense) == 244
    assert {number // BLOCK_SIZE for number in partition.sparse} == {244}
