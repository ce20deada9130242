"""NATS by a `tls://` address: encrypted from the first byte, with a server that is checked and may ask who we are."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typing_extensions import override

from shared.errors import DependencyUnavailable
from shared.messaging import Messaging, MessagingSettings, connect
from shared.provisioning import provision
from shared.settings import Environment
from shared.tls import Transport
from stack.nats import NatsServer, NatsUser
from stack.ports import Ports
from stack.processes import start
from tests.integration.shared.certificates import Authority, variables
from tests.integration.shared.nats_site import CONSUMER, STREAM

_LOGIN = {"SENDER_NATS_USER": "tester", "SENDER_NATS_PASSWORD": "secret"}


class ProtectedNatsServer(NatsServer):
    """A server that begins with the handshake, and asks whoever comes for a certificate."""

    def __init__(self, folder: Path, transport: Transport) -> None:
        user = NatsUser("tester", "secret", publish=(">",), subscribe=(">",))
        self.port = Ports(folder / "ports.json").choose("nats")
        super().__init__(folder / "nats", folder, self.port, [user])
        self._log = folder / "nats.log"
        self._transport = transport

    @override
    def is_ready(self) -> bool:
        return self._log.exists() and "Server is ready" in self._log.read_text()

    @override
    def _configuration(self) -> str:
        tls = {
            "cert_file": str(self._transport.certificate),
            "key_file": str(self._transport.key),
            "ca_file": str(self._transport.authority),
            "verify": True,
            "handshake_first": True,
        }
        return json.dumps({**json.loads(super()._configuration()), "tls": tls})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whoever signs for both sides."""
    return Authority(tmp_path)


@pytest.fixture
async def url(tmp_path: Path, authority: Authority) -> AsyncIterator[str]:
    """The address of a server that speaks TLS with those who show a certificate, and has the stream of the tests."""
    server = ProtectedNatsServer(tmp_path, authority.transport("nats"))
    running = start(server)
    address = f"tls://127.0.0.1:{server.port}"
    tls = authority.transport("provisioner").client_context()
    await provision(
        address, user="tester", password="secret", tls=tls, streams=[STREAM], consumers=[CONSUMER]
    )
    yield address
    running.stop()


@asynccontextmanager
async def _connected(url: str, files: Mapping[str, str]) -> AsyncIterator[Messaging]:
    settings = MessagingSettings.read(Environment({"NATS_URL": url, **_LOGIN, **files}), "SENDER")
    messaging = await connect(settings, wait_s=1.0)
    try:
        yield messaging
    finally:
        await messaging.drain()


async def test_a_service_with_a_certificate_publishes(url: str, authority: Authority) -> None:
    """By its settings alone: the same three files as for calls."""
    async with _connected(url, variables(authority.transport("sender"))) as messaging:
        await messaging.publish("test.fast", b"x", "id")


async def test_whoever_cannot_prove_anything_is_not_let_in(
    url: str, tmp_path: Path, authority: Authority
) -> None:
    """Neither without a certificate, nor with one of another authority, nor when we do not trust the server's."""
    folder = tmp_path / "another"
    folder.mkdir()
    foreign = Authority(folder).transport("sender")
    for files in (
        {"TLS_CA_FILE": str(authority.path)},
        {**variables(foreign), "TLS_CA_FILE": str(authority.path)},
        variables(foreign),
    ):
        async with _connected(url, files) as messaging:
            with pytest.raises(DependencyUnavailable):
                await messaging.publish("test.fast", b"x", "id")


async def test_nobody_who_answers_in_plain_text_hears_the_password() -> None:
    """What says that it wants no TLS is not NATS, or somebody on the way to it."""
    heard = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576,"tls_required":false}\r\n'
        )
        while chunk := await reader.read(4096):
            heard.extend(chunk)
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with server:
        address = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with _connected(address, {}) as messaging:
            with pytest.raises(DependencyUnavailable):
                await messaging.publish("test.fast", b"x", "id")
    assert heard
    assert b"secret" not in heard
