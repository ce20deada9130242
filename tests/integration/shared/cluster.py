"""A Postgres of a test's own, which it may stop, put back to an earlier state, promote and copy."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import asyncpg

from shared.errors import DependencyUnavailable
from shared.served_log import ServedLog
from stack.ports import Ports
from stack.postgres import PostgresServer, binaries
from stack.processes import RunningProgram, start
from stack.provision import SuiteDatabase, migrate_services, provision_database


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that the user of Postgres can enter."""
    with tempfile.TemporaryDirectory(prefix="wedsync-tests-") as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()


@dataclass(slots=True)
class Cluster:
    """A Postgres with one service's tables, and how that tells its log from any other."""

    server: PostgresServer
    folder: Path
    suite: SuiteDatabase
    running: RunningProgram
    service: str
    log: ServedLog

    @classmethod
    async def make(cls, folder: Path, service: str, log: ServedLog) -> "Cluster":
        """One that runs, in a folder which its user can enter."""
        server = PostgresServer(folder / "postgres", folder, Ports(folder / "ports.json").choose("own"), "x")
        running = start(server)
        suite = await provision_database(server.url(), lambda _: "opens-nothing")
        await migrate_services(suite.admin_url, [service])
        return cls(server, folder / "postgres", suite, running, service, log)

    def crash(self) -> None:
        """Kill it, and start it again."""
        self.running.kill()
        self.running = start(self.server)

    def restart(self) -> None:
        """Stop it in order, and start it again."""
        self.running.stop()
        self.running = start(self.server)

    def keep(self) -> None:
        """Keep what is there now, to be put back."""
        self.running.stop()
        shutil.copytree(self.folder / "data", self.folder / "kept")
        _own(self.folder / "kept", self.folder / "data")
        self.running = start(self.server)

    def put_back(self) -> None:
        """Recover what was kept, as from a backup; this may return a moment before that is over."""
        self.running.stop()
        shutil.rmtree(self.folder / "data")
        (self.folder / "kept").rename(self.folder / "data")
        self.say("postgresql.auto.conf", "restore_command = 'false'\n")
        self.say("recovery.signal", "")
        self.running = start(self.server)

    def stand_by(self) -> None:
        """Start as a standby does, which only reads until it is promoted."""
        self.running.stop()
        self.say("standby.signal", "")
        self.running = start(self.server)

    async def promote(self) -> None:
        """Have a standby take over."""
        admin = await asyncpg.connect(self.suite.admin_url)
        assert await admin.fetchval("SELECT pg_promote()")
        await admin.close()

    def say(self, name: str, text: str) -> None:
        """Write to a file of the server's own."""
        path = self.folder / "data" / name
        with path.open("a") as file:
            file.write(text)
        _own(path, self.folder / "data")

    async def identity(self, login: str = "worker") -> UUID | None:
        """What the log is told by, None on a standby."""
        connection = await asyncpg.connect(self.suite.url(self.service, login))
        try:
            return await self.log.find(connection)
        except DependencyUnavailable:
            return None
        finally:
            await connection.close()

    def copy(self) -> "Cluster":
        """The same server with a copy of the database."""
        self.run("createdb", f"--maintenance-db={self.suite.admin_url}", "--template=postgres", "copy")
        return replace(self, suite=replace(self.suite, admin_url=self.server.url("copy")))

    def bring_back(self) -> None:
        """Dump the database and put the dump in its place."""
        dump = self.folder / "dump"
        self.run("pg_dump", "--format=custom", f"--file={dump}", self.suite.admin_url)
        self.run("pg_restore", "--clean", f"--dbname={self.suite.admin_url}", str(dump))

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of Postgres' to its end."""
        subprocess.run([str(binaries() / program), *arguments], check=True, capture_output=True)


def _own(path: Path, like: Path) -> None:
    """Give a file, or a folder with all in it, to whoever has another."""
    owner = like.stat()
    for each in (path, *path.rglob("*")):
        os.chown(each, owner.st_uid, owner.st_gid)
        each.chmod(0o700 if each.is_dir() else 0o600)
