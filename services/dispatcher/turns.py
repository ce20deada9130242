"""Owns in which order those are alerted whose hold ends at one time: everybody has a turn, by their number alone."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from itertools import accumulate
from operator import or_
from typing import Final

from services.dispatcher.domain import ChunkState, Draft, Kind
from shared.audience import CHUNK_MEMBERS, Audience

# As many numbers as a bitmap keeps together, so that to cut at them costs little however many holds there are. A cell
# is as many as have one turn after the other: few, so that in a small directory too nobody is first for being old.
_BLOCK: Final = 2**16
_CELL: Final = 2**9
_CELLS: Final = _BLOCK // _CELL
_BLOCKS: Final = 2**31 // _BLOCK
# Each divided by the golden ratio and odd, so that the products go through all places and neighbours land far apart.
_BLOCK_STRIDE: Final = 20_251
_CELL_STRIDE: Final = 79


def in_turn(members: Audience, release_at: datetime, most: int) -> Iterator[Draft]:
    """Alerts that are due at `release_at`, in parts of at most `most` that can be let go one after the other.

    Everyone has a turn of their own, which follows from their number alone (`turn_of`). So of two people the same one
    goes first in every hold, however many are in it, and all alerts of one person come close together. A part goes when
    it is the turn of the first of its people, and all but the last are full. It is a few set operations a part instead
    of one a person.
    """
    most = min(most, CHUNK_MEMBERS)
    if len(members) <= most:
        yield _alert([members], release_at)
        return
    part, room = list[Audience](), most
    for block in sorted(members.occupied(_BLOCK), key=_place_of_block):
        rest = _within(members, block)
        while rest:
            taken, rest = _split_in_turn(rest, block, room)
            part.append(taken)
            room -= len(taken)
            if not room:
                yield _alert(part, release_at)
                part, room = [], most
    if part:
        yield _alert(part, release_at)


def turn_of(number: int) -> int:
    """The turn of whoever has this number, of 2**31 that are all different.

    The 65,536 that the number is one of go together, and of these the 512; which of them is when is hashed.
    """
    block, cell = number // _BLOCK, number // _CELL
    return _place_of_block(block) * _BLOCK + _place_of_cell(cell) * _CELL + number % _CELL


def _place_of_block(block: int) -> int:
    return (block + 1) * _BLOCK_STRIDE % _BLOCKS


def _place_of_cell(cell: int) -> int:
    return (cell + 1) * _CELL_STRIDE % _CELLS


def _within(members: Audience, block: int) -> Audience:
    return members.slice(block * _BLOCK, (block + 1) * _BLOCK)


def _split_in_turn(members: Audience, block: int, count: int) -> tuple[Audience, Audience]:
    """Of people of one block the `count` whose turn is first, and the others."""
    if len(members) <= count:
        return members, Audience()
    whole = bisect_right(range(_CELLS), count, key=lambda n: members.overlap(_first_cells(block, n))) - 1
    taken = members & _first_cells(block, whole)
    next_cell = (members & _first_cells(block, whole + 1)) - taken
    taken |= next_cell.split_at(count - len(taken))[0]
    return taken, members - taken


def _first_cells(block: int, count: int) -> Audience:
    """The numbers in those `count` cells of a block that have the first turns."""
    return Audience(_cells_in_turn()[count].bitmap.shift(block * _BLOCK))


@cache
def _cells_in_turn() -> tuple[Audience, ...]:
    """The numbers in none, one, two and so on of the first block's cells."""
    order = sorted(range(_CELLS), key=_place_of_cell)
    cells = (Audience.of(range(cell * _CELL, (cell + 1) * _CELL)) for cell in order)
    return tuple(accumulate(cells, or_, initial=Audience()))


def _alert(parts: Sequence[Audience], release_at: datetime) -> Draft:
    """What `parts` hold together; who has the first turn of all is in the first of them."""
    block = min(parts[0].occupied(_BLOCK), key=_place_of_block)
    first, _ = _split_in_turn(_within(parts[0], block), block, 1)
    turn = turn_of(first.bitmap.min())
    return Draft(Kind.ALERT, ChunkState.HELD, Audience.union_of(parts), release_at=release_at, turn=turn)
