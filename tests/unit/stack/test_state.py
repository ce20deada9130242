"""The state folder: held by one stack at a time, cleared without touching anything else."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stack.errors import AlreadyRunningError, NoSpaceError, StackError
from stack.state import StateFolder


def test_one_stack_at_a_time(tmp_path: Path) -> None:
    """A second stack on the same folder is refused, with the process that holds it and what to do."""
    state = StateFolder(tmp_path / "state")
    with (
        state.held(),
        pytest.raises(AlreadyRunningError, match=f"process {os.getpid()}") as caught,
        StateFolder(tmp_path / "state").held(),
    ):
        pass
    assert "--state-dir" in caught.value.remedy


def test_a_lock_file_left_behind_holds_nothing(tmp_path: Path) -> None:
    """What counts is whether the holder lives, not whether the file is there."""
    (tmp_path / "lock").write_text("1\n")
    with StateFolder(tmp_path).held():
        assert f"{os.getpid()}\n" == (tmp_path / "lock").read_text()


def test_a_nearly_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better no start than one that ends in the middle of a write."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(NoSpaceError, match="not enough free disk space"):
        StateFolder(tmp_path).require_space()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """No trace of Python: the disk, and what to do."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(NoSpaceError), StateFolder(tmp_path / "state").held():
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in the way of the folder is a sentence, not a trace."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be used"), StateFolder(tmp_path / "file" / "state").held():
        pass


def test_logs_of_the_last_run_are_kept_and_older_ones_go(tmp_path: Path) -> None:
    """Logs cannot fill the disk over many runs, and the run that went wrong can still be read."""
    state = StateFolder(tmp_path)
    for run in ("first", "second"):
        state.set_logs_aside()
        (state.logs / "sender.log").write_text(run)
    state.set_logs_aside()
    kept = [path for path in state.logs.rglob("*") if path.is_file()]
    assert [("second", "previous")] == [(path.read_text(), path.parent.name) for path in kept]


def test_clearing_removes_what_a_stack_has_put_there_and_nothing_else(tmp_path: Path) -> None:
    """A person's own file in the folder survives `make reset`."""
    state = StateFolder(tmp_path)
    with state.held():
        (tmp_path / "postgres" / "data").mkdir(parents=True)
        state.env.write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    state.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_clearing_removes_an_emptied_folder(tmp_path: Path) -> None:
    """Nothing is left where nothing else was."""
    state = StateFolder(tmp_path / "state")
    with state.held():
        pass
    state.clear()
    state.clear()
    assert not state.path.exists()


def test_clearing_refuses_a_folder_that_is_no_stacks(tmp_path: Path) -> None:
    """A mistyped --state-dir costs nobody their files."""
    (tmp_path / "postgres").mkdir()
    with pytest.raises(StackError, match="is not the state folder of a stack"):
        StateFolder(tmp_path).clear()
    assert (tmp_path / "postgres").exists()


def test_clearing_a_running_stack_is_refused(tmp_path: Path) -> None:
    """Its servers would go on writing into what is gone."""
    state = StateFolder(tmp_path)
    with state.held(), pytest.raises(AlreadyRunningError):
        state.clear()
