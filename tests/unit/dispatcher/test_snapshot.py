"""How audiences become chunks, against dictionaries that follow each person alone."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.dispatcher.domain import (
    CHANNELS_OF,
    CHUNK_TRANSITIONS,
    Channel,
    ChunkCount,
    ChunkState,
    Decided,
    DeliveryState,
    Draft,
    Kind,
    Reason,
    ledger,
)
from services.dispatcher.snapshot import (
    BrokenSnapshot,
    Slice,
    Snapshot,
    partition,
    redecide,
    redecide_held,
    spare_readers,
    verify,
)
from shared.audience import BLOCK_SIZE, CHUNK_BLOCKS, Audience

MORNING = datetime(2026, 11, 23, 8, tzinfo=UTC)
RATE = 7

NUMBERS = st.integers(0, 30) | st.integers(0, 40 * BLOCK_SIZE)
RELEASES = st.sampled_from([MORNING, MORNING + timedelta(hours=1)])
REASONS = st.sampled_from([Reason.CATEGORY_MUTED, Reason.OUTSIDE_WALL, Reason.CHANNEL_OFF])
ERASED = REASONS | st.just(Reason.ERASED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one person gets: `alert` and `item` are now, a time to wait for, or a reason for nothing."""

    alert: datetime | Reason | None
    item: Reason | None


@st.composite
def outcomes(draw: st.DrawFn, reasons: st.SearchStrategy[Reason] = REASONS) -> Outcome:
    """Any outcome that the rules can come to: without an item there is no alert now."""
    item = draw(st.none() | reasons)
    alert = draw((st.none() if item is None else st.nothing()) | RELEASES | reasons)
    return Outcome(alert, item)


PEOPLE = st.dictionaries(NUMBERS, outcomes(), max_size=60)


def slices_of(people: dict[int, Outcome]) -> list[Slice]:
    """The answer of a resolver that takes people one by one."""
    return [part for number, outcome in people.items() for part in slices_of_one(number, outcome)]


def slices_of_one(number: int, outcome: Outcome) -> list[Slice]:
    """One person's outcome on both channels."""
    members = Audience.of([number])
    parts = []
    for channel, what in ((Channel.REALTIME, outcome.alert), (Channel.IN_APP, outcome.item)):
        if what is None:
            parts.append(Slice(channel, DeliveryState.PENDING, members))
        elif isinstance(what, Reason):
            parts.append(Slice(channel, DeliveryState.SUPPRESSED, members, reason=what))
        else:
            parts.append(Slice(channel, DeliveryState.HELD, members, release_at=what))
    return parts


def by_person(drafts: list[Draft]) -> dict[int, dict[Channel, Draft]]:
    """Each person's chunk on each channel; fails when there are two."""
    found: dict[int, dict[Channel, Draft]] = {}
    for draft in drafts:
        for channel in CHANNELS_OF.get(draft.kind, (draft.channel,) if draft.channel else ()):
            for number in draft.members.to_list():
                assert channel not in found.setdefault(number, {})
                found[number][channel] = draft
    return found


def assert_gets(chunks: dict[Channel, Draft], outcome: Outcome) -> None:
    """The chunks of one person say what was decided for them."""
    alert, item = chunks[Channel.REALTIME], chunks[Channel.IN_APP]
    if outcome.item is None:
        assert item.kind is (Kind.ITEM if outcome.alert is None else Kind.SILENT_ITEM)
        assert item.state is ChunkState.PENDING
    else:
        assert (item.kind, item.state, item.reason) == (Kind.NONE, ChunkState.SUPPRESSED, outcome.item)
    if outcome.alert is None:
        assert alert is item
    elif isinstance(outcome.alert, Reason):
        assert (alert.kind, alert.state, alert.reason) == (Kind.NONE, ChunkState.SUPPRESSED, outcome.alert)
    else:
        assert (alert.kind, alert.state) == (Kind.ALERT, ChunkState.HELD)
        assert alert.release_at == outcome.alert


@given(PEOPLE)
def test_everyone_is_in_exactly_one_chunk_a_channel_with_what_was_decided(people: dict[int, Outcome]) -> None:
    """The chunks cover the audience on both channels, nobody twice, and say what was decided for each."""
    drafts = list(partition(slices_of(people), RATE))
    found = by_person(drafts)
    assert found.keys() == people.keys()
    for number, outcome in people.items():
        assert_gets(found[number], outcome)


