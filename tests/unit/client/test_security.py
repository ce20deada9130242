"""Tokens cross no network unprotected unless somebody says that it is protected otherwise."""

from pathlib import Path

import pytest
from wedsync.broadcast.client import Addresses, BroadcastClient, ConfigurationError, insecure, tls

from tests.unit.client.suite import Suite

ELSEWHERE = (
    "10.0.0.7:5001",
    "sender:5001",
    "dns:///sender:5001",
    "[2001:db8::1]:5001",
    "0.0.0.0:5001",
    "nowhere",
)


def client(address: str, *, mesh: bool = False) -> BroadcastClient:
    """A plaintext client of this address."""
    return BroadcastClient(Addresses(sender=address), token="t", security=insecure(mesh=mesh))


@pytest.mark.parametrize("address", ELSEWHERE)
async def test_plaintext_to_another_machine_is_refused(address: str) -> None:
    """Before anything is sent; the error names the address and what to do."""
    async with client(address) as outside:
        with pytest.raises(ConfigurationError, match=r"is not a loopback address.*tls\(\)") as refused:
            await outside.get("b")
    assert str(refused.value).startswith(f"sender: {address} ")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "dns:///localhost:1", "unix:/x"]
)
async def test_plaintext_on_this_machine_is_fine(address: str) -> None:
    """As it is where a mesh encrypts."""
    async with client(address) as inside:
        assert inside.channel("sender") is inside.channel("sender")
    async with client(ELSEWHERE[0], mesh=True) as meshed:
        assert meshed.channel("sender")


async def test_a_client_encrypts_unless_told_otherwise() -> None:
    """No address is too far for TLS, and plaintext has to be asked for."""
    async with BroadcastClient(Addresses(sender=ELSEWHERE[0]), token="t") as encrypted:
        assert encrypted.channel("sender")


async def test_a_server_without_an_address_is_named_when_it_is_called() -> None:
    """Only what is called needs one."""
    async with BroadcastClient(Addresses(sender="127.0.0.1:1"), token="t", security=insecure()) as half:
        with pytest.raises(ConfigurationError, match="INBOX_ADDR is not set"):
            half.inbox()


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    """And files that can be read."""
    with pytest.raises(ConfigurationError, match="given together"):
        tls(certificate=tmp_path / "cert.pem")
    with pytest.raises(ConfigurationError, match=r"missing\.pem cannot be read: No such file"):
        tls(authority=tmp_path / "missing.pem")


async def test_everything_can_come_from_the_environment(tmp_path: Path) -> None:
    """Under the names that `.stack/env` has; a token file wins over a token."""
    (tmp_path / "token").write_text("from a file")
    variables = {"SENDER_ADDR": "127.0.0.1:1", "BROADCAST_TOKEN": "t", "INBOX_ADDR": " "}
    assert Addresses.from_environment(variables) == Addresses(sender="127.0.0.1:1")
    async with BroadcastClient.from_environment(variables, security=insecure()) as configured:
        assert configured.channel("sender")
    for name, complaint in (("BROADCAST_TOKEN_FILE", "token's file"), ("TLS_CA_FILE", "cannot be read")):
        with pytest.raises(ConfigurationError, match=complaint):
            BroadcastClient.from_environment({**variables, name: str(tmp_path / "missing")})


async def test_no_proxy_hears_of_calls_on_this_machine(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment names for calls to elsewhere."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with suite.client() as inside:
        await inside.get("b")
    assert len(suite.sender.script.asked) == 1
