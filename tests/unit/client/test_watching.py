"""A watch says each thing once, in order, whatever ends the streams that it is made of, until that is no use."""

import asyncio
from collections.abc import AsyncIterable

import grpc
import jwt
import pytest
from wedsync.broadcast.client import (
    Added,
    BroadcastError,
    ConfigurationError,
    Event,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Snapshot,
    Unauthenticated,
    Unavailable,
)
from wedsync.broadcast.v1.common_pb2 import BroadcastState
from wedsync.broadcast.v1.sender_pb2 import WatchBroadcastResponse

from shared import errors
from tests.unit.client.suite import Step, Suite

AWAY = grpc.StatusCode.UNAVAILABLE
SENT = WatchBroadcastResponse(state=BroadcastState.BROADCAST_STATE_SENT)
PENDING = WatchBroadcastResponse(state=BroadcastState.BROADCAST_STATE_PENDING)


async def _first(events: AsyncIterable[Event], count: int) -> list[Event]:
    """So many events of a watch."""
    found: list[Event] = []
    async with asyncio.timeout(10.0):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


def _ids(events: list[Event]) -> list[str]:
    return [event.item.broadcast_id for event in events if isinstance(event, Added)]


@pytest.mark.parametrize(
    "ending",
    [
        AWAY,
        None,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        errors.DependencyUnavailable(),
        errors.SlowReader(metadata={"cursor": "99"}),
        errors.TooManyStreams(retry_after_s=3.0),
    ],
    ids=str,
)
async def test_a_watch_goes_on_after_any_interruption(suite: Suite, ending: Step) -> None:
    """Each item once and in order, however often the stream ends after each of them."""
    suite.inbox.log = [f"item {number}" for number in range(6)]
    suite.inbox.streams += [(1, ending), (0, ending), (2, ending), (1, ending)]
    async with suite.client() as client:
        watch = client.inbox().watch(cursor="0")
        events = await _first(watch, 6)
    assert suite.inbox.log == _ids(events)
    assert ["0", "1", "1", "3", "4"] == [asked.request.cursor for asked in suite.inbox.script.asked]
    assert [event.cursor for event in events] == ["1", "2", "3", "4", "5", "6"]
    assert watch.cursor == "6"


async def test_a_watch_without_a_cursor_begins_with_a_snapshot(suite: Suite) -> None:
    """Everything that is there, and from then on what comes."""
    suite.inbox.log = ["old"]
    suite.inbox.streams += [(1, AWAY)]
    async with suite.client() as client:
        events = aiter(client.inbox().watch())
        first = await anext(events)
        suite.inbox.log.append("new")
        second = await anext(events)
    assert isinstance(first, Snapshot)
    assert ([item.broadcast_id for item in first.items], first.unread_count) == (["old"], 1)
    assert not first.recovered
    assert _ids([second]) == ["new"]


async def test_a_watch_comes_back_when_it_was_told(suite: Suite) -> None:
    """After the hint where there is one, else after pauses that grow until something is heard."""
    suite.inbox.log = ["item"]
    suite.inbox.script.steps += [errors.TooManyStreams(retry_after_s=7.0), AWAY, AWAY, AWAY]
    suite.inbox.streams += [(1, AWAY)]
    async with suite.client() as client:
        await _first(client.inbox().watch(cursor="0"), 1)
        events = aiter(client.inbox().watch(cursor="0"))
        await anext(events)
        suite.inbox.log.append("another")
    assert suite.pauses.slept == [7.0, 0.2, 0.4, 0.8]


async def test_a_watch_that_was_told_to_come_at_once_pauses(suite: Suite) -> None:
    """It would do nothing else until there is room."""
    suite.inbox.script.steps += [errors.TooManyStreams(retry_after_s=0.0)] * 2
    async with suite.client() as client:
        await _first(client.inbox().watch(), 1)
    assert suite.pauses.slept == [0.1, 0.1]


async def test_a_watch_that_was_away_too_long_begins_anew(suite: Suite) -> None:
    """With a snapshot that says so, and goes on from there."""
    suite.inbox.log = ["a", "b"]
    suite.inbox.streams += [(1, AWAY), (1, AWAY)]
    async with suite.client() as client:
        events = aiter(client.inbox().watch(cursor="0"))
        first = await anext(events)
        suite.inbox.kept_from = 2
        again = await anext(events)
        suite.inbox.log.append("c")
        last = await anext(events)
    assert isinstance(again, Snapshot)
    assert not again.recovered
    assert (_ids([first, last]), len(again.items)) == (["a", "c"], 2)


async def test_what_is_no_cursor_is_the_callers_mistake(suite: Suite) -> None:
    """No other try would mend it."""
    suite.inbox.script.steps += [errors.InvalidCursor()]
    async with suite.client() as client:
        with pytest.raises(InvalidRequest):
            await _first(client.inbox().watch(cursor="nonsense"), 1)


