"""Plaintext only where nobody can listen in, certificates only in pairs that fit, renewals only when they are whole."""

import shutil
from pathlib import Path

import pytest

from shared.settings import Address, Environment, SettingsError
from shared.tls import Renewal, Transport
from tests.integration.shared.certificates import Authority, variables

LOOPBACK, NETWORK = Address("127.0.0.1", 5001), Address("10.0.0.7", 5001)


def test_loopback_may_be_plaintext() -> None:
    """On one machine no certificates are needed."""
    transport = Transport.read(Environment({}))
    assert transport.server_credentials("SENDER_LISTEN", LOOPBACK) is None
    assert transport.channel_credentials("INBOX_ADDR", LOOPBACK) is None


def test_network_may_not_be_plaintext() -> None:
    """Tokens would be readable on the way: refused by the setting's name, with what to do."""
    transport = Transport.read(Environment({}))
    for ask in (transport.server_credentials, transport.channel_credentials):
        with pytest.raises(
            SettingsError, match=r"SENDER_LISTEN: 10\.0\.0\.7:5001 is not a loopback address.*TLS_CERT_FILE"
        ):
            ask("SENDER_LISTEN", NETWORK)


def test_plaintext_can_be_asked_for() -> None:
    """Behind a mesh that encrypts, a container says so."""
    transport = Transport.read(Environment({"ALLOW_PLAINTEXT": "1"}))
    assert transport.server_credentials("SENDER_LISTEN", NETWORK) is None
    assert transport.channel_credentials("INBOX_ADDR", NETWORK) is None


@pytest.mark.parametrize("given", ["TLS_CERT_FILE", "TLS_KEY_FILE"])
def test_certificate_and_key_come_together(tmp_path: Path, given: str) -> None:
    """One without the other is a mistake, not plaintext."""
    file = tmp_path / "file.pem"
    file.write_text("x")
    with pytest.raises(SettingsError, match="TLS_CERT_FILE and TLS_KEY_FILE must be set together"):
        Transport.read(Environment({given: str(file)}))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whoever signs."""
    return Authority(tmp_path)


@pytest.mark.parametrize("variable", ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CA_FILE"])
def test_files_that_are_none_are_told_at_the_start(
    tmp_path: Path, authority: Authority, variable: str
) -> None:
    """Neither when the first caller comes, nor as an address that cannot be listened on."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing of the kind")
    given = {**variables(authority.transport("a")), variable: str(broken)}
    with pytest.raises(
        SettingsError, match="TLS_CERT_FILE and TLS_KEY_FILE must be a certificate and its key"
    ):
        Transport.read(Environment(given))


def test_key_of_another_certificate_is_told_at_the_start(authority: Authority) -> None:
    """They were mixed up, or only one was replaced."""
    one, other = authority.transport("one"), authority.transport("other")
    given = {**variables(one), "TLS_KEY_FILE": str(other.key)}
    with pytest.raises(SettingsError, match="must be a certificate and its key"):
        Transport.read(Environment(given))


def test_certificates_are_read_from_settings(authority: Authority) -> None:
    """All three, and whom the own one is for."""
    transport = authority.transport("sender", host="sender.example")
    assert Transport.read(Environment(variables(transport))) == transport
    assert (transport.own_name(), authority.transport("here").own_name()) == ("sender.example", "127.0.0.1")
    assert Transport().own_name() is None


def test_renewal_has_come_once_and_only_when_it_is_whole(authority: Authority) -> None:
    """Not for files that stay, not for one of two that belong together, and not while one is missing."""
    transport, new = authority.transport("old"), authority.transport("new")
    renewal = Renewal(transport)
    assert not renewal.has_come()
    for source, target, has_come in (
        (new.certificate, transport.certificate, False),
        (new.key, transport.key, True),
    ):
        assert source is not None
        assert target is not None
        shutil.copy(source, target)
        assert (renewal.has_come(), renewal.has_come()) == (has_come, False)
    authority.path.unlink()
    assert not renewal.has_come()
