"""Who is calling: identities from verified bearer tokens, and nothing from anywhere else."""

from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

import jwt

from shared.clock import Clock, SystemClock
from shared.errors import DependencyUnavailable, TokenExpired, Unauthenticated
from shared.jwks import KeyRing, key_source
from shared.settings import Address, Environment, SettingsError

LEEWAY_S = 30
# Longer than any token of ours by far; grpc itself takes 8 KiB of metadata.
_LONGEST_TOKEN = 8_192
# An issuer has one for each key.
_MOST_HEADERS = 64
_REQUIRED_CLAIMS = ["sub", "exp", "iss", "aud"]
_LONGEST_SERVICE_NAME = 64


class SubjectKind(StrEnum):
    """What kind of caller an identity is."""

    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose token was verified. `user_id` is set for people, `scopes` are those of services only."""

    subject: str
    kind: SubjectKind
    user_id: UUID | None
    scopes: frozenset[str]
    expires_at: datetime

    @property
    def name(self) -> str:
        """What a caller is called on record: a person's user id, the name of a service account."""
        return self.subject if self.user_id is None else str(self.user_id)


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Whose tokens are taken: `jwks` is a path or an http(s) URL."""

    jwks: str
    issuer: str
    audience: str

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Reads AUTH_JWKS, AUTH_ISSUER and AUTH_AUDIENCE; keys cross a network by https, or with ALLOW_PLAINTEXT."""
        jwks = env.text("AUTH_JWKS")
        if "://" in jwks:
            _require_protected(env.url("AUTH_JWKS", ("http", "https")), env)
        return cls(jwks, env.text("AUTH_ISSUER"), env.text("AUTH_AUDIENCE"))


def _require_protected(url: str, env: Environment) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise SettingsError("AUTH_JWKS must have no login in it: keys are public.")
    is_private = parts.scheme == "https" or Address(parts.hostname or "", 0).is_loopback
    if not is_private and not env.flag("ALLOW_PLAINTEXT", default=False):
        raise SettingsError(
            "AUTH_JWKS must start with https:// unless its host is this machine, because whoever is on the way could "
            "answer with keys of their own. Set ALLOW_PLAINTEXT=1 where a mesh encrypts."
        )


_caller: ContextVar[tuple[Identity, str | None] | None] = ContextVar("caller", default=None)


def current_identity() -> Identity:
    """The caller of the RPC that runs now."""
    caller = _caller.get()
    if caller is None:
        raise Unauthenticated
    return caller[0]


def current_role() -> str | None:
    """The caller's role, looked up for this call; None for services, and where the method's right names no roles."""
    caller = _caller.get()
    return None if caller is None else caller[1]


def set_caller(identity: Identity, role: str | None) -> None:
    """Makes `identity` the caller for the rest of the running task."""
    _caller.set((identity, role))


class TokenVerifier:
    """Turns bearer tokens into identities. Every refusal is Unauthenticated and tells nothing of the cause."""

    def __init__(
        self,
        keys: KeyRing,
        issuer: str,
        audience: str,
        *,
        clock: Clock | None = None,
        cache_size: int = 20_000,
    ) -> None:
        """Keeps up to `cache_size` verified tokens until they expire or the keys change."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock or SystemClock()
        self._cache_size = cache_size
        self._verified: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self._keys_by_header: dict[str, jwt.PyJWK] = {}
        self._generation = keys.generation

    @classmethod
    async def open(cls, settings: AuthSettings) -> Self:
        """A verifier with its keys loaded; SettingsError or DependencyUnavailable when there are none."""
        keys = KeyRing(key_source(settings.jwks))
        try:
            await keys.load()
        except (SettingsError, DependencyUnavailable) as error:
            raise type(error)(f"{error} (AUTH_JWKS is {settings.jwks})") from error
        return cls(keys, settings.issuer, settings.audience)

    async def verify(self, token: str) -> Identity:
        """The identity that a token proves, or Unauthenticated; TokenExpired for one that was good once."""
        self._keys.look()
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._verified.clear()
            self._keys_by_header.clear()
        known = self._verified.get(token)
        if known is None:
            return await self._verify_new(token)
        identity, good_until = known
        if self._clock.now().timestamp() >= good_until:
            del self._verified[token]
            raise TokenExpired
        self._verified.move_to_end(token)
        return identity

    async def _verify_new(self, token: str) -> Identity:
        try:
            identity = _identify(await self._claims(token))
        except Unauthenticated:
            raise
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except Exception as error:
            # Whatever a hostile token provokes in a parser is its own fault.
            raise Unauthenticated from error
        good_until = identity.expires_at.timestamp() + LEEWAY_S
        if self._clock.now().timestamp() >= good_until:
            raise TokenExpired
        self._verified[token] = identity, good_until
        if len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)
        return identity

    async def _claims(self, token: str) -> dict[str, object]:
        if len(token) > _LONGEST_TOKEN or not token.isascii() or token.count(".") != 2:
            raise Unauthenticated
        # An issuer writes the same header into all of its tokens, so reading it once is enough.
        header = token.partition(".")[0]
        key = self._keys_by_header.get(header) if self._keys.is_settled else None
        if key is None:
            key = await self._find_key(token)
        claims: dict[str, object] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_S,
            options={"require": _REQUIRED_CLAIMS},
        )
        # Only now, or whoever invents headers would take all the room.
        if len(self._keys_by_header) < _MOST_HEADERS:
            self._keys_by_header[header] = key
        return claims

    async def _find_key(self, token: str) -> jwt.PyJWK:
        """The key that a token's header names, when it is of the algorithm that the header names."""
        header = jwt.get_unverified_header(token)
        key_id = header.get("kid")
        key = await self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None or header.get("alg") != key.algorithm_name:
            raise Unauthenticated
        return key


def _identify(claims: dict[str, object]) -> Identity:
    """A subject that is a UUID is a person and has no scopes, whatever the token says; any other is a service."""
    subject, expiry, scope = claims["sub"], claims["exp"], claims.get("scope", "")
    if not isinstance(subject, str) or not isinstance(expiry, int | float) or not isinstance(scope, str):
        raise Unauthenticated
    expires_at = datetime.fromtimestamp(expiry, UTC)
    user_id = _user_id(subject)
    if user_id is not None:
        return Identity(subject, SubjectKind.USER, user_id, frozenset(), expires_at)
    if not subject.isprintable() or not 0 < len(subject) <= _LONGEST_SERVICE_NAME or not scope:
        raise Unauthenticated
    return Identity(subject, SubjectKind.SERVICE, None, frozenset(scope.split()), expires_at)


def _user_id(subject: str) -> UUID | None:
    """The UUID that a subject is in its usual form; the other spellings that Python reads are none."""
    try:
        user_id = UUID(subject)
    except ValueError:
        return None
    return user_id if str(user_id) == subject.lower() else None