async def test_a_watch_has_a_new_token_when_the_old_one_ends(suite: Suite) -> None:
    """Asked for once, when the stream ends with the old one, and the watch goes on where it was."""
    given = iter(["first", "second"])

    async def ask() -> str:
        return next(given)

    suite.inbox.log = ["a", "b"]
    suite.inbox.streams += [(1, errors.TokenExpired())]
    async with suite.client() as client:
        events = await _first(client.inbox(ask).watch(cursor="0"), 2)
    assert _ids(events) == ["a", "b"]
    assert suite.inbox.script.tokens() == ["first", "second"]
    assert suite.pauses.slept == []


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(errors.Unauthenticated(), Unauthenticated), (errors.PermissionDenied(), PermissionDenied)],
)
async def test_a_watch_that_may_not_is_given_up(
    suite: Suite, refusal: errors.ServiceError, kind: type[BroadcastError]
) -> None:
    """When the token that was asked for anew is refused as well; at once when there is only one."""
    numbers = iter(range(10))

    async def ask() -> str:
        return f"token-{next(numbers)}"

    suite.inbox.script.steps += [refusal] * 3
    async with suite.client() as client:
        with pytest.raises(kind):
            await _first(client.inbox(ask).watch(), 1)
        assert suite.inbox.script.tokens() == ["token-0", "token-1"]
        with pytest.raises(kind):
            await _first(client.inbox("the-only-one").watch(), 1)
    assert suite.inbox.script.tokens()[2:] == ["the-only-one"]


async def test_a_watch_waits_for_its_token(suite: Suite) -> None:
    """Whatever the function that gives it raises: it is told, and asked again after pauses that grow."""
    given: list[str | Exception] = ["first", OSError("no route"), ValueError("no JSON"), "", "second"]

    async def ask() -> str:
        answer = given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    told: list[BroadcastError] = []
    suite.inbox.log = ["a", "b"]
    suite.inbox.streams += [(1, errors.TokenExpired())]
    async with suite.client() as client:
        events = await _first(client.inbox(ask).watch(cursor="0", on_interruption=told.append), 2)
    assert _ids(events) == ["a", "b"]
    assert suite.inbox.script.tokens() == ["first", "second"]
    assert suite.pauses.slept == [0.1, 0.2, 0.4]
    assert [type(error.__cause__) for error in told] == [OSError, ValueError, ConfigurationError]
    assert str(told[0]) == "UNAVAILABLE: No token was to be had (OSError)."


async def test_a_token_that_ends_in_an_outage_is_waited_for(suite: Suite) -> None:
    """Nothing was refused: it is asked for because it is about to expire."""
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise TimeoutError
        return jwt.encode({"exp": 0}, "x" * 32, algorithm="HS256")

    suite.inbox.log = ["a", "b"]
    suite.inbox.streams += [(1, AWAY)]
    async with suite.client() as client:
        assert _ids(await _first(client.inbox(ask).watch(cursor="0"), 2)) == ["a", "b"]
    assert (asked, suite.pauses.slept) == (3, [0.1, 0.2])


async def test_patience_ends_for_tokens_as_well(suite: Suite) -> None:
    """What the function raised last is the cause of the error."""
    reason = OSError("the identity provider is away")
    given = ["first"]

    async def ask() -> str:
        if not given:
            raise reason
        return given.pop()

    suite.inbox.log = ["a"]
    suite.inbox.streams += [(1, errors.TokenExpired())]
    async with suite.client() as client:
        with pytest.raises(Unavailable) as ended:
            await _first(client.inbox(ask).watch(cursor="0", patience_s=10.0), 2)
    assert ended.value.__cause__ is reason
    assert 5.0 < sum(suite.pauses.slept) <= 10.0


async def test_a_watch_that_has_no_token_to_begin_with_does_not_begin(suite: Suite) -> None:
    """What the function raises is the caller's own."""

    async def ask() -> str:
        raise OSError

    async with suite.client() as client:
        with pytest.raises(OSError):  # noqa: PT011 # no other is near
            await _first(client.inbox(ask).watch(), 1)
    assert (suite.inbox.script.asked, suite.pauses.slept) == ([], [])


async def test_a_token_that_outlived_an_outage_may_be_refused(suite: Suite) -> None:
    """It was new before that; another is asked for."""
    numbers = iter(range(10))

    async def ask() -> str:
        return f"token-{next(numbers)}"

    suite.inbox.script.steps += [errors.TokenExpired(), AWAY, errors.TokenExpired()]
    async with suite.client() as client:
        await _first(client.inbox(ask).watch(), 1)
    assert suite.inbox.script.tokens() == ["token-0", "token-1", "token-1", "token-2"]


