"""Owns texts that are opaque outside: page tokens and cursors, versioned, url-safe, and worth nothing elsewhere."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from shared.errors import FieldViolation, InvalidPageToken

_VERSION: Final = 1
_DIGEST_BYTES: Final = 12
_LENGTH_BYTES: Final = 2


def encode(raw: bytes) -> str:
    """These bytes as an opaque text."""
    return urlsafe_b64encode(bytes([_VERSION]) + raw).decode().rstrip("=")


def decode(text: str) -> bytes:
    """What `encode` was given. Raises ValueError for a text that it did not make."""
    raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if not raw or raw[0] != _VERSION or encode(raw[1:]) != text:
        raise ValueError("not a text of ours")
    return raw[1:]


def write_page_token(place: bytes, query: bytes) -> str:
    """The name of the page that begins after `place`, for `query` alone: whatever tells who asks, and for what.

    It is no secret: whoever makes one up gets nothing that the query would not give them without it.
    """
    return encode(place + _digest(place, query))


def read_page_token(token: str, query: bytes) -> bytes:
    """The place that a token names. Raises InvalidPageToken for one that this query did not give."""
    try:
        raw = decode(token)
    except ValueError as error:
        raise refused_page_token() from error
    place, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if digest != _digest(place, query):
        raise refused_page_token()
    return place


def refused_page_token() -> InvalidPageToken:
    """The error for a token that names no place of its query."""
    return InvalidPageToken(
        violations=[FieldViolation("page_token", "must be the next_page_token of this very query")]
    )


def _digest(place: bytes, query: bytes) -> bytes:
    told = len(place).to_bytes(_LENGTH_BYTES) + place + query
    return hashlib.blake2b(told, digest_size=_DIGEST_BYTES).digest()
