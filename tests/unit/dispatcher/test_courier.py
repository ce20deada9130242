"""Which chunks travel together."""

from uuid import UUID

from services.dispatcher.courier import MOST_BYTES, MOST_CHUNKS, together
from services.dispatcher.domain import Kind, Priority
from services.dispatcher.work import LeasedChunk

ONE, OTHER = UUID(int=1), UUID(int=2)


def chunk(broadcast_id: UUID, number: int, size: int = 10) -> LeasedChunk:
    """A chunk with so many bytes of members."""
    return LeasedChunk(broadcast_id, number, Priority.HIGH, Kind.ITEM, 1, bytes(size))


def test_chunks_of_one_broadcast_travel_together() -> None:
    """However they are mixed; those of another are another message."""
    mixed = [chunk(ONE, 0), chunk(OTHER, 0), chunk(ONE, 1), chunk(OTHER, 1), chunk(ONE, 2)]
    assert list(together(mixed)) == [[mixed[0], mixed[2], mixed[4]], [mixed[1], mixed[3]]]
    assert list(together([])) == []


def test_a_message_takes_no_more_than_the_inbox_does() -> None:
    """Nor more bytes than it should, unless one chunk alone has them."""
    many = [chunk(ONE, number) for number in range(2 * MOST_CHUNKS + 1)]
    assert [len(message) for message in together(many)] == [MOST_CHUNKS, MOST_CHUNKS, 1]
    large = [chunk(ONE, number, MOST_BYTES // 2) for number in range(5)]
    assert [len(message) for message in together(large)] == [2, 2, 1]
    vast = [chunk(ONE, 0), chunk(ONE, 1, MOST_BYTES + 1), chunk(ONE, 2)]
    assert [len(message) for message in together(vast)] == [1, 1, 1]
