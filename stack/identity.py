"""Decides which user Postgres runs as when the stack is root, and checks that it can reach its files."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from stack.errors import FileClosedError, FolderClosedError, StackError


@dataclass(frozen=True, slots=True)
class Identity:
    """An existing unprivileged user of this system."""

    name: str
    uid: int
    gid: int

    def can_enter(self, path: Path) -> bool:
        """Whether this user, without supplementary groups, may pass through a folder or execute a file."""
        status = path.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def require_path(self, wanted: Path) -> None:
        """Refuse, naming the folders, when this user cannot pass through every folder above `wanted`."""
        above = reversed(wanted.resolve().parents)
        closed = [folder for folder in above if folder.exists() and not self.can_enter(folder)]
        if closed:
            raise FolderClosedError(closed, self.name, wanted)

    def require_program(self, program: Path) -> None:
        """Refuse when this user cannot reach or execute a program."""
        self.require_path(program)
        if not self.can_enter(program):
            raise FileClosedError(program, self.name)


def unprivileged(owned: Path) -> Identity | None:
    """The user to drop to when root, None for an ordinary user.

    It is the owner of what is at `owned` already, else whom STACK_POSTGRES_USER names, else `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if owned.exists() and owned.stat().st_uid != 0:
        return _by_number(owned.stat().st_uid, owned.stat().st_gid)
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


def _by_number(uid: int, gid: int) -> Identity:
    try:
        return Identity(pwd.getpwuid(uid).pw_name, uid, gid)
    except KeyError:
        return Identity(str(uid), uid, gid)
