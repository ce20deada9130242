"""Owns how connections are protected: TLS or mTLS, and plaintext only where nobody listens in."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc
from wedsync.broadcast.client.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Plaintext:
    """No encryption; `anywhere` also to other machines."""

    anywhere: bool = False


Security: TypeAlias = grpc.ChannelCredentials | Plaintext


def tls(
    *, authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """TLS; with a certificate and its key, mTLS. All are PEM files, read now.

    `authority` has the certificates that are trusted, those of the system when absent. Raises ConfigurationError.
    """
    if (certificate is None) != (key is None):
        raise ConfigurationError("A client certificate and its key are given together, or neither.")
    return grpc.ssl_channel_credentials(
        root_certificates=_content(authority),
        private_key=_content(key),
        certificate_chain=_content(certificate),
    )


def insecure(*, mesh: bool = False) -> Plaintext:
    """Plaintext, for a suite on this machine: other addresses are refused when they are called.

    With `mesh` they are not: then something else must encrypt what goes to them, tokens included.
    """
    return Plaintext(anywhere=mesh)


def security_of(variables: Mapping[str, str]) -> grpc.ChannelCredentials:
    """TLS by TLS_CA_FILE, TLS_CERT_FILE and TLS_KEY_FILE, the names that the suite itself has for them."""
    authority, certificate, key = (
        Path(name) if (name := variables.get(variable)) else None
        for variable in ("TLS_CA_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE")
    )
    return tls(authority=authority, certificate=certificate, key=key)


def require_private(service: str, address: str) -> None:
    """Raises ConfigurationError unless plaintext to this address stays on this machine."""
    if not _is_local(address):
        raise ConfigurationError(
            f"{service}: {address} is not a loopback address, and tokens must not cross a network unprotected. "
            "Use tls(), or insecure(mesh=True) where a mesh encrypts."
        )


def _is_local(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.removeprefix("dns:///").removeprefix("dns:").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
