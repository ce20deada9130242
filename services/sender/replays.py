"""Gives a repeated call its first answer, whatever has changed since."""

import hashlib
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from services.sender.directory import author_of
from services.sender.rules import is_id
from services.sender.store import Answer, CallStore, Request
from shared.auth import current_identity
from shared.errors import RequestIdReused


class Repeatable(Protocol):
    """A request whose caller may give it an id of their own."""

    request_id: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:
        """From protobuf's Message."""


_Response = TypeVar("_Response", bound=Message)


class Replays:
    """The answers that are kept. What is refused is not kept: its repetition is judged anew."""

    def __init__(self, store: CallStore) -> None:
        self._store = store

    async def find(
        self, method: str, message: Repeatable, response_class: type[_Response]
    ) -> _Response | None:
        """The first answer to this caller's request_id; None for a new one. Raises RequestIdReused for another body."""
        request = request_of(method, message)
        answer = await self._store.find_answer(request) if request else None
        return None if answer is None else answer_to(request, answer, response_class)

    async def remember(self, method: str, message: Repeatable, response: _Response) -> _Response:
        """Keep an answer; the one to give, which is another call's if that came first."""
        request = request_of(method, message)
        if request is None:
            return response
        answer = await self._store.remember_answer(request, response.SerializeToString())
        return response if answer is None else answer_to(request, answer, type(response))


def request_of(method: str, message: Repeatable) -> Request | None:
    """What a repetition of this call is known by; None when it has no id, or one that its rules will refuse."""
    if not is_id(message.request_id):
        return None
    body_hash = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
    return Request(author_of(current_identity()).name, method, message.request_id, body_hash)


def answer_to(request: Request | None, answer: Answer, response_class: type[_Response]) -> _Response:
    """The answer that stands, as a message. Raises RequestIdReused when it was given to another body."""
    if request is None or answer.body_hash != request.body_hash:
        raise RequestIdReused
    return response_class.FromString(answer.response)
