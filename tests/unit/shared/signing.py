"""Keys and tokens made for tests: good ones, and every kind of bad one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

ISSUER = "test-issuer"
AUDIENCE = "test-audience"


class Signer:
    """A key pair with an id, which signs tokens."""

    def __init__(self, key_id: str, algorithm: str = "EdDSA", *, rsa_bits: int = 2048) -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        is_rsa = algorithm.startswith("RS")
        self.key: Any = generate_private_key(65537, rsa_bits) if is_rsa else Ed25519PrivateKey.generate()
        self._describe = RSAAlgorithm.to_jwk if is_rsa else OKPAlgorithm.to_jwk

    def public(self, **changes: object) -> dict[str, object]:
        """The public key as a JWK; a change to None takes a member out."""
        described = json.loads(str(self._describe(self.key.public_key())))
        entry = {**described, "kid": self.key_id, "alg": self.algorithm, "use": "sig", **changes}
        return {name: value for name, value in entry.items() if value is not None}

    def private(self) -> dict[str, object]:
        """The key pair as a JWK."""
        return {**json.loads(str(self._describe(self.key))), "kid": self.key_id, "alg": self.algorithm}

    def token(self, headers: dict[str, object] | None = None, **changes: object) -> str:
        """A token that is good for an hour; a change to None takes a claim out."""
        now = int(datetime.now(UTC).timestamp())
        claims = {
            "sub": "billing",
            "scope": "internal",
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": now + 3600,
            **changes,
        }
        present = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(present, self.key, self.algorithm, {"kid": self.key_id, **(headers or {})})


def write_keys(path: Path, *entries: dict[str, object]) -> None:
    """Replaces a JWKS file in one step, as whoever rotates keys should."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"keys": entries}))
    beside.rename(path)
