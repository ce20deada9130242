"""Does what a call asks for once, however often it comes: a repeated call gets its first answer, whatever has changed.

A call is known by its caller, its method and its request_id, for 24 hours; another body under that id is refused. The
tables and functions are in `sql/requests_template.sql`, which the owning schema's migration copies.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from shared.auth import current_identity
from shared.cleaning import RowChore
from shared.database import Database, Transaction
from shared.errors import FieldViolation, RequestIdReused
from shared.queries import load
from shared.validation import is_id

_SQL: Final = Path(__file__).parent / "sql" / "requests.sql"
# As long as `answers_hold_after` says.
_HOLDS_FOR: Final = timedelta(hours=24)
_Response = TypeVar("_Response", bound=Message)
# Is done in the transaction that it is given, and acts on nothing else.
Work: TypeAlias = Callable[[Transaction], Awaitable[_Response]]


class Repeatable(Protocol):
    """A request whose caller may give it an id of their own."""

    request_id: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802
        """From protobuf's Message."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call that may be repeated: its caller's own id for it, and what tells another body apart."""

    caller: str
    method: str
    request_id: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request_id was answered, as serialised, and the hash of the body that it came with.

    While it is not whole, the work is done and a part of the answer is not known yet.
    """

    body_hash: bytes
    response: bytes
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Done(Generic[_Response]):
    """The answer to a call whose work is done, by this call or by the one that it repeats.

    Whoever gets one that is not whole finds out the rest of it.
    """

    response: _Response
    is_whole: bool
    is_repeated: bool


class AnswerStore(Protocol):
    """Where first answers are kept."""

    async def find_answer(self, request: Request) -> Answer | None:
        """The first answer to a request_id, None for a new one."""

    async def remember_answer(self, request: Request, response: bytes) -> Answer | None:
        """Keep the answer to a request_id; the one that stands, which another call may have kept before."""


class Replays:
    """The answers that are kept. What is refused is not kept: its repetition is judged anew."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store

    async def find(
        self, method: str, message: Repeatable, response_class: type[_Response]
    ) -> _Response | None:
        """The first answer to this caller's request_id; None for a new one. Raises RequestIdReused for another body."""
        return await _find(self._store.find_answer, method, message, response_class)

    async def remember(self, method: str, message: Repeatable, response: _Response) -> _Response:
        """Keep an answer; the one to give, which is another call's if that came first."""
        request = request_of(method, message)
        if request is None:
            return response
        answer = await self._store.remember_answer(request, response.SerializeToString())
        return response if answer is None else answer_to(request, answer, type(response))


class KeptAnswers:
    """The answers of one schema, kept in the transactions of the work that they are about."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database = database
        self._queries = load(_SQL, schema=schema)

    def replay(
        self, method: str, response_class: type[_Response]
    ) -> Callable[[Repeatable], Awaitable[_Response | None]]:
        """What gives an edge the first answers to repeated calls of a method."""

        async def find(message: Repeatable) -> _Response | None:
            return await _find(self.find, method, message, response_class)

        return find

    async def find(self, request: Request) -> Answer | None:
        """The whole answer to a request_id; None when it is new, free again, or not answered yet."""
        row = await self._database.fetchrow(
            self._queries["find"], request.caller, request.method, request.request_id
        )
        return None if row is None else Answer(row["known_body_hash"], row["known_response"])

    async def take(self, transaction: Transaction, request: Request) -> Answer | None:
        """Take a request_id for the work of this transaction; or else what it was taken for and answered.

        Waits for a transaction that has taken it and has not ended.
        """
        row = await transaction.fetchrow(
            self._queries["take"], request.caller, request.method, request.request_id, request.body_hash
        )
        if row is None:
            return None
        return Answer(row["known_body_hash"], row["known_response"], row["known_is_whole"])

    async def keep(
        self, transaction: Transaction, request: Request, response: bytes, *, is_whole: bool
    ) -> None:
        """Keep what a request that this transaction has taken is answered."""
        await transaction.execute(self._queries["keep"], *_columns([(request, response)]), is_whole)

    async def complete(self, answers: Sequence[tuple[Request, bytes]]) -> list[bytes]:
        """Keep the whole answers to requests that were taken; what stands, which is another's that was whole before."""
        rows = await self._database.fetch_retrying(self._queries["complete"], *_columns(answers))
        standing = {answers[row["place"] - 1][0]: row["response"] for row in rows}
        return [standing.get(request, response) for request, response in answers]


