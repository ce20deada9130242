"""Plaintext only where nobody can listen in, and certificates only in pairs."""

from pathlib import Path

import pytest

from shared.settings import Address, Environment, SettingsError
from shared.tls import Transport

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
