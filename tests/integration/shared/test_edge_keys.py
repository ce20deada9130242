"""Keys behind a URL: fetched over HTTP, and rotated without a restart."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from shared.auth import AuthSettings, TokenVerifier
from shared.errors import DependencyUnavailable, Unauthenticated
from shared.jwks import KeyUrl
from shared.settings import SettingsError
from tests.integration.shared.certificates import Authority
from tests.unit.shared.signing import AUDIENCE, ISSUER, Signer


class KeyServer:
    """An identity provider's address, answering every request with `answer`."""

    def __init__(self) -> None:
        self.answer = b""
        self.status = "200 OK"
        self.headers = ""
        self.asked = 0
        self.is_slow = False

    def publish(self, *signers: Signer) -> None:
        """Shows the public keys of these."""
        self.answer = json.dumps({"keys": [signer.public() for signer in signers]}).encode()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[str]:
        """Its URL, for the time of the block."""
        server = await asyncio.start_server(self._respond, "127.0.0.1", port, ssl=tls)
        async with server:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        headers = f"content-length: {len(self.answer)}\r\n{self.headers}connection: close\r\n\r\n"
        whole = f"HTTP/1.1 {self.status}\r\n{headers}".encode() + self.answer
        with suppress(ConnectionError):
            for part in map(bytes, zip(whole, strict=True)) if self.is_slow else (whole,):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02 if self.is_slow else 0)
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


async def test_flood_of_made_up_keys_asks_the_provider_once() -> None:
    """Whoever invents key ids has us ask for them once in ten seconds, whatever their number, and locks nobody out."""
    keys, first = KeyServer(), Signer("first")
    keys.publish(first)
    async with keys.running() as url:
        verifier = await TokenVerifier.open(settings(url))
        flood = [
            verifier.verify(first.token(headers={"kid": f"made-up-{number}"})) for number in range(1_000)
        ]
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unauthenticated}
        assert (await verifier.verify(first.token())).subject == "billing"
        assert keys.asked == 2


async def test_provider_that_goes_away_locks_nobody_out() -> None:
    """Nobody listens there any more: the keys that were there hold, for tokens that were not seen before as well."""
    first, unknown = Signer("first"), Signer("unknown")
    keys = KeyServer()
    keys.publish(first)
    async with keys.running() as url:
        verifier = await TokenVerifier.open(settings(url))
    with pytest.raises(Unauthenticated):
        await verifier.verify(unknown.token())
    assert (await verifier.verify(first.token())).subject == "billing"


async def test_keys_come_from_the_provider_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS its certificate must be one that this machine trusts."""
    authority, keys, first = Authority(tmp_path), KeyServer(), Signer("first")
    keys.publish(first)
    shown = authority.transport("provider")
    assert shown.certificate is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown.certificate, shown.key)
    async with keys.running(context) as url:
        with pytest.raises(SettingsError, match="CERTIFICATE_VERIFY_FAILED"):
            await TokenVerifier.open(settings(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        verifier = await TokenVerifier.open(settings(url))
        assert (await verifier.verify(first.token())).subject == "billing"


async def test_provider_that_sends_elsewhere_is_not_followed() -> None:
    """A redirect could lead from https to http, or to whoever can write one."""
    keys, elsewhere = KeyServer(), KeyServer()
    elsewhere.publish(Signer("first"))
    async with elsewhere.running() as other, keys.running() as url:
        keys.status, keys.headers = "302 Found", f"location: {other}\r\n"
        with pytest.raises(SettingsError, match="302"):
            await TokenVerifier.open(settings(url))
    assert elsewhere.asked == 0


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests", "no status"]
)
async def test_start_while_the_provider_is_down_can_be_tried_again(status: str) -> None:
    """Nothing is wrong with the settings: a supervisor starts the process again, and then it finds the keys."""
    keys = KeyServer()
    keys.status = status
    async with keys.running() as url:
        with pytest.raises(DependencyUnavailable):
            await TokenVerifier.open(settings(url))
    with pytest.raises(DependencyUnavailable, match=f"refused.*AUTH_JWKS is {url}"):
        await TokenVerifier.open(settings(url))


async def test_provider_that_answers_too_slowly_is_not_waited_for() -> None:
    """A byte now and then keeps a connection alive, and must not keep everybody waiting."""
    keys = KeyServer()
    keys.publish(Signer("first"))
    keys.is_slow = True
    async with keys.running() as url:
        with pytest.raises(DependencyUnavailable):
            await KeyUrl(url, fetch_timeout_s=0.2).read()


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
