"""The ring of public keys: which keys it takes, and that rotation is seen without asking too often."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from shared.clock import FixedClock
from shared.errors import DependencyUnavailable
from shared.jwks import KeyFile, KeyRing, parse_keys
from shared.settings import SettingsError
from tests.unit.shared.signing import Signer, write_keys


class CountedSource:
    """A key source in memory that counts how often it is read."""

    look_every_s = 300.0

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = 0
        self.failure: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self) -> bytes:
        self.reads += 1
        await self.answers.wait()
        if self.failure is not None:
            raise self.failure
        return self.content

    def may_have_changed(self) -> bool:
        return True


@pytest.fixture
def clock() -> FixedClock:
    """A clock that the test moves."""
    return FixedClock(datetime(2026, 11, 22, tzinfo=UTC))


def document(*entries: object) -> bytes:
    """A JWKS document."""
    return json.dumps({"keys": entries}).encode()


def key_ids(keys: dict[str, jwt.PyJWK]) -> dict[str, str]:
    """The algorithm of each key."""
    return {key_id: key.algorithm_name for key_id, key in keys.items()}


def test_only_public_signature_keys_of_the_two_algorithms_are_taken() -> None:
    """Symmetric, private, encryption, unnamed, foreign, broken and short keys are passed over."""
    good, rsa = Signer("good"), Signer("rsa", "RS256")
    keys = parse_keys(
        document(
            good.public(),
            rsa.public(),
            Signer("inferred").public(alg=None, use=None),
            {"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": "c2VjcmV0"},
            Signer("private").private(),
            Signer("encryption").public(use="enc"),
            Signer("unnamed").public(kid=None),
            Signer("other", "RS256").public(alg="RS512"),
            Signer("crossed").public(alg="RS256"),
            Signer("broken").public(x="?"),
            Signer("short", "RS256", rsa_bits=1024).public(),
            "no key at all",
        )
    )
    assert key_ids(keys) == {"good": "EdDSA", "rsa": "RS256", "inferred": "EdDSA"}


def test_second_key_with_the_same_id_is_passed_over() -> None:
    """The first one stands: an appended key cannot displace it."""
    first, second = Signer("same"), Signer("same", "RS256")
    assert key_ids(parse_keys(document(first.public(), second.public()))) == {"same": "EdDSA"}


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"keys": 1}', b'{"keys": []}', b'{"keys": [{}]}', b"\xff"]
)
def test_document_without_a_usable_key_is_refused(content: bytes) -> None:
    """Nothing to verify with is an error, not an empty ring."""
    with pytest.raises(ValueError, match=r"."):
        parse_keys(content)


async def test_start_without_keys_names_the_setting(tmp_path: Path) -> None:
    """A missing file is told as a fault of AUTH_JWKS."""
    with pytest.raises(SettingsError, match="AUTH_JWKS"):
        await KeyRing(KeyFile(tmp_path / "none.json")).load()


async def test_unknown_key_is_looked_for_at_most_once_in_ten_seconds(clock: FixedClock) -> None:
    """A flood of tokens with made-up key ids reads the source once; a new key is found when the time has come."""
    old, new = Signer("old"), Signer("new")
    source = CountedSource(document(old.public()))
    ring = KeyRing(source, clock)
    await ring.load()
    found = [await ring.find(f"made-up-{i}") for i in range(100)]
    assert (found, source.reads) == ([None] * 100, 2)

    source.content = document(old.public(), new.public())
    assert await ring.find("new") is None
    clock.move(10)
    assert await ring.find("new") is not None
    assert source.reads == 3


async def test_concurrent_misses_share_one_read(clock: FixedClock) -> None:
    """Callers that arrive during a reload wait for it and see what it brought."""
    source = CountedSource(document(Signer("old").public()))
    ring = KeyRing(source, clock)
    await ring.load()
    source.content = document(Signer("new").public())
    found = await asyncio.gather(*(ring.find("new") for _ in range(10)))
    assert (all(key is not None for key in found), source.reads) == (True, 2)


async def test_url_is_read_again_after_its_time(clock: FixedClock) -> None:
    """A source that cannot tell whether it changed is read when its time has come, and not before."""
    source = CountedSource(document(Signer("a").public()))
    ring = KeyRing(source, clock)
    await ring.load()
    clock.move(299)
    ring.look()
    assert source.reads == 1
    clock.move(1)
    ring.look()
    await ring.find("a")
    assert source.reads == 2


async def test_the_same_keys_read_again_are_no_news(clock: FixedClock) -> None:
    """What was verified with them stays verified, or every token would be verified anew at each look."""
    source = CountedSource(document(Signer("a").public()))
    ring = KeyRing(source, clock)
    await ring.load()
    clock.move(300)
    ring.look()
    await ring.find("a")
    assert (source.reads, ring.generation) == (2, 1)
    source.content = document(Signer("b").public())
    clock.move(300)
    ring.look()
    await ring.find("b")
    assert (source.reads, ring.generation) == (3, 2)


async def test_source_that_hangs_keeps_nobody_with_a_known_key_waiting(clock: FixedClock) -> None:
    """What is verified by keys that are there goes on; who has another key waits for the answer."""
    source = CountedSource(document(Signer("known").public()))
    ring = KeyRing(source, clock)
    await ring.load()
    source.answers.clear()
    source.content = document(Signer("known").public(), Signer("new").public())
    waiting = asyncio.create_task(ring.find("new"))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(ring.find("known"), 5) is not None
    assert not waiting.done()
    source.answers.set()
    assert await waiting is not None


@pytest.mark.parametrize("failure", [OSError("gone"), DependencyUnavailable("gone"), ValueError("too large")])
async def test_source_that_fails_leaves_the_last_good_keys(clock: FixedClock, failure: Exception) -> None:
    """An outage of the identity provider is no outage of ours; when it is back, its new keys are found."""
    source = CountedSource(document(Signer("a").public()))
    ring = KeyRing(source, clock)
    await ring.load()
    source.failure = failure
    assert (await ring.find("b"), await ring.find("a") is not None) == (None, True)
    source.failure, source.content = None, document(Signer("b").public())
    clock.move(10)
    assert await ring.find("b") is not None


async def test_file_that_is_no_key_set_is_not_read_whole(tmp_path: Path) -> None:
    """A path that leads to something huge by mistake costs a megabyte and not the memory."""
    path = tmp_path / "keys.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        SettingsError, match="AUTH_JWKS: no usable keys there: the key set is larger than 1 MiB"
    ):
        await KeyRing(KeyFile(path)).load()


async def test_replaced_file_is_read_again(tmp_path: Path, clock: FixedClock) -> None:
    """A key that was taken out of the file is gone within the time of a look."""
    path = tmp_path / "keys.json"
    write_keys(path, Signer("old").public())
    ring = KeyRing(KeyFile(path), clock)
    await ring.load()
    write_keys(path, Signer("new").public())
    clock.move(1)
    ring.look()
    assert (await ring.find("old"), await ring.find("new") is not None) == (None, True)


async def test_unchanged_file_is_not_read_again(tmp_path: Path, clock: FixedClock) -> None:
    """Looking at a file that nobody touched changes nothing."""
    path = tmp_path / "keys.json"
    write_keys(path, Signer("a").public())
    ring = KeyRing(KeyFile(path), clock)
    await ring.load()
    clock.move(5)
    ring.look()
    await ring.find("a")
    assert ring.generation == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"keys": []}', None])
async def test_damaged_source_leaves_the_last_good_keys(
    tmp_path: Path, clock: FixedClock, damage: bytes | None
) -> None:
    """A file that is emptied, half written or removed locks nobody out."""
    path = tmp_path / "keys.json"
    write_keys(path, Signer("a").public())
    ring = KeyRing(KeyFile(path), clock)
    await ring.load()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    clock.move(60)
    ring.look()
    assert await ring.find("a") is not None
