"""`broadcast admin provision`, the one-shot of a deployment, on real servers."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping

import asyncpg
import nats
import pytest

from shared.streams import STREAMS
from stack.nats import NatsAccess
from stack.permissions import SERVICES
from stack.provision import LOGINS, SuiteDatabase
from stack.servers import Place


@pytest.fixture
def settings(make_database: Callable[[str], str], nats_server: NatsAccess, place: Place) -> dict[str, str]:
    """What a deployment tells the one-shot."""
    logins = (f"postgres_{service}_{login}" for service in SERVICES for login in LOGINS)
    return {
        "DATABASE_URL": make_database("deployed"),
        "NATS_URL": nats_server.url,
        "PROVISIONER_NATS_PASSWORD": nats_server.passwords["provisioner"],
        **{f"{name.upper()}_PASSWORD": place.secrets.password(name) for name in logins},
    }


def run(settings: Mapping[str, str]) -> tuple[int, str]:
    """The exit status of the one-shot and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "admin", "provision"],
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_services_find_their_schema_and_streams(settings: dict[str, str], place: Place) -> None:
    """After the first run every login gets into its own schema and every stream is there; a second changes nothing."""
    assert run(settings)[0] == 0
    suite = SuiteDatabase(settings["DATABASE_URL"], place.secrets.password)
    for service in SERVICES:
        for login in LOGINS:
            connection = await asyncpg.connect(suite.url(service, login))
            assert await connection.fetchval("SELECT current_schema()") == service
            await connection.close()
    client = await nats.connect(
        settings["NATS_URL"],
        user="provisioner",
        password=settings["PROVISIONER_NATS_PASSWORD"],
        inbox_prefix="_INBOX_provisioner",
    )
    for stream in STREAMS:
        assert (await client.jetstream().stream_info(stream.name)).config.name == stream.name
    await client.close()
    status, said = run(settings)
    assert status == 0
    assert said.splitlines() == [
        *(f"{service}: nothing to migrate" for service in SERVICES),
        "JetStream: nothing to change",
    ]


def test_a_missing_password_is_named(settings: dict[str, str]) -> None:
    """Nothing is made with an empty password; what to set is on one line."""
    del settings["POSTGRES_INBOX_API_PASSWORD"]
    assert run(settings) == (2, "POSTGRES_INBOX_API_PASSWORD is not set.\n")


def test_a_server_that_is_not_there_is_named(settings: dict[str, str]) -> None:
    """An operator sees which server to look at instead of a trace."""
    status, said = run({**settings, "NATS_URL": "nats://127.0.0.1:1"})
    assert status == 8
    assert said.endswith("NATS cannot be reached.\n")