@given(PEOPLE)
def test_chunks_have_members_and_items_have_few_blocks(people: dict[int, Outcome]) -> None:
    """No chunk is empty, and an item spans at most 16 occupied blocks."""
    for draft in partition(slices_of(people), RATE):
        assert draft.members
        blocks = {number // BLOCK_SIZE for number in draft.members.to_list()}
        assert draft.kind in (Kind.NONE, Kind.ALERT) or len(blocks) <= CHUNK_BLOCKS


@given(PEOPLE)
def test_loud_items_come_first(people: dict[int, Outcome]) -> None:
    """Who can be alerted now is served before those who sleep."""
    kinds = [draft.kind for draft in partition(slices_of(people), RATE)]
    order = [Kind.ITEM, Kind.SILENT_ITEM, Kind.ALERT, Kind.NONE]
    assert kinds == sorted(kinds, key=order.index)


def test_a_dense_million_is_sixteen_chunks() -> None:
    """A million loud items are cut at every sixteenth block."""
    members = Audience.of(range(1_000_000))
    everyone = [Slice(channel, DeliveryState.PENDING, members) for channel in Channel]
    drafts = list(partition(everyone, RATE))
    assert [len(draft.members) for draft in drafts] == [65_536] * 15 + [16_960]


def snapshot(slices: list[Slice], targeted: int) -> Snapshot:
    """An answer of these parts."""
    return Snapshot(tuple(slices), targeted, Decided(1, MORNING))


@given(PEOPLE)
def test_a_whole_snapshot_is_accepted(people: dict[int, Outcome]) -> None:
    """One outcome for everyone on each channel is what an answer must have."""
    verify(snapshot(slices_of(people), len(people)))


def test_an_empty_snapshot_is_accepted() -> None:
    """A targeting that matches nobody is a legal broadcast."""
    verify(snapshot([], 0))
    assert list(partition([], RATE)) == []


def now(channel: Channel, *numbers: int) -> Slice:
    """These people, at once."""
    return Slice(channel, DeliveryState.PENDING, Audience.of(numbers))


@pytest.mark.parametrize(
    ("slices", "targeted"),
    [
        ([now(Channel.REALTIME, 1), now(Channel.IN_APP, 1)], 2),
        ([now(Channel.REALTIME, 1, 2), now(Channel.IN_APP, 1), now(Channel.IN_APP, 1)], 2),
        ([now(Channel.REALTIME, 1), now(Channel.IN_APP, 2)], 1),
        ([now(Channel.IN_APP, 1)], 1),
        (
            [
                now(Channel.REALTIME, 1),
                Slice(
                    Channel.IN_APP, DeliveryState.SUPPRESSED, Audience.of([1]), reason=Reason.CATEGORY_MUTED
                ),
            ],
            1,
        ),
    ],
    ids=["too few", "twice", "different people", "a channel missing", "an alert of nothing"],
)
def test_a_snapshot_that_contradicts_itself_is_refused(slices: list[Slice], targeted: int) -> None:
    """It would make a ledger that never adds up."""
    with pytest.raises(BrokenSnapshot):
        verify(snapshot(slices, targeted))


@pytest.mark.parametrize(
    "part",
    [
        Slice(Channel.IN_APP, DeliveryState.HELD, Audience.of([1]), release_at=MORNING),
        Slice(Channel.REALTIME, DeliveryState.HELD, Audience.of([1])),
        Slice(Channel.IN_APP, DeliveryState.SUPPRESSED, Audience.of([1])),
    ],
    ids=["held item", "held without end", "nothing without reason"],
)
def test_an_outcome_that_means_nothing_is_refused(part: Slice) -> None:
    """An item is never held, a hold has an end, and whoever gets nothing is told why."""
    with pytest.raises(BrokenSnapshot):
        list(partition([part], RATE))


@given(st.sets(NUMBERS, min_size=1), st.dictionaries(NUMBERS, outcomes()), st.booleans())
def test_who_is_decided_again_gets_the_new_outcome_and_the_others_stay(
    members: set[int], changed: dict[int, Outcome], say_both: bool
) -> None:
    """A loud chunk keeps those unchanged or still loud; the rest get a new outcome. Strangers are ignored."""
    slices = slices_of(changed)
    if not say_both:
        slices = [part for part in slices if part.channel is Channel.REALTIME]
        changed = {number: Outcome(each.alert, None) for number, each in changed.items()}
    after = redecide(Kind.ITEM, Audience.of(members), slices, RATE)
    found = by_person([Draft(Kind.ITEM, ChunkState.PENDING, after.kept), *after.moved])
    assert found.keys() == members
    for number in members:
        assert_gets(found[number], changed.get(number, Outcome(None, None)))


@given(st.sets(NUMBERS, min_size=1), st.dictionaries(NUMBERS, outcomes()))
def test_a_silent_chunk_loses_only_those_whose_item_is_gone(
    members: set[int], changed: dict[int, Outcome]
) -> None:
    """Whether and when they are alerted is written elsewhere and is not touched."""
    after = redecide(Kind.SILENT_ITEM, Audience.of(members), slices_of(changed), RATE)
    gone = {number for number in members & changed.keys() if changed[number].item is not None}
    assert after.kept == Audience.of(members - gone)
    assert Audience.union_of(draft.members for draft in after.moved) == Audience.of(gone)
    assert {draft.channel for draft in after.moved} <= {Channel.IN_APP}


@given(
    st.sets(NUMBERS, min_size=1),
    st.dictionaries(NUMBERS, outcomes(ERASED)),
    RELEASES,
    st.sampled_from([-3, 3]),
)
def test_what_is_held_follows_when_its_people_sleep(
    members: set[int], changed: dict[int, Outcome], release_at: datetime, hours: int
) -> None:
    """Who sleeps otherwise gets a new time, and who is awake is due: now, or when they were if that was before.

    Who would get nothing now stays held as before, since they may take that back until then; the erased are gone.
    """
    now = MORNING + timedelta(hours=hours)
    after = redecide_held(Audience.of(members), release_at, slices_of(changed), now, RATE)
    found = by_person([Draft(Kind.ALERT, ChunkState.HELD, after.kept, release_at=release_at), *after.moved])
    assert found.keys() == members
    for number in members:
        (chunk,) = found[number].values()
        outcome = changed[number].alert if number in changed else release_at
        if outcome is Reason.ERASED:
            assert (chunk.kind, chunk.state, chunk.reason) == (Kind.NONE, ChunkState.SUPPRESSED, outcome)
        else:
            assert (chunk.kind, chunk.state) == (Kind.ALERT, ChunkState.HELD)
            expected = release_at if isinstance(outcome, Reason) else outcome or min(now, release_at)
            assert chunk.release_at == expected
    barred = {
        number
        for number, each in changed.items()
        if isinstance(each.alert, Reason) and each.alert is not Reason.ERASED
    }
    assert after.is_open == bool(members & barred)


def test_who_is_due_already_keeps_their_place() -> None:
    """Awake is what they are all to be by then: that moves nobody to the end of those who are let go."""
    members = Audience.of(range(100))
    awake = [Slice(Channel.REALTIME, DeliveryState.PENDING, members)]
    after = redecide_held(members, MORNING, awake, MORNING + timedelta(seconds=5), RATE)
    assert (after.kept, after.moved) == (members, ())


@given(st.sets(NUMBERS), PEOPLE, st.sets(NUMBERS))
def test_nobody_is_alerted_of_what_they_have_read(
    members: set[int], changed: dict[int, Outcome], readers: set[int]
) -> None:
    """Readers who would be alerted, newly or as decided before, are not; the others get what was decided."""
    slices = spare_readers(slices_of(changed), Audience.of(members), Audience.of(readers))
    after = redecide(Kind.ALERT, Audience.of(members), slices, RATE)
    alerted = {number for number in members if number not in changed or changed[number].alert is None}
    assert after.kept == Audience.of(alerted - readers)
    read = Audience.union_of(draft.members for draft in after.moved if draft.reason is Reason.ALREADY_READ)
    assert read == Audience.of(alerted & readers)
    assert Audience.union_of([after.kept, *(draft.members for draft in after.moved)]) == Audience.of(members)


def counted(chunks: list[Draft]) -> list[ChunkCount]:
    """The rows that the store's GROUP BY would give, one a chunk."""
    return [
        ChunkCount(each.kind, each.state, each.channel, each.reason, 1, len(each.members)) for each in chunks
    ]


def decided_again(chunk: Draft, drawn: dict[int, Outcome]) -> list[Draft]:
    """The chunk after some of its members were decided again; when it was held, those who remain may go."""
    after = redecide(chunk.kind, chunk.members, slices_of(drawn), RATE)
    state = ChunkState.PENDING
    kept = [replace(chunk, state=state, members=after.kept, release_at=None)] if after.kept else []
    return [*kept, *after.moved]


@settings(max_examples=60)
@given(PEOPLE, st.data())
def test_the_ledger_adds_up_whatever_happens(people: dict[int, Outcome], data: st.DataObject) -> None:
    """After any sequence of leases, reports, stops, expiries and new decisions, each channel counts everyone once."""
    chunks = list(partition(slices_of(people), RATE))
    for _ in range(data.draw(st.integers(0, 25))):
        unfinished = [each for each in chunks if not each.state.is_final]
        if not unfinished:
            break
        chunk = data.draw(st.sampled_from(unfinished))
        chunks.remove(chunk)
        undecided = chunk.state in (ChunkState.HELD, ChunkState.PENDING)
        if undecided and data.draw(st.booleans()):
            members = st.sampled_from(chunk.members.to_list())
            chunks += decided_again(chunk, data.draw(st.dictionaries(members, outcomes())))
        else:
            following = data.draw(st.sampled_from(sorted(CHUNK_TRANSITIONS[chunk.state])))
            chunks.append(replace(chunk, state=following))
        assert_adds_up(chunks, people)
    assert_adds_up(chunks, people)


def assert_adds_up(chunks: list[Draft], people: dict[int, Outcome]) -> None:
    """Everyone has exactly one outcome a channel, and the ledger's counts say so."""
    lines = ledger(counted(chunks))
    for channel in Channel:
        assert sum(line.count for line in lines if line.channel is channel) == len(people)
    assert all(len(channels) == len(Channel) for channels in by_person(chunks).values())
