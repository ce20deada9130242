"""The user that Postgres runs as, and the folders in its way."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.errors import FileClosedError, FolderClosedError, StackError
from stack.identity import Identity, unprivileged

STRANGER = Identity("stranger", uid=64_321, gid=64_321)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may pass through; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="wedsync-tests-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        yield folder


def test_an_open_path_is_accepted(open_folder: Path) -> None:
    """Folders that everybody may pass through are no obstacle; what lies at the end need not be there yet."""
    STRANGER.require_path(open_folder / "data")


def test_closed_folders_are_named_with_the_command_that_opens_them(open_folder: Path) -> None:
    """All of them at once, so that nobody has to try again folder by folder."""
    closed = open_folder / "home"
    (closed / "checkout").mkdir(parents=True)
    closed.chmod(0o700)
    (closed / "checkout").chmod(0o700)
    with pytest.raises(FolderClosedError, match="cannot enter") as caught:
        STRANGER.require_path(closed / "checkout" / "data")
    assert f"chmod o+x {closed} {closed / 'checkout'}`" in caught.value.remedy


def test_a_program_that_the_user_may_not_execute_is_named(open_folder: Path) -> None:
    """Installed under a strict umask, files are closed as well as folders."""
    program = open_folder / "pginstall" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    for folder in (program.parent, program.parents[1]):
        folder.chmod(0o711)
    program.touch(0o700)
    with pytest.raises(FileClosedError, match="may not execute") as caught:
        STRANGER.require_program(program)
    assert f"chmod -R o+rX {open_folder}*`" in caught.value.remedy


@pytest.mark.parametrize(
    ("identity", "mode", "may"),
    [
        (Identity("me", os.getuid(), 64_321), 0o100, True),
        (Identity("me", os.getuid(), 64_321), 0o077, False),
        (Identity("group", 64_321, os.getgid()), 0o710, True),
        (Identity("group", 64_321, os.getgid()), 0o701, False),
        (STRANGER, 0o701, True),
        (STRANGER, 0o770, False),
    ],
)
def test_permissions_are_read_as_the_kernel_reads_them(
    tmp_path: Path, identity: Identity, mode: int, may: bool
) -> None:
    """Owner, group and others: the first that matches decides alone."""
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, os.getuid(), os.getgid())
    folder.chmod(mode)
    assert may == identity.can_enter(folder)


def test_an_ordinary_user_stays_who_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root has to become somebody else."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged(Path("/nowhere")) is None


def test_root_becomes_an_existing_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """No user is made for the stack; `nobody` is there already."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("STACK_POSTGRES_USER", raising=False)
    identity = unprivileged(Path("/nowhere"))
    assert identity is not None
    assert pwd.getpwnam("nobody").pw_uid == identity.uid


def test_root_serves_an_ordinary_users_data_as_that_user(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo make run` on one's own data leaves them one's own."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    theirs = os.stat_result((0o40700, 1, 1, 1, 64_321, 64_322, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda *_, **__: theirs)
    assert Identity("64321", 64_321, 64_322) == unprivileged(open_folder)


@pytest.mark.parametrize("name", ["no-such-user", "root"])
def test_a_user_who_cannot_serve_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Neither somebody who does not exist nor root itself."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("STACK_POSTGRES_USER", name)
    with pytest.raises(StackError, match=f"no ordinary user `{name}`") as caught:
        unprivileged(Path("/nowhere"))
    assert "STACK_POSTGRES_USER" in caught.value.remedy
