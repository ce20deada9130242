"""What a repetition of a call is known by, and what it is answered."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from wedsync.broadcast.v1 import directory_pb2
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, MarkAllReadResponse
from wedsync.broadcast.v1.sender_pb2 import CancelBroadcastRequest

from shared.auth import Identity, SubjectKind, _caller, set_caller
from shared.errors import RequestIdReused
from shared.replays import Answer, Replays, Request, answer_to, request_of

PERSON = uuid4()
LATER = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nobody_speaks_afterwards() -> Iterator[None]:
    """Whoever spoke in a test is silent in the next one."""
    before = _caller.get()
    yield
    _caller.set(before)


def speak_as(subject: str) -> None:
    """The caller of what follows: a person when the subject is a UUID."""
    try:
        identity = Identity(subject, SubjectKind.USER, UUID(subject), frozenset(), LATER)
    except ValueError:
        identity = Identity(subject, SubjectKind.SERVICE, None, frozenset({"broadcast.send"}), LATER)
    set_caller(identity, None)


class Kept:
    """Answers in memory, with all that was asked of them."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str, str], Answer] = {}
        self.asked = 0

    async def find_answer(self, request: Request) -> Answer | None:
        self.asked += 1
        return self.answers.get((request.caller, request.method, request.request_id))

    async def remember_answer(self, request: Request, response: bytes) -> Answer | None:
        key = (request.caller, request.method, request.request_id)
        return self.answers.setdefault(key, Answer(request.body_hash, response))


def test_caller_method_id_and_body_tell_requests_apart() -> None:
    """The same call again is the same request, and whatever differs makes it another."""
    first = CancelBroadcastRequest(request_id=str(uuid4()), reason="rain")
    speak_as(str(PERSON))
    known = request_of("CancelBroadcast", first)
    assert known is not None
    assert known == request_of(
        "CancelBroadcast", CancelBroadcastRequest.FromString(first.SerializeToString())
    )
    assert known.caller == str(PERSON)
    assert known != request_of("OtherMethod", first)
    other_body = request_of("CancelBroadcast", CancelBroadcastRequest(request_id=first.request_id))
    assert other_body is not None
    assert (other_body.request_id, other_body.body_hash == known.body_hash) == (known.request_id, False)
    speak_as("billing")
    assert known != request_of("CancelBroadcast", first)


@pytest.mark.parametrize("request_id", ["", "again", "0" * 32, f"{{{uuid4()}}}", f"{uuid4()}\n"])
def test_calls_without_a_usable_id_are_not_requests(request_id: str) -> None:
    """None was asked for, or the rules of the contract will refuse what was given."""
    speak_as("billing")
    assert request_of("MarkAllRead", MarkAllReadRequest(request_id=request_id)) is None


def test_body_of_the_largest_upsert_is_told_apart_by_its_last_letter() -> None:
    """A thousand people, of whom one has another name."""
    speak_as("directory-sync")
    people = [directory_pb2.Recipient(user_id=str(uuid4()), display_name="Petra") for _ in range(1_000)]
    upsert = directory_pb2.UpsertRecipientsRequest(request_id=str(uuid4()), recipients=people)
    before = request_of("UpsertRecipients", upsert)
    upsert.recipients[-1].display_name = "Petru"
    after = request_of("UpsertRecipients", upsert)
    assert before is not None
    assert after is not None
    assert before.body_hash != after.body_hash


def test_answer_to_another_body_is_refused() -> None:
    """Whoever reuses an id learns so, and nothing of the first answer."""
    request = Request("billing", "MarkAllRead", str(uuid4()), bytes(32))
    response = MarkAllReadResponse(unread_count=3)
    kept = Answer(bytes(32), response.SerializeToString())
    assert answer_to(request, kept, MarkAllReadResponse) == response
    with pytest.raises(RequestIdReused) as refused:
        answer_to(request, Answer(b"1" * 32, kept.response), MarkAllReadResponse)
    assert [each.field for each in refused.value.violations] == ["request_id"]


async def test_first_answer_stands_whatever_comes_later() -> None:
    """Found again, and not replaced by that of a call which was under way at the same time."""
    speak_as("billing")
    kept = Kept()
    replays = Replays(kept)
    message = MarkAllReadRequest(request_id=str(uuid4()))
    assert await replays.find("MarkAllRead", message, MarkAllReadResponse) is None
    first = await replays.remember("MarkAllRead", message, MarkAllReadResponse(unread_count=1))
    second = await replays.remember("MarkAllRead", message, MarkAllReadResponse(unread_count=2))
    assert first == second == await replays.find("MarkAllRead", message, MarkAllReadResponse)


async def test_calls_without_an_id_cost_no_lookup_and_keep_nothing() -> None:
    """Each is a call of its own."""
    speak_as("billing")
    kept = Kept()
    replays = Replays(kept)
    assert await replays.find("MarkAllRead", MarkAllReadRequest(), MarkAllReadResponse) is None
    answer = MarkAllReadResponse(unread_count=1)
    assert await replays.remember("MarkAllRead", MarkAllReadRequest(), answer) is answer
    assert (kept.asked, kept.answers) == (0, {})
