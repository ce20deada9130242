"""Decides which user Postgres runs as when the stack is root, and checks that it can reach its files."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from stack.errors import FolderClosedError, StackError


@dataclass(frozen=True, slots=True)
class Identity:
    """An existing unprivileged user of this system."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether this user, without supplementary groups, may pass through a folder."""
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def require_path(self, wanted: Path) -> None:
        """Refuse, naming the folder, when this user cannot pass through every folder above `wanted`."""
        for folder in reversed(wanted.resolve().parents):
            if not self.can_enter(folder):
                raise FolderClosedError(folder, self.name, wanted)


def unprivileged() -> Identity | None:
    """The user to drop to when root: `nobody` or what STACK_POSTGRES_USER says; None when not root."""
    if os.geteuid() != 0:
        return None
    name = os.environ.get("STACK_POSTGRES_USER", "nobody")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = None
    if entry is None or entry.pw_uid == 0:
        raise StackError(
            f"Postgres refuses to run as root, and this system has no ordinary user `{name}` to run it as.",
            "Set STACK_POSTGRES_USER to an existing ordinary user, or run as one.",
        )
    return Identity(name, entry.pw_uid, entry.pw_gid)
