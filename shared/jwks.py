"""The public keys that tokens may be signed with: read from a JWKS file or URL, kept fresh while they are rotated."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Protocol

import jwt
import structlog

from shared.clock import Clock, SystemClock
from shared.settings import SettingsError

ALGORITHMS = ("EdDSA", "RS256")
_FETCH_TIMEOUT_S = 5.0
_LARGEST_SET_BYTES = 1 << 20
_FILE_LOOK_S = 1.0
_URL_LOOK_S = 300.0
_MISS_RELOAD_S = 10.0

log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Where a JWKS document is kept."""

    look_every_s: float

    async def read(self) -> bytes:
        """The whole document; OSError when it cannot be had."""

    def may_have_changed(self) -> bool:
        """Whether reading again could give something new; cheap enough for the event loop."""


class KeyFile:
    """A JWKS document in a file, read again when the file is replaced or written."""

    look_every_s = _FILE_LOOK_S

    def __init__(self, path: Path) -> None:
        """`path` is read first by `read`."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    async def read(self) -> bytes:
        """The file as it is now."""
        self._seen = self._signature()
        return self._path.read_bytes()

    def may_have_changed(self) -> bool:
        """Whether the file is another one, or was written, since it was read."""
        try:
            return self._signature() != self._seen
        except OSError:
            return False

    def _signature(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino


class KeyUrl:
    """A JWKS document behind an http(s) URL."""

    look_every_s = _URL_LOOK_S

    def __init__(self, url: str) -> None:
        """`url` is fetched by `read`."""
        self._url = url

    async def read(self) -> bytes:
        """Fetches the document in a thread."""
        return await asyncio.to_thread(self._fetch)

    def may_have_changed(self) -> bool:
        """Always: only fetching tells."""
        return True

    def _fetch(self) -> bytes:
        request = urllib.request.Request(self._url, headers={"accept": "application/json"})  # noqa: S310 scheme checked
        with urllib.request.urlopen(request, timeout=_FETCH_TIMEOUT_S) as answer:  # noqa: S310
            content: bytes = answer.read(_LARGEST_SET_BYTES + 1)
        if len(content) > _LARGEST_SET_BYTES:
            raise OSError("the key set is larger than 1 MiB")
        return content


class KeyRing:
    """The usable keys by their id. A source that fails or turns out broken leaves the last good keys in place."""

    def __init__(self, source: KeySource, clock: Clock | None = None) -> None:
        """Holds no key until `load`."""
        self._source = source
        self._clock = clock or SystemClock()
        self._content = b""
        self._keys: dict[str, jwt.PyJWK] = {}
        self._reloading: asyncio.Task[None] | None = None
        self._next_look = 0.0
        self._next_miss_reload = 0.0
        self.generation = 0

    async def load(self) -> None:
        """Reads the keys for the first time; SettingsError when there is none to be had."""
        try:
            self._install(await self._source.read())
        except (OSError, ValueError) as error:
            raise SettingsError(f"AUTH_JWKS: no usable keys there: {error}") from error

    def look(self) -> None:
        """Starts a reload when it is time to look at the source and it may have changed. Costs next to nothing else."""
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + self._source.look_every_s
            if self._source.may_have_changed():
                self._reloading = self._start_reload()

    @property
    def is_settled(self) -> bool:
        """Whether no reload is under way."""
        return self._reloading is None

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; an unknown one is looked for at the source, at most once in 10 s."""
        if self._reloading is not None:
            await asyncio.shield(self._reloading)
        if key_id not in self._keys and self._clock.monotonic() >= self._next_miss_reload:
            self._next_miss_reload = self._clock.monotonic() + _MISS_RELOAD_S
            await asyncio.shield(self._start_reload())
        return self._keys.get(key_id)

    def _start_reload(self) -> asyncio.Task[None]:
        if self._reloading is None:
            self._reloading = asyncio.create_task(self._reload(), name="jwks-reload")
        return self._reloading

    async def _reload(self) -> None:
        try:
            self._install(await self._source.read())
        except (OSError, ValueError) as error:
            log.warning("auth_keys_unavailable", error=str(error))
        finally:
            self._reloading = None

    def _install(self, content: bytes) -> None:
        self._next_look = self._clock.monotonic() + self._source.look_every_s
        if content == self._content:
            # Whoever holds on to what these keys have verified may go on.
            return
        self._keys, self._content = parse_keys(content), content
        self.generation += 1
        log.info("auth_keys_loaded", key_ids=sorted(self._keys))


def parse_keys(content: bytes) -> dict[str, jwt.PyJWK]:
    """The keys of a JWKS document that may verify tokens, by id; ValueError when there is none.

    A usable key is a public EdDSA or RS256 key for signatures with an id of its own; its algorithm is fixed by the key.
    """
    document = json.loads(content)
    entries = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, jwt.PyJWK] = {}
    for entry in entries if isinstance(entries, list) else []:
        key = _usable(entry)
        if key is not None and key.key_id is not None:
            keys.setdefault(key.key_id, key)
    if not keys:
        raise ValueError(f"no public key for {' or '.join(ALGORITHMS)} with a kid")
    return keys


def _usable(entry: object) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or "d" in entry:
        return None
    if entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK.from_dict(entry)
    except jwt.PyJWTError:
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def key_source(location: str) -> KeySource:
    """The source that AUTH_JWKS names: an http(s) URL, else a path."""
    if location.startswith(("http://", "https://")):
        return KeyUrl(location)
    return KeyFile(Path(location))
