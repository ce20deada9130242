"""Identities from tokens: whom a good one proves, and that nothing else proves anything."""

import base64
import json
from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import pytest

from shared.auth import (
    AuthSettings,
    Identity,
    SubjectKind,
    TokenVerifier,
    current_identity,
    current_role,
    set_caller,
)
from shared.clock import FixedClock
from shared.errors import TokenExpired, Unauthenticated
from shared.jwks import KeyFile, KeyRing
from shared.settings import Environment, SettingsError
from tests.unit.shared.signing import AUDIENCE, ISSUER, Signer, write_keys

ED, RSA = Signer("ed"), Signer("rsa", "RS256")
STRANGER = Signer("ed")


def seconds_from_now(seconds: float) -> int:
    """A claim's time."""
    return int((datetime.now(UTC) + timedelta(seconds=seconds)).timestamp())


@pytest.fixture
def clock() -> FixedClock:
    """A clock that starts now and that the test moves."""
    return FixedClock(datetime.now(UTC))


@pytest.fixture
async def verifier(tmp_path: Path, clock: FixedClock) -> TokenVerifier:
    """A verifier that trusts one EdDSA and one RS256 key."""
    write_keys(tmp_path / "keys.json", ED.public(), RSA.public())
    ring = KeyRing(KeyFile(tmp_path / "keys.json"), clock)
    await ring.load()
    return TokenVerifier(ring, ISSUER, AUDIENCE, clock=clock, cache_size=3)


@pytest.mark.parametrize("signer", [ED, RSA], ids=["EdDSA", "RS256"])
async def test_person_is_known_by_a_uuid(verifier: TokenVerifier, signer: Signer) -> None:
    """A UUID subject is a person, who has no scopes even if the token lists some."""
    user_id = uuid4()
    identity = await verifier.verify(signer.token(sub=str(user_id), scope="internal admin"))
    assert (identity.kind, identity.user_id, identity.scopes) == (SubjectKind.USER, user_id, frozenset())


async def test_service_is_known_by_its_name_and_scopes(verifier: TokenVerifier) -> None:
    """Any other subject is a service, with the scopes that its token lists."""
    expiry = seconds_from_now(60)
    identity = await verifier.verify(
        ED.token(sub="billing", scope="broadcast.send  broadcast.read", exp=expiry)
    )
    assert (identity.kind, identity.subject, identity.user_id) == (SubjectKind.SERVICE, "billing", None)
    assert identity.scopes == {"broadcast.send", "broadcast.read"}
    assert identity.expires_at == datetime.fromtimestamp(expiry, UTC)


def unsigned(header: dict[str, object], claims: dict[str, object] | None = None) -> str:
    """A token with any header and no valid signature."""
    parts = [json.dumps(part).encode() for part in (header, claims or {"sub": "billing"})]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


def confused() -> str:
    """A token signed with the public key as if it were an HMAC secret."""
    public = base64.urlsafe_b64decode(str(ED.public()["x"]) + "==")
    claims = {
        "sub": "billing",
        "scope": "internal",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": seconds_from_now(60),
    }
    return jwt.encode(claims, public, "HS256", {"kid": "ed"})


