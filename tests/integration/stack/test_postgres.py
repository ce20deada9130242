"""The PostgreSQL server over crashes and restarts, and what is said when it cannot start."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from stack.errors import FolderClosedError, ServerFailedError
from stack.identity import Identity
from stack.ports import Ports
from stack.postgres import PostgresServer
from stack.processes import start


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of Postgres can enter."""
    with tempfile.TemporaryDirectory(prefix="wedsync-tests-") as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()


@pytest.fixture
def server(folder: Path) -> PostgresServer:
    """A server that has not been started."""
    return PostgresServer(
        folder / "postgres", folder / "logs", Ports(folder / "ports.json").choose("postgres"), "secret"
    )


async def _value(server: PostgresServer, sql: str) -> object:
    connection = await asyncpg.connect(server.url())
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_what_was_committed_survives_a_kill(server: PostgresServer) -> None:
    """SIGKILL, a new start on the same folder, and the row is there."""
    running = start(server)
    try:
        await _value(server, "CREATE TABLE kept AS SELECT 42 AS n")
        running.kill()
        running = start(server)
        assert await _value(server, "SELECT n FROM kept") == 42
    finally:
        running.stop()


async def test_its_process_is_not_roots_and_its_folder_is_its_own(
    server: PostgresServer, folder: Path
) -> None:
    """As root it runs as somebody else; as an ordinary user it runs as them."""
    running = start(server)
    try:
        uids = {psutil.Process(running.pid).uids().effective, (folder / "postgres" / "data").stat().st_uid}
        assert len(uids) == 1
        assert 0 not in uids
        assert (folder / "postgres" / "data").stat().st_mode & 0o777 == 0o700
    finally:
        running.stop()


async def test_it_listens_on_loopback_only(server: PostgresServer) -> None:
    """No other machine reaches it, and there is no socket file with another kind of login."""
    running = start(server)
    try:
        listening = [
            each.laddr.ip for each in psutil.Process(running.pid).net_connections() if each.status == "LISTEN"
        ]
        assert listening == ["127.0.0.1"]
        assert await _value(server, "SHOW unix_socket_directories") == ""
    finally:
        running.stop()


def test_a_cluster_that_was_interrupted_while_it_was_made_is_made_anew(
    server: PostgresServer, folder: Path
) -> None:
    """Half a cluster is never taken for one."""
    (folder / "postgres" / "data.new").mkdir(parents=True)
    (folder / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")
    start(server).stop()
    assert [each.name for each in (folder / "postgres").iterdir()] == ["data"]


def test_a_stale_pid_file_is_no_obstacle(server: PostgresServer, folder: Path) -> None:
    """After a crash its number may be another process's, here one of the very user that Postgres runs as."""
    start(server).stop()
    owner = (folder / "postgres" / "data").stat()
    user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/sleep", "60"], **user) as somebody:  # type: ignore[call-overload]
        (folder / "postgres" / "data" / "postmaster.pid").write_text(f"{somebody.pid}\n{folder}\n")
        running = start(server)
        running.stop()
        somebody.kill()


async def test_it_waits_for_the_server_of_a_stack_that_was_killed(server: PostgresServer) -> None:
    """The kernel has told the old one to end; the new one starts as soon as it has."""
    first = start(server)
    os.kill(first.pid, signal.SIGQUIT)
    second = start(server)
    try:
        assert await _value(server, "SELECT 1") == 1
    finally:
        second.stop()
        first.kill()


def test_a_folder_that_its_user_cannot_enter_is_named(
    server: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout under a closed home: the folder, and the command that opens it."""
    monkeypatch.setattr("stack.postgres.unprivileged", lambda _: Identity("stranger", 64_321, 64_321))
    folder.chmod(0o700)
    with pytest.raises(FolderClosedError) as caught:
        start(server)
    assert f"chmod o+x {folder}`" in caught.value.remedy


def test_why_it_does_not_start_is_shown(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own last words are in the error."""
    monkeypatch.setattr("stack.postgres.SETTINGS", {"no_such_setting": "1"})
    with pytest.raises(ServerFailedError, match="postgres ended with code 1 before it was ready") as caught:
        start(server)
    assert "no_such_setting" in caught.value.remedy
