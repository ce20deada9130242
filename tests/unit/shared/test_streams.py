"""The streams and consumers as declared: they fit together, and no limit binds by accident."""

from nats.js.api import AckPolicy, DiscardPolicy, RetentionPolicy, StorageType

from shared import subjects
from shared.audience import CHUNK_BLOCKS, Audience
from shared.streams import CONSUMERS, INBOX_DELIVERY, STREAMS

# What a stored message takes beside its payload: subject, header with the id, record framing.
OVERHEAD_BYTES = 200


def matches(subject: str, pattern: str) -> bool:
    """Whether a subject is one of a pattern's, where `*` stands for one part."""
    parts, wanted = subject.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(
        want in ("*", part) for part, want in zip(parts, wanted, strict=True)
    )


def test_every_subject_of_a_stream_has_exactly_one_consumer() -> None:
    """A work queue takes no two readers for one subject, and without one nothing would ever be done."""
    for stream in STREAMS:
        for subject in stream.subjects:
            readers = [
                each for each in CONSUMERS if each.stream == stream.name and matches(subject, each.subject)
            ]
            assert len(readers) == 1, subject


def test_names_are_unique() -> None:
    """No two streams or consumers are taken for each other, and every consumer's stream is declared."""
    names = [stream.name for stream in STREAMS]
    assert len(set(names)) == len(names)
    assert len({consumer.name for consumer in CONSUMERS}) == len(CONSUMERS)
    assert {consumer.stream for consumer in CONSUMERS} == set(names)


def test_the_limit_of_messages_binds_before_that_of_bytes() -> None:
    """With the largest payload of each stream, full subjects fit, so that one never takes the room of another."""
    # The chunk that compresses worst: every other number of blocks that are far apart.
    chunk = Audience.union_of(
        Audience.of(range(n * 65_536, n * 65_536 + 4096, 2)) for n in range(CHUNK_BLOCKS)
    )
    largest = {subjects.DELIVERY_INBOX_STREAM: len(chunk.to_bytes()) + 100}
    for stream in STREAMS:
        message = largest.get(stream.name, 150) + OVERHEAD_BYTES
        assert stream.max_messages_per_subject * len(stream.subjects) * message <= stream.max_bytes, (
            stream.name
        )


def test_streams_keep_work_on_files_and_refuse_when_full() -> None:
    """What JetStream is asked for: a queue on disk that never drops the oldest."""
    for stream in STREAMS:
        config = stream.config(replicas=3)
        assert (config.retention, config.storage, config.num_replicas) == (
            RetentionPolicy.WORK_QUEUE,
            StorageType.FILE,
            3,
        )
        assert (config.discard, config.discard_new_per_subject) == (DiscardPolicy.NEW, True)


def test_consumers_acknowledge_and_give_up_in_the_end() -> None:
    """Explicit acknowledgements, a last attempt, and no waits but those that the worker asks for."""
    for consumer in CONSUMERS:
        config = consumer.config()
        assert config.ack_policy is AckPolicy.EXPLICIT
        assert 1 < consumer.max_deliver < 100
        # With one, the third attempt would come as much later as the second of these waits is longer than the first.
        assert config.backoff is None


def test_each_priority_has_a_lane() -> None:
    """Nothing critical waits in the queue of something low."""
    lanes = [INBOX_DELIVERY[priority].subject for priority in subjects.PRIORITIES]
    assert lanes == [f"delivery.inbox.{priority}" for priority in ("critical", "high", "normal", "low")]
