"""Owns the audience: a set of recipient numbers, handled by set operations and never a person at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pyroaring import BitMap

BLOCK_SIZE: Final = 4096
"""Recipient numbers in a block: the inbox stores membership by block, one `bit(4096)` a row."""

BLOCK_BYTES: Final = BLOCK_SIZE // 8

CHUNK_BLOCKS: Final = 16
"""Blocks in a chunk at most: what one transaction handles without holding a loop or a lock for more than a few ms."""

CHUNK_MEMBERS: Final = CHUNK_BLOCKS * BLOCK_SIZE
"""Recipients in a chunk at most."""

DENSE_THRESHOLD: Final = 8
"""Recipients from which a block is stored as bits; below it a row each is cheaper."""

MAX_NUMBER: Final = 2**31 - 1
"""Recipient numbers are Postgres `integer`s."""

MAX_SERIALISED_BYTES: Final = 8 * 1024 * 1024
"""A bound on what is decoded from elsewhere: enough for 60 million recipients at their most scattered."""

# A window is what one pass between bitmap and Postgres bits handles: half a roaring container, so that the other half
# can hold a filler which keeps the container in its plain-bits form whatever the members are. See `_window_bits`.
_WINDOW: Final = 32_768
_WINDOW_BLOCKS: Final = _WINDOW // BLOCK_SIZE
_WINDOW_BYTES: Final = _WINDOW // 8
_FILLER: Final = BitMap(range(_WINDOW, 2 * _WINDOW, 2))
_FILLER_BYTES: Final = b"\x55" * _WINDOW_BYTES
_HEADER_BYTES: Final = 16
_PLAIN_BITS_BYTES: Final = _HEADER_BYTES + 2 * _WINDOW_BYTES
_NO_RUN_COOKIE: Final = 12_346

# Roaring counts bits from the least significant, a Postgres bit string from the most significant bit of each byte.
_MIRROR: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class BrokenAudience(ValueError):
    """These bytes are not an audience."""


@dataclass(frozen=True, slots=True)
class Partition:
    """An audience as the inbox stores it: bits for blocks with many recipients, plain numbers where there are few."""

    dense: list[tuple[int, bytes]]
    sparse: list[int]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Audience:
    """A set of recipient numbers (0 … 2**31-1). Compares by value; every operation gives a new one.

    `bitmap` is for reading: who has made an audience of a bitmap no longer changes that bitmap.
    """

    bitmap: BitMap = field(default_factory=BitMap)

    __hash__ = None  # type: ignore[assignment]  # a hash would have to look at every member

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Audience":
        """The audience of these numbers; a `range` costs nothing. Raises OverflowError for one out of range."""
        members = BitMap(numbers)
        if members and members.max() > MAX_NUMBER:
            raise OverflowError(f"recipient numbers end at {MAX_NUMBER}")
        return cls(members)

    @classmethod
    def union_of(cls, audiences: Iterable["Audience"]) -> "Audience":
        """Everyone who is in at least one of these; empty for none."""
        return cls(BitMap().union(*(audience.bitmap for audience in audiences)))

    @classmethod
    def from_bytes(cls, serialised: bytes, max_bytes: int = MAX_SERIALISED_BYTES) -> "Audience":
        """The audience that `to_bytes` wrote. Raises BrokenAudience for anything else and for more than `max_bytes`."""
        if len(serialised) > max_bytes:
            raise BrokenAudience(f"{len(serialised)} bytes are more than the {max_bytes} of an audience")
        try:
            members = BitMap.deserialize(serialised)
        except (ValueError, IndexError) as error:
            raise BrokenAudience("these bytes are not a roaring bitmap") from error
        if members and members.max() > MAX_NUMBER:
            raise BrokenAudience(f"a member is beyond {MAX_NUMBER}")
        if len(members.serialize()) != len(serialised):
            raise BrokenAudience("there are bytes after the end of the bitmap")
        return cls(members)

    @classmethod
    def from_blocks(cls, blocks: Iterable[tuple[int, bytes]]) -> "Audience":
        """The audience of these `(block, bits)`, as `partition` gives them; a block may come more than once."""
        windows: dict[int, bytearray] = {}
        for block, bits in blocks:
            if len(bits) != BLOCK_BYTES:
                raise BrokenAudience(f"a block is {BLOCK_BYTES} bytes, not {len(bits)}")
            window, place = divmod(block, _WINDOW_BLOCKS)
            row = windows.setdefault(window, bytearray(_WINDOW_BYTES))
            here = slice(place * BLOCK_BYTES, (place + 1) * BLOCK_BYTES)
            row[here] = (int.from_bytes(row[here]) | int.from_bytes(bits)).to_bytes(BLOCK_BYTES)
        return cls(BitMap().union(*(_window_members(window, bits) for window, bits in windows.items())))

    def __len__(self) -> int:
        return len(self.bitmap)

    def __bool__(self) -> bool:
        return bool(self.bitmap)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number <= MAX_NUMBER and number in self.bitmap

    def __eq__(self, other: object) -> bool:
        return self.bitmap == other.bitmap if isinstance(other, Audience) else NotImplemented

    def __or__(self, other: "Audience") -> "Audience":
        return Audience(self.bitmap | other.bitmap)

    def __and__(self, other: "Audience") -> "Audience":
        return Audience(self.bitmap & other.bitmap)

    def __sub__(self, other: "Audience") -> "Audience":
        return Audience(self.bitmap - other.bitmap)

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.sample(5)))
        return f"Audience({shown}{', …' if len(self) > 5 else ''}; {len(self)})"

    def isdisjoint(self, other: "Audience") -> bool:
        """Whether nobody is in both."""
        return self.bitmap.isdisjoint(other.bitmap)

    def issubset(self, other: "Audience") -> bool:
        """Whether everyone here is in `other` too."""
        return self.bitmap.issubset(other.bitmap)

    def overlap(self, other: "Audience") -> int:
        """How many are in both, without building that audience."""
        return self.bitmap.intersection_cardinality(other.bitmap)

    def sample(self, limit: int) -> list[int]:
        """The `limit` lowest numbers."""
        return list(islice(self.bitmap, limit))

    def to_list(self) -> list[int]:
        """Every number, ascending: for audiences that are known to be small, or for one pass of bulk SQL."""
        return self.bitmap.to_array().tolist()

    def to_bytes(self) -> bytes:
        """The portable roaring format, with runs; `from_bytes` reads it."""
        return BitMap(self.bitmap, optimize=True).serialize()

    def slice(self, start: int, stop: int) -> "Audience":
        """Those from `start` up to, and without, `stop`."""
        return Audience(self.bitmap & BitMap(range(start, stop)))

    def split_at(self, count: int) -> tuple["Audience", "Audience"]:
        """The `count` lowest numbers, and the others."""
        if count >= len(self):
            return self, Audience()
        edge = self.bitmap[count]
        return self.slice(self.bitmap.min(), edge), self.slice(edge, self.bitmap.max() + 1)

    def occupied(self, block_size: int = BLOCK_SIZE) -> Iterator[int]:
        """The blocks that have somebody, in order."""
        return _occupied(self.bitmap, block_size)

    def split_blocks(self, block_size: int = BLOCK_SIZE) -> Iterator[tuple[int, "Audience"]]:
        """Each block that has somebody, in order, with those who are in it."""
        for block in _occupied(self.bitmap, block_size):
            yield block, self.slice(block * block_size, (block + 1) * block_size)

    def chunks(self, max_blocks: int = CHUNK_BLOCKS) -> Iterator["Audience"]:
        """The audience in order, in parts of at most `max_blocks` blocks that have somebody, however scattered."""
        blocks = _occupied(self.bitmap, BLOCK_SIZE)
        while part := list(islice(blocks, max_blocks)):
            yield self.slice(part[0] * BLOCK_SIZE, (part[-1] + 1) * BLOCK_SIZE)

    def modulo(self, slots: int, slot: int) -> "Audience":
        """Those whose number divided by `slots` leaves `slot`: the parts are disjoint, even, and always the same."""
        parts = []
        for window in _occupied(self.bitmap, _WINDOW):
            start = window * _WINDOW
            first = start + (slot - start) % slots
            parts.append(self.bitmap & BitMap(range(first, start + _WINDOW, slots)))
        return Audience(BitMap().union(*parts))

    def to_bits(self, block: int) -> bytes:
        """The members of one block as a Postgres `bit(4096)`: `get_bit(bits, number & 4095)` is 1 for each of them."""
        window, place = divmod(block, _WINDOW_BLOCKS)
        return _window_bits(self.bitmap, window)[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]

    def partition(self, threshold: int = DENSE_THRESHOLD) -> Partition:
        """Blocks with at least `threshold` members as bits in order, the members of the others as numbers in order."""
        dense: list[tuple[int, bytes]] = []
        sparse = BitMap()
        for window in _occupied(self.bitmap, _WINDOW):
            bits: bytes | None = None
            for place in range(_WINDOW_BLOCKS):
                block = window * _WINDOW_BLOCKS + place
                start, stop = block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE
                members = self.bitmap.range_cardinality(start, stop)
                if members >= threshold:
                    bits = bits or _window_bits(self.bitmap, window)
                    dense.append((block, bits[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]))
                elif members:
                    sparse |= self.bitmap & BitMap(range(start, stop))
        return Partition(dense, sparse.to_array().tolist())


def _occupied(members: BitMap, size: int) -> Iterator[int]:
    """The index of each range of `size` numbers that has a member, found by jumping from one to the next."""
    if not members:
        return
    index, last = members.min() // size, members.max() // size
    while index < last:
        yield index
        index = members.next_set_bit((index + 1) * size) // size
    yield last


def _window_bits(members: BitMap, window: int) -> bytes:
    """A window's members as a Postgres bit string of 32,768 bits.

    With 16,384 filler members in the upper half, the one container of the bitmap is in plain bits for certain (more
    than 4,096 members, and no runs), and its serialised form is a header of fixed length, our bits, then the filler's.
    """
    start = window * _WINDOW
    plain = (members & BitMap(range(start, start + _WINDOW))).shift(-start) | _FILLER
    serialised = plain.serialize()
    if len(serialised) != _PLAIN_BITS_BYTES:
        raise BrokenAudience("the roaring format has changed")
    return serialised[_HEADER_BYTES : _HEADER_BYTES + _WINDOW_BYTES].translate(_MIRROR)


def _window_members(window: int, bits: bytes | bytearray) -> BitMap:
    """The inverse of `_window_bits`: under a header and before the filler, the bits are a serialised bitmap."""
    cardinality = int.from_bytes(bits).bit_count() + len(_FILLER)
    header = b"".join(
        number.to_bytes(size, "little")
        for number, size in ((_NO_RUN_COOKIE, 4), (1, 4), (0, 2), (cardinality - 1, 2), (_HEADER_BYTES, 4))
    )
    plain = BitMap.deserialize(header + bytes(bits).translate(_MIRROR) + _FILLER_BYTES)
    return (plain & BitMap(range(_WINDOW))).shift(window * _WINDOW)
