"""Owns how connections are protected: TLS or mTLS, and plaintext only where nobody listens in."""

import ipaddress
import ssl
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

    `authority` has the certificates that are trusted, those of the system when absent. Raises ConfigurationError, which
    names the argument, for a file that cannot be read, or that no connection could be made with.
    """
    if (certificate is None) != (key is None):
        raise ConfigurationError("A client certificate and its key are given together, or neither.")
    roots, chain, private = (
        _content("authority", authority), _content("certificate", certificate), _content("key", key),
    )  # fmt: skip
    _require_certificates("authority", authority)
    _require_certificates("certificate", certificate)
    _require_pair(certificate, key)
    return grpc.ssl_channel_credentials(root_certificates=roots, private_key=private, certificate_chain=chain)


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


def _require_certificates(argument: str, path: Path | None) -> None:
    """gRPC takes any bytes, and lets each call find out that it cannot connect."""
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigurationError(f"{argument}: {path} has no certificate in PEM: {error}") from error


def _require_pair(certificate: Path | None, key: Path | None) -> None:
    if certificate is None:
        return
    try:
        # Nobody is there to be asked for a password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigurationError(
            f"key: {key} must be the key of the certificate in {certificate}, in PEM and without a password: {error}"
        ) from error


def _content(argument: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{argument}: {path} cannot be read: {error.strerror}.") from error