def cut(token: str) -> str:
    """A token whose last character was lost."""
    return token[:-1]


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "garbage": lambda: "garbage",
    "dots": lambda: "..",
    "many dots": lambda: "." * 8_000,
    "NUL": lambda: ED.token() + "\0",
    "NUL inside": lambda: ED.token().replace(".", "\0.", 1),
    "not ASCII": lambda: ED.token() + "é",
    "lone surrogate": lambda: ED.token() + "\ud800",
    "huge": lambda: ED.token(padding="x" * 9_000),
    "cut": lambda: cut(ED.token()),
    "two tokens": lambda: f"{ED.token()} {ED.token()}",
    "deep header": lambda: base64.urlsafe_b64encode(b"[" * 5_000).decode().rstrip("=") + ".e30.c2ln",
    "header is a list": lambda: base64.urlsafe_b64encode(b"[1]").decode().rstrip("=") + ".e30.c2ln",
    "alg none": lambda: unsigned({"alg": "none", "kid": "ed"}),
    "alg HS256 with the public key": confused,
    "alg of the other key": lambda: unsigned({"alg": "RS256", "kid": "ed"}),
    "no alg": lambda: unsigned({"kid": "ed"}),
    "no kid": lambda: unsigned({"alg": "EdDSA"}),
    "kid is a number": lambda: unsigned({"alg": "EdDSA", "kid": 1}),
    "kid of nobody": lambda: ED.token(headers={"kid": "nobody"}),
    "kid of the other key": lambda: ED.token(headers={"kid": "rsa"}),
    "key of a stranger": STRANGER.token,
    "unknown critical header": lambda: ED.token(headers={"crit": ["moon"], "moon": 1}),
    "other issuer": lambda: ED.token(iss="elsewhere"),
    "no issuer": lambda: ED.token(iss=None),
    "other audience": lambda: ED.token(aud="elsewhere"),
    "no audience": lambda: ED.token(aud=None),
    "no expiry": lambda: ED.token(exp=None),
    "expiry is no number": lambda: ED.token(exp="soon"),
    "expiry without end": lambda: ED.token(exp=float("inf")),
    "expiry past all years": lambda: ED.token(exp=10**15),
    "not valid yet": lambda: ED.token(nbf=seconds_from_now(60)),
    "valid from no time": lambda: ED.token(nbf="soon"),
    "issued in the future": lambda: ED.token(iat=seconds_from_now(60)),
    "issued at no time": lambda: ED.token(iat="soon"),
    "no subject": lambda: ED.token(sub=None),
    "subject is a number": lambda: ED.token(sub=7),
    "empty subject": lambda: ED.token(sub=""),
    "subject with a newline": lambda: ED.token(sub="billing\n"),
    "endless subject": lambda: ED.token(sub="b" * 65),
    "service without scope": lambda: ED.token(scope=None),
    "scope is a list": lambda: ED.token(scope=["internal"]),
    "UUID in braces and no scope": lambda: ED.token(sub=f"{{{uuid4()}}}", scope=None),
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_bad_token_is_refused_without_a_hint(verifier: TokenVerifier, make: Callable[[], str]) -> None:
    """Whatever is wrong with a token, the answer is the same."""
    with pytest.raises(Unauthenticated) as refused:
        await verifier.verify(make())
    assert (type(refused.value), str(refused.value)) == (Unauthenticated, "A valid bearer token is required.")


async def test_expired_token_is_told_apart(verifier: TokenVerifier) -> None:
    """Past expiry and leeway a good token is TOKEN_EXPIRED, so that a client knows to fetch another."""
    with pytest.raises(TokenExpired):
        await verifier.verify(ED.token(exp=seconds_from_now(-31)))


async def test_forged_expired_token_is_not(verifier: TokenVerifier) -> None:
    """What its signature does not prove, nobody is told about."""
    with pytest.raises(Unauthenticated) as refused:
        await verifier.verify(STRANGER.token(exp=seconds_from_now(-31)))
    assert type(refused.value) is Unauthenticated


async def test_clocks_may_differ_by_half_a_minute(verifier: TokenVerifier) -> None:
    """A token that expired a moment ago is still taken, and one that is from a moment ahead already."""
    ahead = seconds_from_now(20)
    for token in (ED.token(exp=seconds_from_now(-20)), ED.token(nbf=ahead), ED.token(iat=ahead)):
        assert (await verifier.verify(token)).subject == "billing"


async def test_a_token_ends_half_a_minute_after_its_expiry_to_the_second(
    verifier: TokenVerifier, clock: FixedClock
) -> None:
    """29 s later it is taken, 30 s later it is not, whether it was seen before or not."""
    expiry = seconds_from_now(60)
    known, new, late = (ED.token(exp=expiry, sub=f"service-{number}") for number in range(3))
    await verifier.verify(known)
    clock.move(expiry + 29 - clock.now().timestamp())
    for token in (known, new):
        await verifier.verify(token)
    clock.move(1)
    for token in (known, new, late):
        with pytest.raises(TokenExpired):
            await verifier.verify(token)


async def test_verified_token_ends_with_its_expiry(verifier: TokenVerifier, clock: FixedClock) -> None:
    """Being remembered does not make a token live longer."""
    token = ED.token(exp=seconds_from_now(60))
    await verifier.verify(token)
    clock.move(60)
    await verifier.verify(token)
    clock.move(31)
    with pytest.raises(TokenExpired):
        await verifier.verify(token)


async def test_verified_token_is_remembered(verifier: TokenVerifier) -> None:
    """The second time a token gives the very same identity, without any cryptography."""
    token = ED.token()
    assert await verifier.verify(token) is await verifier.verify(token)


