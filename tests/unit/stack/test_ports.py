"""The loopback ports of a stack: fixed, remembered or free."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.errors import PortInUseError, StackError
from stack.ports import LOOPBACK, Ports


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody else's server."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server


def test_a_fixed_port_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STACK_<NAME>_PORT decides, with dashes in the name as underscores."""
    port = Ports(tmp_path / "other.json").choose("any")
    monkeypatch.setenv("STACK_DISPATCHER_BULK_PORT", str(port))
    assert port == Ports(tmp_path / "ports.json").choose("dispatcher-bulk")


def test_a_fixed_port_in_use_is_an_error_that_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    """Who fixed the port is told what holds them up and which variable to unset."""
    monkeypatch.setenv("STACK_SENDER_PORT", str(listener.getsockname()[1]))
    with pytest.raises(PortInUseError, match="already in use") as caught:
        Ports(tmp_path / "ports.json").choose("sender")
    assert "STACK_SENDER_PORT" in caught.value.remedy


@pytest.mark.parametrize("nonsense", ["http", "0", "65536", "-1"])
def test_a_fixed_port_must_be_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: str) -> None:
    """What is not a port is said to be none."""
    monkeypatch.setenv("STACK_SENDER_PORT", nonsense)
    with pytest.raises(StackError, match="is not a port"):
        Ports(tmp_path / "ports.json").choose("sender")


def test_the_port_of_the_last_run_is_used_again(tmp_path: Path) -> None:
    """Addresses in somebody's shell stay right over a restart."""
    first = Ports(tmp_path / "ports.json")
    port = first.choose("sender")
    first.save()
    assert port == Ports(tmp_path / "ports.json").choose("sender")


def test_a_remembered_port_in_use_is_given_up(tmp_path: Path, listener: socket.socket) -> None:
    """Only a fixed port is worth an error; another free one does."""
    taken = listener.getsockname()[1]
    (tmp_path / "ports.json").write_text(f'{{"sender": {taken}}}')
    assert taken != Ports(tmp_path / "ports.json").choose("sender")


def test_names_never_share_a_port(tmp_path: Path) -> None:
    """Each name has one port, and each port one name."""
    ports = Ports(tmp_path / "ports.json")
    chosen = [ports.choose(f"name-{n}") for n in range(50)]
    assert len(set(chosen)) == 50
    assert chosen == [ports.choose(f"name-{n}") for n in range(50)]


def test_a_damaged_memory_is_no_obstacle(tmp_path: Path) -> None:
    """The file of ports is a convenience."""
    (tmp_path / "ports.json").write_text("[")
    assert Ports(tmp_path / "ports.json").choose("sender") > 0
