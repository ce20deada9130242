"""What can go wrong while the stack starts, each with what the person at the keyboard can do about it."""

import errno
import shlex
from collections.abc import Sequence
from pathlib import Path


class StackError(Exception):
    """The stack cannot go on; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy


class PortInUseError(StackError):
    """A port that was asked for by name is taken."""

    def __init__(self, port: int, variable: str) -> None:
        super().__init__(
            f"Port {port} on 127.0.0.1 is already in use.",
            f"Stop what listens there, or unset {variable} to let the stack choose a free port.",
        )


class MissingToolError(StackError):
    """A server's binary is not installed."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(
            f"{tool} is not installed in this environment.",
            f"Run `make setup`, or `pip install {package}`, with the Python that runs the stack.",
        )


class NoSpaceError(StackError):
    """The disk under the state folder is full, or too nearly so to start on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"There is not enough free disk space under {folder}.",
            "Free at least 500 MB there, or choose a folder on another disk with --state-dir.",
        )


class FolderClosedError(StackError):
    """The user that Postgres runs as cannot pass through folders on the way to its files."""

    def __init__(self, folders: Sequence[Path], user: str, wanted: Path) -> None:
        names = " ".join(shlex.quote(str(folder)) for folder in folders)
        super().__init__(
            "Postgres refuses to run as root, so it runs as another user, "
            f"and `{user}` cannot enter {names} on the way to {wanted}.",
            f"Run `chmod o+x {names}`, or keep the checkout and --state-dir where `{user}` may go, "
            "or run as an ordinary user.",
        )


class FileClosedError(StackError):
    """The user that Postgres runs as may not execute it."""

    def __init__(self, program: Path, user: str) -> None:
        package = shlex.quote(str(program.parents[2]))
        super().__init__(
            f"Postgres refuses to run as root, so it runs as another user, and `{user}` may not execute {program}.",
            f"Run `chmod -R o+rX {package}*`, or run as an ordinary user.",
        )


class AlreadyRunningError(StackError):
    """Another stack holds this state folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"Another stack is running on {folder} (process {holder}).",
            "Use that one, stop it with Ctrl-C in its terminal, or start this one with another --state-dir.",
        )


class ServerFailedError(StackError):
    """A server or service ended, or never became ready; carries the end of its log."""

    def __init__(self, name: str, happened: str, log: Path, tail: str) -> None:
        super().__init__(
            f"{name} {happened}.",
            f"The end of {log}:\n{tail or '(the log is empty)'}",
        )


def is_disk_full(error: OSError) -> bool:
    """Whether an error of the operating system means that no space, or no quota, is left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
