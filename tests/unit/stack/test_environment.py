"""The file that a person sources, and what it means to the next stack."""

from pathlib import Path

import pytest

from stack import servers
from stack.credentials import Secrets
from stack.environment import OWN_URLS, read_environment, write_environment
from stack.errors import StackError
from stack.ports import Ports
from stack.servers import Place

_THEIRS = "postgresql://admin:secret@db.example/suite"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A stack's place, in a shell without any of its variables."""
    for name in ("DATABASE_URL", "NATS_URL", "REDIS_URL", OWN_URLS):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path, Ports(tmp_path / "ports.json"), Secrets(tmp_path / "secrets.json"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Values survive the quoting that a shell needs, and nobody else may read them."""
    variables = {"SENDER_ADDR": "127.0.0.1:5001", "ODD": "a b'c\"$d"}
    write_environment(tmp_path / "env", variables, [])
    assert variables == read_environment(tmp_path / "env")
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600


def test_without_a_stack_it_says_what_to_do(tmp_path: Path) -> None:
    """Nothing has been started yet."""
    with pytest.raises(StackError) as caught:
        read_environment(tmp_path / "env")
    assert "make run" in caught.value.remedy


def test_servers_from_outside_are_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that is set replaces its server; the others are started here."""
    monkeypatch.setenv("DATABASE_URL", _THEIRS)
    assert (servers.postgres(place).access, servers.postgres(place).server) == (_THEIRS, None)
    assert servers.nats(place).server is not None
    assert servers.valkey(place).server is not None


def test_nats_and_redis_from_outside_are_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login is in the address of NATS, since nobody here has made users there."""
    monkeypatch.setenv("NATS_URL", "nats://suite:secret@nats.example:4222")
    monkeypatch.setenv("REDIS_URL", "rediss://cache.example/0")
    nats, valkey = servers.nats(place), servers.valkey(place)
    assert [nats.server, valkey.server] == [None, None]
    assert nats.access.url_for("sender") == "nats://suite:secret@nats.example:4222"
    assert valkey.access == "rediss://cache.example/0"


def test_a_sourced_file_does_not_make_the_next_stack_use_the_last_ones_servers(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has sourced `.stack/env` and types `make run` again gets servers that run."""
    write_environment(
        tmp_path / "env", {"DATABASE_URL": "postgresql://gone", "NATS_URL": "nats://n"}, ["DATABASE_URL"]
    )
    for name, value in read_environment(tmp_path / "env").items():
        monkeypatch.setenv(name, value)
    assert servers.postgres(place).server is not None
    assert servers.nats(place).access.url == "nats://n"