async def test_memory_of_tokens_is_bounded(verifier: TokenVerifier) -> None:
    """Past its size the verifier forgets the token that was used longest ago."""
    tokens = [ED.token(sub=f"service-{i}") for i in range(4)]
    known = [await verifier.verify(token) for token in tokens[:3]]
    await verifier.verify(tokens[0])
    await verifier.verify(tokens[3])
    assert await verifier.verify(tokens[0]) is known[0]
    assert await verifier.verify(tokens[1]) is not known[1]


async def test_key_taken_out_ends_its_tokens(
    verifier: TokenVerifier, tmp_path: Path, clock: FixedClock
) -> None:
    """A token that was verified and remembered is refused within the time of a look after its key has gone."""
    token, other = ED.token(), RSA.token()
    await verifier.verify(token)
    write_keys(tmp_path / "keys.json", RSA.public())
    clock.move(1)
    # Starts the look; whoever is new waits for it.
    await verifier.verify(token)
    await verifier.verify(other)
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


async def test_a_new_token_of_a_known_kind_waits_for_the_keys_that_are_being_read(
    verifier: TokenVerifier, tmp_path: Path, clock: FixedClock
) -> None:
    """Its header was seen before, and its key has gone since: what is remembered of headers ends with the keys."""
    await verifier.verify(ED.token())
    write_keys(tmp_path / "keys.json", RSA.public())
    clock.move(1)
    with pytest.raises(Unauthenticated):
        await verifier.verify(ED.token(sub="another"))


async def test_new_key_is_taken_without_restart(
    verifier: TokenVerifier, tmp_path: Path, clock: FixedClock
) -> None:
    """Rotation: a token by a key that was added a moment ago is good."""
    added = Signer("added")
    write_keys(tmp_path / "keys.json", ED.public(), RSA.public(), added.public())
    assert (await verifier.verify(added.token())).subject == "billing"


async def test_opening_without_keys_shows_where_it_looked(tmp_path: Path) -> None:
    """The error names the setting and its value."""
    with pytest.raises(SettingsError, match=f"AUTH_JWKS is {tmp_path}"):
        await TokenVerifier.open(AuthSettings(str(tmp_path), ISSUER, AUDIENCE))


def test_settings_take_a_path_or_a_web_address() -> None:
    """Any other scheme is refused."""
    others = {"AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}
    read = [
        AuthSettings.read(Environment({"AUTH_JWKS": jwks, **others})).jwks
        for jwks in ("/k.json", "https://h/k")
    ]
    assert read == ["/k.json", "https://h/k"]
    with pytest.raises(SettingsError, match="AUTH_JWKS must be a URL that starts with http:// or https://"):
        AuthSettings.read(Environment({"AUTH_JWKS": "file:///k.json", **others}))


def test_keys_come_protected_over_a_network() -> None:
    """In the clear they could be anybody's; on this machine, or where a mesh encrypts, they are who says so."""
    others = {"AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}
    with pytest.raises(SettingsError, match=r"^AUTH_JWKS must have no login in it: keys are public\.$"):
        AuthSettings.read(Environment({"AUTH_JWKS": "https://us:secret@keys.example/k", **others}))
    for host in ("keys.example", "10.0.0.7:8080", "127.0.0.1.example"):
        with pytest.raises(
            SettingsError, match="AUTH_JWKS must start with https:// unless its host is this machine"
        ):
            AuthSettings.read(Environment({"AUTH_JWKS": f"http://{host}/k", **others}))
    for given in (
        {"AUTH_JWKS": "http://127.0.0.1:8080/k"},
        {"AUTH_JWKS": "http://[::1]/k"},
        {"AUTH_JWKS": "http://keys.example/k", "ALLOW_PLAINTEXT": "1"},
    ):
        assert AuthSettings.read(Environment({**given, **others})).jwks == given["AUTH_JWKS"]


async def test_caller_is_known_only_within_a_call(verifier: TokenVerifier) -> None:
    """Outside of a call there is nobody; within one there are an identity and the role it was looked up with."""
    identity = await verifier.verify(ED.token(sub=str(UUID(int=1))))

    def call() -> tuple[Identity, str | None]:
        set_caller(identity, "admin")
        return current_identity(), current_role()

    assert copy_context().run(call) == (identity, "admin")
    assert current_role() is None
    with pytest.raises(Unauthenticated):
        current_identity()