async def test_patience_can_end(suite: Suite) -> None:
    """Once nothing would have been heard for so long; until then each interruption is told."""
    suite.inbox.script.steps += [AWAY] * 20
    told: list[BroadcastError] = []
    async with suite.client() as client:
        watch = client.inbox().watch(patience_s=10.0, on_interruption=told.append)
        with pytest.raises(Unavailable):
            await _first(watch, 1)
    assert 5.0 < sum(suite.pauses.slept) <= 10.0
    assert [error.code() for error in told] == [AWAY] * len(suite.pauses.slept)


async def test_patience_begins_with_the_interruption(suite: Suite) -> None:
    """However long nothing was told before, because nothing happened."""

    async def leave_after_an_hour(context: "grpc.aio.ServicerContext[object, object]") -> None:
        suite.pauses.slept.append(3_600.0)
        await context.abort(AWAY, "leaving")

    suite.sender.progress += [[PENDING], [SENT]]
    suite.sender.endings += [leave_after_an_hour]
    async with suite.client() as client:
        states = [progress.state async for progress in client.watch("b", patience_s=5.0)]
    assert states == [PENDING.state, SENT.state]


async def test_what_is_told_of_an_interruption_may_end_the_watch(suite: Suite) -> None:
    """By raising."""

    def enough(error: BroadcastError) -> None:
        raise error

    suite.inbox.script.steps += [AWAY]
    async with suite.client() as client:
        with pytest.raises(Unavailable):
            await _first(client.inbox().watch(on_interruption=enough), 1)
    assert suite.pauses.slept == []


async def test_a_defect_is_no_interruption(suite: Suite) -> None:
    """A service that says that it is broken would say so again."""
    suite.inbox.script.steps += [errors.Internal()]
    async with suite.client() as client:
        with pytest.raises(BroadcastError, match="INTERNAL"):
            await _first(client.inbox().watch(), 1)


async def test_a_stream_that_is_silent_is_left(suite: Suite) -> None:
    """A quiet one gives signs of life; where those stay away nobody is left to end the stream."""
    suite.inbox.log = ["a"]
    suite.inbox.streams += [(0, _stay)]
    told: list[BroadcastError] = []
    async with suite.client() as client:
        watch = client.inbox().watch(cursor="0", silence_s=0.2, on_interruption=told.append)
        assert _ids(await _first(watch, 1)) == ["a"]
    assert [str(error) for error in told] == ["UNAVAILABLE: Nothing was heard for 0.2 s."]


async def test_a_sign_of_life_is_heard_and_its_cursor_kept(suite: Suite) -> None:
    """While much is caught up with, nothing else may come for longer than a silence: nobody leaves, nor goes back."""
    suite.inbox.log = ["a", "b", "c"]
    suite.inbox.signs_of_life += ["1", "1", "2", "2"]
    suite.inbox.sign_every_s = 0.6
    suite.inbox.streams += [(0, AWAY)]
    told: list[BroadcastError] = []
    async with suite.client() as client:
        watch = client.inbox().watch(cursor="0", silence_s=2.0, on_interruption=told.append)
        assert _ids(await _first(watch, 1)) == ["c"]
    assert [asked.request.cursor for asked in suite.inbox.script.asked] == ["0", "2"]
    assert [str(error) for error in told] == ["UNAVAILABLE: as the script says"]


async def _stay(_: "grpc.aio.ServicerContext[object, object]") -> None:
    await asyncio.Event().wait()


async def test_whoever_stops_watching_leaves_no_stream_behind(suite: Suite) -> None:
    """The server learns that nobody listens any more."""
    left = asyncio.Event()

    async def until_left(context: "grpc.aio.ServicerContext[object, object]") -> None:
        context.add_done_callback(lambda _: left.set())
        await asyncio.Event().wait()

    suite.inbox.streams += [(1, until_left)]
    async with suite.client() as client:
        await _first(client.inbox().watch(), 1)
        async with asyncio.timeout(10.0):
            await left.wait()


async def test_progress_is_told_once_and_to_its_end(suite: Suite) -> None:
    """What a new stream begins with is left out when the one before has said it, and the last one ends the watch."""
    suite.sender.progress += [[PENDING], [PENDING, SENT]]
    suite.sender.endings += [AWAY]
    async with suite.client() as client:
        states = [progress.state async for progress in client.watch("b")]
    assert states == [PENDING.state, SENT.state]


async def test_what_is_not_there_is_not_watched(suite: Suite) -> None:
    """However often one would ask."""
    suite.sender.script.steps += [errors.NotFound()]
    async with suite.client() as client:
        with pytest.raises(NotFound):
            _ = [progress async for progress in client.watch("b")]