class OnceOnly(KeptAnswers):
    """Does the work of calls, each in one transaction with its answer, so that no crash parts the two."""

    async def do(
        self, method: str, message: Repeatable, response_class: type[_Response], work: Work[_Response]
    ) -> _Response:
        """What `work` answers, or what this call was answered before. Raises RequestIdReused and what `work` raises."""
        done = await self._run(method, message, response_class, work, is_whole=True)
        return done.response

    async def begin(
        self, method: str, message: Repeatable, response_class: type[_Response], work: Work[_Response]
    ) -> Done[_Response]:
        """The same for an answer of which a part is known only after the commit: `finish` must follow one not whole."""
        return await self._run(method, message, response_class, work, is_whole=False)

    async def finish(self, method: str, message: Repeatable, response: _Response) -> _Response:
        """Keep the whole answer to a call that was begun; the one to give, which is another's if that came first."""
        request = request_of(method, message)
        if request is None:
            return response
        [standing] = await self.complete([(request, response.SerializeToString())])
        return type(response).FromString(standing)

    async def _run(
        self,
        method: str,
        message: Repeatable,
        response_class: type[_Response],
        work: Work[_Response],
        *,
        is_whole: bool,
    ) -> Done[_Response]:
        request = request_of(method, message)
        async with self._database.transaction() as transaction:
            if request is not None:
                earlier = await self.take(transaction, request)
                if earlier is not None:
                    response = answer_to(request, earlier, response_class)
                    return Done(response, earlier.is_whole, is_repeated=True)
            response = await work(transaction)
            if request is not None:
                given = response.SerializeToString()
                await self.keep(transaction, request, given, is_whole=is_whole)
        return Done(response, is_whole, is_repeated=False)


def retention(worked: Database, schema: str) -> RowChore:
    """Removes the answers of a schema that hold no longer, and that nobody asks for again."""
    queries = load(_SQL, schema=schema)
    return RowChore("requests", _HOLDS_FOR, worked, queries["count_old"], queries["remove_old"])


def request_of(method: str, message: Repeatable) -> Request | None:
    """What a repetition of this call is known by; None when it has no id, or one that its rules will refuse."""
    if not is_id(message.request_id):
        return None
    body_hash = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
    return Request(current_identity().name, method, message.request_id, body_hash)


def answer_to(request: Request | None, answer: Answer, response_class: type[_Response]) -> _Response:
    """The answer that stands, as a message. Raises RequestIdReused when it was given to another body."""
    if request is None or answer.body_hash != request.body_hash:
        raise id_reused()
    return response_class.FromString(answer.response)


def id_reused() -> RequestIdReused:
    """The refusal of another body, which names the field to change."""
    rule = "belongs to a call of the last 24 hours with another body; a new call needs a new one"
    return RequestIdReused(violations=[FieldViolation("request_id", rule)])


def _columns(answers: Sequence[tuple[Request, bytes]]) -> list[list[object]]:
    """Callers, methods, ids and answers."""
    return [
        [request.caller for request, _ in answers],
        [request.method for request, _ in answers],
        [request.request_id for request, _ in answers],
        [response for _, response in answers],
    ]


async def _find(
    find: Callable[[Request], Awaitable[Answer | None]],
    method: str,
    message: Repeatable,
    response_class: type[_Response],
) -> _Response | None:
    request = request_of(method, message)
    answer = await find(request) if request else None
    return None if answer is None else answer_to(request, answer, response_class)
