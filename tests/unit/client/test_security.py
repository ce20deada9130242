"""Tokens cross no network unprotected unless somebody says that it is protected otherwise."""

from pathlib import Path

import pytest
from wedsync.broadcast.client import Addresses, BroadcastClient, ConfigurationError, insecure, tls

from tests.integration.shared.certificates import Authority
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
    with pytest.raises(ConfigurationError, match=r"authority: .*missing\.pem cannot be read: No such file"):
        tls(authority=tmp_path / "missing.pem")


@pytest.mark.parametrize("argument", ["authority", "certificate", "key"])
def test_files_that_no_connection_can_be_made_with_are_refused(tmp_path: Path, argument: str) -> None:
    """When the client is made, by the name of the argument: gRPC would let each call find out."""
    files = Authority(tmp_path).transport("a")
    given = {"authority": files.authority, "certificate": files.certificate, "key": files.key}
    assert tls(**given)
    for number, content in enumerate((b"nothing of the kind", b"", b"\xff\xfe", Path(__file__).read_bytes())):
        broken = tmp_path / f"broken {number}"
        broken.write_bytes(content)
        with pytest.raises(ConfigurationError, match=f"^{argument}: {broken} (has no|must be)"):
            tls(**{**given, argument: broken})


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """Nothing would take the two; both are named."""
    authority = Authority(tmp_path)
    one, other = authority.transport("one"), authority.transport("other")
    with pytest.raises(
        ConfigurationError, match=f"^key: {other.key} must be the key of .* in {one.certificate}"
    ):
        tls(certificate=one.certificate, key=other.key)


@pytest.mark.parametrize("wrong", ["sendr", "of", "", "from_environment"])
async def test_what_is_no_server_has_no_channel(wrong: str) -> None:
    """Neither by a slip nor by the name of something else; the error names those that there are."""
    async with client("127.0.0.1:1") as inside:
        with pytest.raises(
            ConfigurationError, match="one of sender, inbox, preferences, dispatcher"
        ) as refused:
            inside.channel(wrong)  # type: ignore[arg-type] # what is refused
    assert repr(wrong) in str(refused.value)


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
