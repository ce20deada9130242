"""How connections between processes are protected: TLS or mTLS from files, plaintext only where nobody listens in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from shared.settings import Address, Environment, SettingsError


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
        return transport

    def server_credentials(self, variable: str, address: Address) -> grpc.ServerCredentials | None:
        """What a server on `address` shows its callers, None for plaintext; with an authority they must show theirs."""
        if self.certificate is None or self.key is None:
            self._require_private(variable, address)
            return None
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=_content(self.authority),
            require_client_auth=self.authority is not None,
        )

    def channel_credentials(self, variable: str, address: Address) -> grpc.ChannelCredentials | None:
        """What a channel to `address` trusts and shows, None for plaintext."""
        if self.authority is None and self.certificate is None:
            self._require_private(variable, address)
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.authority),
            private_key=_content(self.key),
            certificate_chain=_content(self.certificate),
        )

    def _require_private(self, variable: str, address: Address) -> None:
        if not address.is_loopback and not self.plaintext_allowed:
            raise SettingsError(
                f"{variable}: {address} is not a loopback address, and tokens must not cross a network unprotected. "
                "Set TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE, or ALLOW_PLAINTEXT=1 where a mesh encrypts."
            )


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
