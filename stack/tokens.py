"""Owns the stack's signing key: makes it once, publishes its public half, and mints tokens with it."""

import base64
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self
from uuid import UUID

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stack.credentials import write_private
from stack.errors import StackError

ISSUER = "wedsync-stack"
AUDIENCE = "wedsync-broadcast"
USER_TOKEN_LIFETIME_S = 12 * 3600
SERVICE_TOKEN_LIFETIME_S = 3600


class TokenMint:
    """Mints the tokens that the services of one stack accept."""

    def __init__(self, keys: Path) -> None:
        """Read the key in the folder `keys`, making it and its JWKS file when there is none."""
        self._path = keys / "signing.pem"
        self.jwks = keys / "jwks.json"
        self._key = self._read() or self._make()
        public = self._public_jwk()
        self._key_id = public["kid"]
        self._publish(json.dumps({"keys": [public]}, indent=2) + "\n")

    @classmethod
    def existing(cls, keys: Path) -> Self:
        """The mint of a stack that has been started before. Raises StackError when there was none."""
        if not (keys / "signing.pem").exists():
            raise StackError(f"There is no signing key in {keys}.", "Start the stack once: `make run`.")
        return cls(keys)

    def mint_user_token(self, user_id: UUID, lifetime_s: int = USER_TOKEN_LIFETIME_S) -> str:
        """A token that says: this is that person."""
        return self._mint({"sub": str(user_id)}, lifetime_s)

    def mint_service_token(
        self, name: str, scopes: Iterable[str], lifetime_s: int = SERVICE_TOKEN_LIFETIME_S
    ) -> str:
        """A token that says: this is that service account, with these scopes."""
        return self._mint({"sub": name, "scope": " ".join(scopes)}, lifetime_s)

    def write_service_token(self, name: str, scopes: Iterable[str], folder: Path) -> Path:
        """Put a service's own token into a file that only it can read, replacing the last one; answers its path."""
        path = folder / f"{name}.jwt"
        write_private(path, self.mint_service_token(name, scopes))
        return path

    def _mint(self, claims: dict[str, str], lifetime_s: int) -> str:
        now = int(time.time())
        standard = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + lifetime_s}
        return jwt.encode({**standard, **claims}, self._key, algorithm="EdDSA", headers={"kid": self._key_id})

    def _read(self) -> Ed25519PrivateKey | None:
        try:
            key = serialization.load_pem_private_key(self._path.read_bytes(), password=None)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StackError(
                f"{self._path} is damaged.", "Remove it: the next start makes a new key."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StackError(
                f"{self._path} is not an Ed25519 key.", "Remove it: the next start makes a new key."
            )
        return key

    def _make(self) -> Ed25519PrivateKey:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(self._path, pem.decode())
        return key

    def _publish(self, key_set: str) -> None:
        """Commands read the key at the same time, and none of them has anything to write."""
        if not self.jwks.exists() or self.jwks.read_text() != key_set:
            write_private(self.jwks, key_set)

    def _public_jwk(self) -> dict[str, str]:
        """The public key with its RFC 7638 thumbprint as id, so that a new key always has a new id."""
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        required = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
        canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
        thumbprint = _base64url(hashlib.sha256(canonical).digest())
        return {**required, "kid": thumbprint, "alg": "EdDSA", "use": "sig"}


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
