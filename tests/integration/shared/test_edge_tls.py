"""Certificates between services: who is heard and who is not, and that they are renewed while everybody runs."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from shared.channels import ServiceChannel, open_channel
from shared.errors import DependencyUnavailable
from shared.rights import any_person, scopes
from shared.tls import Transport
from tests.integration.shared.certificates import Authority
from tests.integration.shared.edge import RIGHTS, Counted, Edge, count_three, serving
from tests.integration.shared.polling import until_equal

ASK = inbox_pb2.GetUnreadCountRequest()
OPEN = {**RIGHTS, "GetUnreadCount": any_person() | scopes("internal")}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whoever signs for both sides."""
    return Authority(tmp_path)


@pytest.fixture
def another_authority(tmp_path: Path) -> Authority:
    """Somebody else, who signs what is not good here."""
    folder = tmp_path / "another"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
async def edge(tmp_path: Path, authority: Authority) -> AsyncIterator[Edge]:
    """A server that shows a certificate, and asks for one."""
    async with serving(tmp_path, rights=OPEN, transport=authority.transport("inbox")) as running:
        yield running


@asynccontextmanager
async def _calling(edge: Edge, transport: Transport) -> AsyncIterator[ServiceChannel]:
    token = edge.mint.mint_service_token("sender", ("internal",))
    async with open_channel("inbox", edge.address, transport, lambda: token) as channel:
        yield channel


async def _is_heard(channel: ServiceChannel) -> bool:
    try:
        answer = await InboxServiceStub(channel).GetUnreadCount(ASK, timeout=5)
    except DependencyUnavailable:
        return False
    return bool(answer.unread_count == 3)


async def test_services_with_certificates_of_one_authority_talk(edge: Edge, authority: Authority) -> None:
    """mTLS: both show a certificate, and calls go through."""
    async with _calling(edge, authority.transport("sender")) as channel:
        assert await _is_heard(channel)


async def test_stranger_on_the_network_is_not_heard(
    edge: Edge, authority: Authority, another_authority: Authority
) -> None:
    """Neither plaintext, nor TLS without a certificate, nor one of another authority gets as far as a token."""
    foreign = another_authority.transport("sender")
    for transport in (
        Transport(),
        Transport(authority=authority.path),
        Transport(certificate=foreign.certificate, key=foreign.key, authority=authority.path),
    ):
        async with _calling(edge, transport) as channel:
            assert not await _is_heard(channel)


@pytest.mark.parametrize("flaw", ["none", "for another host", "by another authority"])
async def test_server_that_is_somebody_else_gets_no_token(
    tmp_path: Path, authority: Authority, another_authority: Authority, flaw: str
) -> None:
    """Its certificate must be for the host that we call, and by an authority that we trust; then that is enough."""
    signer = another_authority if flaw == "by another authority" else authority
    shown = signer.transport("inbox", host="inbox.example" if flaw == "for another host" else None)
    # It would take anybody.
    transport = Transport(certificate=shown.certificate, key=shown.key)
    async with (
        serving(tmp_path, rights=OPEN, transport=transport) as edge,
        _calling(edge, Transport(authority=authority.path)) as channel,
    ):
        assert await _is_heard(channel) == (flaw == "none")


async def test_server_shows_a_renewed_certificate_without_a_restart(edge: Edge, authority: Authority) -> None:
    """From the next connection on; those that stand go on."""
    before = await _shown(edge, authority)
    async with _calling(edge, authority.transport("sender")) as channel:
        assert await _is_heard(channel)
        authority.transport("inbox")
        assert await _shown(edge, authority) not in ("", before)
        assert await _is_heard(channel)


async def test_certificate_is_not_shown_before_its_key_is_there(edge: Edge, authority: Authority) -> None:
    """Two files cannot be replaced at once: until the second follows, or while one is missing, the last pair stands."""
    before = await _shown(edge, authority)
    new = authority.transport("renewed")
    assert new.certificate is not None
    assert new.key is not None
    shutil.copy(new.certificate, new.certificate.with_name("inbox.pem"))
    assert await _shown(edge, authority) == before
    shutil.copy(new.key, new.key.with_name("inbox.key"))
    assert await _shown(edge, authority) not in ("", before)
    new.certificate.with_name("inbox.key").unlink()
    assert await _shown(edge, authority) not in ("", before)


async def test_server_asks_for_certificates_of_a_renewed_authority(
    edge: Edge, authority: Authority, another_authority: Authority
) -> None:
    """Whoever shows one of the last authority is a stranger from the next connection on."""
    old, new = authority.transport("old"), another_authority.transport("new")
    trusted = authority.path.with_name("trusted.pem")
    shutil.copy(authority.path, trusted)
    shutil.copy(another_authority.path, authority.path)
    for shown, is_heard in ((old, False), (new, True)):
        transport = Transport(certificate=shown.certificate, key=shown.key, authority=trusted)
        async with _calling(edge, transport) as channel:
            assert await _is_heard(channel) == is_heard


async def test_caller_shows_a_renewed_certificate_without_a_restart(
    edge: Edge, authority: Authority, another_authority: Authority
) -> None:
    """Calls begin on a connection of the files as they are; one that has begun ends where it has."""
    begun, released = asyncio.Event(), asyncio.Event()

    async def wait() -> Counted:
        begun.set()
        await released.wait()
        return Counted(unread_count=7)

    transport = authority.transport("sender")
    async with _calling(edge, transport) as channel:
        edge.inbox.count = wait
        under_way = asyncio.ensure_future(_count(channel))
        await begun.wait()
        edge.inbox.count = count_three
        foreign = another_authority.transport("sender")
        _replace(foreign, transport)
        await until_equal(False, lambda: _is_heard(channel))
        _replace(authority.transport("renewed"), transport)
        await until_equal(True, lambda: _is_heard(channel))
        released.set()
        assert (await under_way).unread_count == 7


async def _count(channel: ServiceChannel) -> Counted:
    return await InboxServiceStub(channel).GetUnreadCount(ASK, timeout=30)


def _replace(new: Transport, old: Transport) -> None:
    for source, target in ((new.certificate, old.certificate), (new.key, old.key)):
        assert source is not None
        assert target is not None
        shutil.copy(source, target)


async def _shown(edge: Edge, authority: Authority) -> str:
    """The serial number of the certificate that a new connection is shown."""
    return await asyncio.to_thread(_serial, edge.address.port, authority.path)


def _serial(port: int, authority: Path) -> str:
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    # In the first message of TLS 1.3 a server does not say yet that it wants ours.
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        return str((wrapped.getpeercert() or {}).get("serialNumber", ""))
