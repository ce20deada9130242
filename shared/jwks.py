"""The public keys that tokens may be signed with: read from a JWKS file or URL, kept fresh while they are rotated."""

import asyncio
import json
import ssl
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from typing_extensions import override

from shared.clock import Clock, SystemClock
from shared.errors import DependencyUnavailable
from shared.file_stamps import Stamp, stamp_of
from shared.settings import SettingsError

ALGORITHMS = ("EdDSA", "RS256")
# Less than that, and a signature could be made up by who can pay for it.
_SHORTEST_RSA_BITS = 2_048
_SOCKET_TIMEOUT_S = 5.0
_FETCH_TIMEOUT_S = 8.0
_LARGEST_SET_BYTES = 1 << 20
_FILE_LOOK_S = 1.0
_URL_LOOK_S = 300.0
_MISS_RELOAD_S = 10.0
# Keys that are there hold while a source that does not answer is waited for.
_KNOWN_KEY_WAIT_S = 0.2

log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Where a JWKS document is kept."""

    look_every_s: float

    async def read(self) -> bytes:
        """The whole document.

        OSError when it cannot be had, DependencyUnavailable when it may be had later, ValueError when it is too large.
        """

    def may_have_changed(self) -> bool:
        """Whether reading again could give something new; cheap enough for the event loop."""


class KeyFile:
    """A JWKS document in a file, read again when the file is replaced or written."""

    look_every_s = _FILE_LOOK_S

    def __init__(self, path: Path) -> None:
        """`path` is read first by `read`."""
        self._path = path
        self._seen: Stamp | None = None

    async def read(self) -> bytes:
        """The file as it is now."""
        self._seen = stamp_of(self._path)
        with self._path.open("rb") as file:
            return _bounded(file.read(_LARGEST_SET_BYTES + 1))

    def may_have_changed(self) -> bool:
        """Whether the file is another one, or was written, since it was read."""
        try:
            return stamp_of(self._path) != self._seen
        except OSError:
            return False


class KeyUrl:
    """A JWKS document behind an http(s) URL, asked for by that very address: nobody may send us to another one."""

    look_every_s = _URL_LOOK_S

    def __init__(self, url: str, fetch_timeout_s: float = _FETCH_TIMEOUT_S) -> None:
        """`url` is fetched by `read`, which takes no longer than `fetch_timeout_s`."""
        self._url = url
        self._fetch_timeout_s = fetch_timeout_s
        self._opener = build_opener(_NoRedirect)

    async def read(self) -> bytes:
        """Fetches the document in a thread."""
        try:
            async with asyncio.timeout(self._fetch_timeout_s):
                return await asyncio.to_thread(self._fetch)
        except OSError as error:
            if _is_passing(error):
                raise DependencyUnavailable(f"The keys that tokens are signed with: {error}") from error
            raise

    def may_have_changed(self) -> bool:
        """Always: only fetching tells."""
        return True

    def _fetch(self) -> bytes:
        request = Request(self._url, headers={"accept": "application/json"})  # noqa: S310 scheme checked
        try:
            with self._opener.open(request, timeout=_SOCKET_TIMEOUT_S) as answer:
                return _bounded(answer.read(_LARGEST_SET_BYTES + 1))
        except HTTPException as error:
            raise ConnectionError(f"no HTTP answer: {error!r}") from error


class _NoRedirect(HTTPRedirectHandler):
    """An https address that sends on to an http one would have keys from whoever is on the way."""

    @override
    def redirect_request(self, *_: object) -> None:
        return None


def _is_passing(error: OSError) -> bool:
    """Whether a fetch may succeed later without anybody's changing a setting."""
    if isinstance(error, HTTPError):
        return error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS
    return not (isinstance(error, URLError) and isinstance(error.reason, ssl.SSLCertVerificationError))


def _bounded(content: bytes) -> bytes:
    if len(content) > _LARGEST_SET_BYTES:
        raise ValueError("the key set is larger than 1 MiB")
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
        """Reads the keys for the first time.

        SettingsError when there is none to be had, DependencyUnavailable when there may be in a moment.
        """
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
            await asyncio.wait({self._reloading}, timeout=_KNOWN_KEY_WAIT_S if key_id in self._keys else None)
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
        except (OSError, ValueError, DependencyUnavailable) as error:
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
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _SHORTEST_RSA_BITS:
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def key_source(location: str) -> KeySource:
    """The source that AUTH_JWKS names: an http(s) URL, else a path."""
    if location.startswith(("http://", "https://")):
        return KeyUrl(location)
    return KeyFile(Path(location))
