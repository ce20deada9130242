"""Keys behind a URL: fetched over HTTP, and rotated without a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.auth import AuthSettings, TokenVerifier
from shared.errors import Unauthenticated
from shared.settings import SettingsError
from tests.unit.shared.signing import AUDIENCE, ISSUER, Signer


class KeyServer:
    """An identity provider's address, answering every request with `answer`."""

    def __init__(self) -> None:
        self.answer = b""
        self.status = "200 OK"

    def publish(self, *signers: Signer) -> None:
        """Shows the public keys of these."""
        self.answer = json.dumps({"keys": [signer.public() for signer in signers]}).encode()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its URL, for the time of the block."""
        server = await asyncio.start_server(self._respond, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(self.answer)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + self.answer)
        await writer.drain()
        writer.close()


def settings(url: str) -> AuthSettings:
    """Whose tokens are taken."""
    return AuthSettings(url, ISSUER, AUDIENCE)


async def test_keys_are_fetched_and_rotated() -> None:
    """A token by the first key is good at once, one by a key that appears later without a restart."""
    first, second, unknown = Signer("first"), Signer("second"), Signer("unknown")
    keys = KeyServer()
    keys.publish(first)
    async with keys.running() as url:
        verifier = await TokenVerifier.open(settings(url))
        assert (await verifier.verify(first.token())).subject == "billing"
        keys.publish(first, second)
        assert (await verifier.verify(second.token())).subject == "billing"
        with pytest.raises(Unauthenticated):
            await verifier.verify(unknown.token())


async def test_provider_that_fails_locks_nobody_out() -> None:
    """An error page in place of the keys leaves those that were there."""
    first, unknown = Signer("first"), Signer("unknown")
    keys = KeyServer()
    keys.publish(first)
    async with keys.running() as url:
        verifier = await TokenVerifier.open(settings(url))
        keys.status, keys.answer = "500 Internal Server Error", b"<html>"
        with pytest.raises(Unauthenticated):
            await verifier.verify(unknown.token())
        assert (await verifier.verify(first.token())).subject == "billing"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("404 Not Found", b""),
        ("200 OK", b"<html>"),
        ("200 OK", b'{"keys": []}'),
        ("200 OK", b" " * (2 << 20)),
    ],
    ids=["missing", "no JSON", "no keys", "huge"],
)
async def test_start_without_keys_names_the_setting(status: str, answer: bytes) -> None:
    """A server that could verify nothing does not start."""
    keys = KeyServer()
    keys.status, keys.answer = status, answer
    async with keys.running() as url:
        with pytest.raises(SettingsError, match="AUTH_JWKS"):
            await TokenVerifier.open(settings(url))
