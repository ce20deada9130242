"""Passwords are made once and are their owner's alone."""

from pathlib import Path

import pytest

from stack.credentials import Secrets, write_private
from stack.errors import StackError


def test_a_password_is_made_once(tmp_path: Path) -> None:
    """The same name has the same password in the next run, and another name another."""
    first = Secrets(tmp_path / "secrets.json")
    assert first.password("a") == Secrets(tmp_path / "secrets.json").password("a")
    assert first.password("a") != first.password("b")


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """The file has mode 0600 from its first byte on."""
    Secrets(tmp_path / "secrets.json").password("a")
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_replacing_a_public_file_makes_it_private(tmp_path: Path) -> None:
    """An older, readable file of that name does not lend its mode."""
    (tmp_path / "f").write_text("old")
    (tmp_path / "f").chmod(0o644)
    write_private(tmp_path / "f", "new")
    assert ((tmp_path / "f").read_text(), (tmp_path / "f").stat().st_mode & 0o777) == ("new", 0o600)


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    """The person is told which file, and how to begin anew."""
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(StackError, match="is damaged") as caught:
        Secrets(tmp_path / "secrets.json")
    assert "make reset" in caught.value.remedy
