"""Owns the state folder of a stack: where each thing lies in it, who holds it, and how it is cleared."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.errors import AlreadyRunningError, NoSpaceError, StackError, is_disk_full

CHECKOUT = Path(__file__).resolve().parents[1]
DEFAULT = Path(os.environ.get("STACK_STATE_DIR") or CHECKOUT / ".stack")
"""Where a stack is kept unless somebody says otherwise, as a stack's `env` file does for the shell that sources it."""
_NEEDED_BYTES = 500 * 1024 * 1024
_FOLDERS = ("postgres", "nats", "valkey", "logs", "keys", "tokens")
_FILES = ("secrets.json", "ports.json", "env")
_MARK = "lock"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """One stack's data, logs, secrets and addresses."""

    path: Path

    @property
    def logs(self) -> Path:
        """A file for each process."""
        return self.path / "logs"

    @property
    def secrets(self) -> Path:
        """Every password."""
        return self.path / "secrets.json"

    @property
    def ports(self) -> Path:
        """The ports of the last run."""
        return self.path / "ports.json"

    @property
    def keys(self) -> Path:
        """The key that signs tokens, and its public half."""
        return self.path / "keys"

    @property
    def tokens(self) -> Path:
        """The services' own tokens."""
        return self.path / "tokens"

    @property
    def env(self) -> Path:
        """Addresses and the admin's token, as lines for a shell."""
        return self.path / "env"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder if need be and hold it; the kernel lets go when the holder ends, however it ends."""
        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            # Passed through by the user that Postgres runs as when the stack is root, and read by nobody else.
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            lock = (self.path / _MARK).open("a+")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise AlreadyRunningError(self.path, lock.read().strip() or "unknown") from error
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def set_logs_aside(self) -> None:
        """Begin new logs; those of the last run are kept beside them, older ones go."""
        previous = self.logs / "previous"
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir(parents=True)
        for log in self.logs.glob("*.log"):
            log.rename(previous / log.name)

    def require_space(self) -> None:
        """Refuse to start on a disk that is nearly full."""
        if shutil.disk_usage(self.path).free < _NEEDED_BYTES:
            raise NoSpaceError(self.path)

    def clear(self) -> None:
        """Remove what a stack has put here, and nothing else."""
        if not self.path.exists():
            return
        if not (self.path / _MARK).exists() and any(self.path.iterdir()):
            raise StackError(
                f"{self.path} is not the state folder of a stack.", "Name the right one with --state-dir."
            )
        with self.held():
            for folder in _FOLDERS:
                shutil.rmtree(self.path / folder, ignore_errors=True)
            for file in (*_FILES, _MARK):
                (self.path / file).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise NoSpaceError(folder) from error
        raise StackError(
            f"{folder} cannot be used: {error.strerror}.",
            "Choose another folder with --state-dir, or make this one yours.",
        ) from error
