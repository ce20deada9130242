"""How connections between processes are protected: TLS or mTLS from files, plaintext only where nobody listens in."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import structlog
from cryptography import x509

from shared.file_stamps import Stamp, stamp_of
from shared.settings import Address, Environment, SettingsError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Transport:
    """The certificate files of this process, if it has any, and whether it may do without."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    plaintext_allowed: bool = False

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Reads TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE and ALLOW_PLAINTEXT (for containers behind a mesh)."""
        transport = cls(
            certificate=env.optional_file("TLS_CERT_FILE"),
            key=env.optional_file("TLS_KEY_FILE"),
            authority=env.optional_file("TLS_CA_FILE"),
            plaintext_allowed=env.flag("ALLOW_PLAINTEXT", default=False),
        )
        if (transport.certificate is None) != (transport.key is None):
            raise SettingsError("TLS_CERT_FILE and TLS_KEY_FILE must be set together.")
        transport._require_usable()
        return transport

    def _require_usable(self) -> None:
        try:
            self.client_context()
        except OSError as error:  # SSLError is one
            raise SettingsError(
                "TLS_CERT_FILE and TLS_KEY_FILE must be a certificate and its key, TLS_CA_FILE certificates of "
                f"authorities, all in PEM and without a password: {error}"
            ) from error

    def server_credentials(self, variable: str, address: Address) -> grpc.ServerCredentials | None:
        """What a server on `address` shows its callers, None for plaintext; with an authority they must show theirs.

        Certificates that are renewed are shown from the next connection on.
        """
        if self.certificate is None or self.key is None:
            self._require_private(variable, address)
            return None
        shown = _Shown(self, self.certificate, self.key)
        return grpc.dynamic_ssl_server_credentials(
            shown.first,
            shown.renewed,  # type: ignore[arg-type]  # None is for nothing new
            require_client_authentication=self.authority is not None,
        )

    @property
    def is_protected(self) -> bool:
        """Whether channels are encrypted: without a certificate and with an authority, only the server shows one."""
        return self.authority is not None or self.certificate is not None

    def channel_credentials(self, variable: str, address: Address) -> grpc.ChannelCredentials | None:
        """What a channel to `address` trusts and shows, None for plaintext."""
        if not self.is_protected:
            self._require_private(variable, address)
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.authority),
            private_key=_content(self.key),
            certificate_chain=_content(self.certificate),
        )

    def client_context(self) -> ssl.SSLContext:
        """What a connection that is not gRPC's trusts and shows."""
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate is not None:
            # Nobody is there to be asked for a password.
            context.load_cert_chain(self.certificate, self.key, password="")
        return context

    def own_name(self) -> str | None:
        """A host that the own certificate is for, by which it can be checked whatever address it is called at."""
        if self.certificate is None:
            return None
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return None
        hosts = [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
        return hosts[0] if hosts else None

    def stamps(self) -> tuple[Stamp, ...]:
        """What is another one after a file was renewed; OSError when one is missing."""
        return tuple(
            stamp_of(path) for path in (self.certificate, self.key, self.authority) if path is not None
        )

    def _require_private(self, variable: str, address: Address) -> None:
        if not address.is_loopback and not self.plaintext_allowed:
            raise SettingsError(
                f"{variable}: {address} is not a loopback address, and tokens must not cross a network unprotected. "
                "Set TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE, or ALLOW_PLAINTEXT=1 where a mesh encrypts."
            )


class Renewal:
    """Tells when the files of a transport have been renewed, which is when all of them have been."""

    def __init__(self, transport: Transport) -> None:
        """Files that were replaced before this are as they are."""
        self._transport = transport
        self._stamps = transport.stamps()

    def has_come(self) -> bool:
        """Whether there is something new since it was said last; not while a certificate and its key do not fit."""
        try:
            stamps = self._transport.stamps()
            if stamps == self._stamps:
                return False
            self._transport.client_context()
        except OSError as error:
            log.warning("certificates_unusable", error=str(error))
            return False
        self._stamps = stamps
        log.info("certificates_renewed")
        return True


class _Shown:
    """What a server shows and asks for. gRPC asks at each new connection, from a thread of its own."""

    def __init__(self, transport: Transport, certificate: Path, key: Path) -> None:
        self._authority = transport.authority
        self._certificate = certificate
        self._key = key
        self._renewal = Renewal(transport)
        self.first = self._read()

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files have now, None while they are as they were or are being replaced."""
        return self._read() if self._renewal.has_come() else None

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = self._key.read_bytes(), self._certificate.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], _content(self._authority))


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
