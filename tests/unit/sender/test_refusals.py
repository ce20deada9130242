"""What is remembered of refusals: enough that a flood costs nothing, and nothing that would be wrong a moment later."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender import refusals as module
from services.sender.domain import Author, Priority
from services.sender.limits import Limit, Limits, Quota, Standing, Tally
from services.sender.refusals import Refusals
from shared.clock import FixedClock
from shared.optional_redis import OptionalRedis

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(hours=24)
LIMIT = Limit(3, 5)
SENT = Tally(Author("ada", is_service=False), "feature.released", Priority.NORMAL, None)
NOBODY_LISTENS = "redis://127.0.0.1:1/0"


class Counter:
    """The database's count, told as simply as can be: every time at which something was sent."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.sent: list[datetime] = []
        self.asked = 0

    def may_send(self, now: datetime) -> bool:
        """Whether fewer than may be were sent in the hour and in the 24 hours before."""
        hour = sum(at > now - HOUR for at in self.sent)
        day = sum(at > now - DAY for at in self.sent)
        return hour < self.limit.hour and day < self.limit.day

    def send(self, now: datetime) -> tuple[bool, Standing]:
        """Send if it may be; and how the limit stands then."""
        self.asked += 1
        is_accepted = self.may_send(now)
        if is_accepted:
            self.sent.append(now)
        return is_accepted, self._standing(now)

    def _standing(self, now: datetime) -> Standing:
        hour, day = ([at for at in self.sent if at > now - length] for length in (HOUR, DAY))
        resets = []
        if len(hour) >= self.limit.hour:
            resets.append(hour[-self.limit.hour] + HOUR)
        if len(day) >= self.limit.day:
            resets.append(day[-self.limit.day] + DAY)
        return Standing(Quota(self.limit, len(hour), len(day), max(resets, default=None)), now)


@pytest.fixture
async def clock() -> FixedClock:
    """Stands at noon."""
    return FixedClock(NOW)


@pytest.fixture
async def refusals(clock: FixedClock) -> AsyncIterator[Refusals]:
    """With no Redis to help."""
    made = Refusals(OptionalRedis.open(NOBODY_LISTENS), uuid4(), Limits({}), clock)
    yield made
    await made.close()


def used_up(minutes: float, *request_ids: UUID) -> Standing:
    """A limit that is used up for so many minutes."""
    quota = Quota(LIMIT, 3, 3, NOW + timedelta(minutes=minutes))
    return Standing(quota, NOW, b"".join(sorted(each.bytes for each in request_ids)))


@given(
    waits=st.lists(
        st.one_of(
            st.floats(0, 30), st.floats(0, 4_000), st.sampled_from([1_800.0, 3_600.0, 43_200.0, 86_400.0])
        ),
        min_size=1,
        max_size=40,
    ),
    forgets=st.sets(st.integers(0, 39)),
)
async def test_with_a_memory_the_same_is_sent_as_without(waits: list[float], forgets: set[int]) -> None:
    """Whoever is refused from memory would have been refused by a count; for the others the count is asked."""
    clock, counter = FixedClock(NOW), Counter(LIMIT)
    refusals = Refusals(OptionalRedis.open(NOBODY_LISTENS), uuid4(), Limits({}), clock)
    for number, wait in enumerate(waits):
        clock.move(wait)
        if number in forgets:
            refusals = Refusals(OptionalRedis.open(NOBODY_LISTENS), uuid4(), Limits({}), clock)
        expected, asked = counter.may_send(clock.now()), counter.asked
        known = refusals.find(SENT)
        if known is not None:
            assert not expected
            assert refusals.retry_after_s(known) > 0
            continue
        is_accepted, standing = counter.send(clock.now())
        assert is_accepted == expected
        assert counter.asked == asked + 1
        if standing.quota.reset_time is not None:
            refusals.note(SENT, standing, clock.monotonic())
            assert refusals.find(SENT) is not None
    await refusals.close()


async def test_a_refusal_ends_no_later_than_the_limit(clock: FixedClock, refusals: Refusals) -> None:
    """It counts from before the question, however long the answer took."""
    asked_at = clock.monotonic()
    clock.move(5)
    refusals.note(SENT, used_up(minutes=1), asked_at)
    known = refusals.find(SENT)
    assert known is not None
    assert refusals.retry_after_s(known) == 55.0
    clock.move(54.9)
    assert refusals.find(SENT) is known
    clock.move(0.1)
    assert refusals.find(SENT) is None


async def test_a_refusal_is_of_what_is_counted_together(refusals: Refusals) -> None:
    """Another sender, type, priority or wedding has a limit of its own."""
    refusals.note(SENT, used_up(minutes=1), 0.0)
    assert refusals.find(Tally(SENT.author, SENT.type, SENT.priority, None)) is not None
    for other in (
        Tally(Author("olu", is_service=False), SENT.type, SENT.priority, None),
        Tally(SENT.author, "trial.ending", SENT.priority, None),
        Tally(SENT.author, SENT.type, Priority.LOW, None),
        Tally(SENT.author, SENT.type, SENT.priority, str(uuid4())),
    ):
        assert refusals.find(other) is None


@given(st.lists(st.uuids(), max_size=30, unique=True), st.uuids())
async def test_only_what_was_sent_may_be_repeated(sent: list[UUID], other: UUID) -> None:
    """In whatever case its id is written; a text that is no id was no send's."""
    refusals = Refusals(OptionalRedis.open(NOBODY_LISTENS), uuid4(), Limits({}), FixedClock(NOW))
    refusals.note(SENT, used_up(1, *sent), 0.0)
    known = refusals.find(SENT)
    assert known is not None
    assert all(known.may_repeat(str(each).upper()) for each in sent)
    assert known.may_repeat(str(other)) == (other in sent)
    assert not known.may_repeat("")
    assert not known.may_repeat("anything")
    await refusals.close()


async def test_memory_is_bounded(refusals: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room; what was forgotten is asked for again, and what ended leaves nothing behind."""
    monkeypatch.setattr(module, "_KEPT_BYTES", 10_000)
    tallies = [
        Tally(Author(f"service-{n}", is_service=True), SENT.type, SENT.priority, None) for n in range(100)
    ]
    for each in tallies:
        refusals.note(each, used_up(1, *(uuid4() for _ in range(50))), 0.0)
    kept = [each for each in tallies if refusals.find(each)]
    assert kept == tallies[-len(kept) :]
    assert 5 <= len(kept) <= 10
