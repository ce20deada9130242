"""Owns the stack's passwords: made once, kept in a file that only its owner can read."""

import json
import os
import secrets
from pathlib import Path

from stack.errors import StackError


class Secrets:
    """Named passwords; one that is asked for the first time is made and kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values = _read(path)

    def password(self, name: str) -> str:
        """The password of that name: URL-safe, 256 bits."""
        if name not in self._values:
            self._values[name] = secrets.token_urlsafe(32)
            write_private(self._path, json.dumps(self._values, indent=2) + "\n")
        return self._values[name]


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step by one that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read(path: Path) -> dict[str, str]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise StackError(f"{path} is damaged.", "Run `make reset` to start with new data and secrets.")
    return {str(name): str(value) for name, value in values.items()}
