"""The table of processes, and what each is told."""

from pathlib import Path

import pytest

from stack.credentials import Secrets
from stack.nats import NatsAccess
from stack.permissions import SERVICES
from stack.ports import Ports
from stack.provision import SuiteDatabase
from stack.services import ServiceProcess, Surroundings, groups


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    """Made-up servers."""
    secrets = Secrets(tmp_path / "secrets.json")
    passwords = {service: f"{service}-secret" for service in SERVICES}
    return Surroundings(
        database=SuiteDatabase(
            "postgresql://postgres:super-secret@127.0.0.1:5432/postgres", secrets.password
        ),
        nats=NatsAccess("nats://127.0.0.1:4222", passwords),
        redis_url="redis://:r@127.0.0.1:6379/0",
        jwks=tmp_path / "jwks.json",
        tokens=tmp_path / "tokens",
        logs=tmp_path / "logs",
        ports=Ports(tmp_path / "ports.json"),
    )


def _processes(inbox_processes: int = 1) -> list[ServiceProcess]:
    return [process for group in groups(inbox_processes) for process in group]


def test_no_process_gets_the_administrators_login(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from the stack nor from the shell it was started in."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://postgres:super-secret@127.0.0.1:5432/postgres")
    for process in _processes():
        environment = surroundings.environment(process)
        assert "DATABASE_URL" not in environment
        assert not [name for name, value in environment.items() if "super-secret" in value]


def test_each_process_gets_its_own_logins_only(surroundings: Surroundings) -> None:
    """Another service's password is in nobody's environment."""
    for process in _processes():
        text = " ".join(surroundings.environment(process).values())
        assert [process.service] == [service for service in SERVICES if f"{service}-secret" in text]
        logins = [
            service for service in SERVICES if f"{service}_api:" in text or f"{service}_worker:" in text
        ]
        assert [process.service] == logins


def test_lanes_are_split_and_the_waiting_ones_run_nicer(surroundings: Surroundings) -> None:
    """Two dispatchers on two ports: the urgent lanes, and behind them the others."""
    dispatchers = [process for process in _processes() if process.service == "dispatcher"]
    environments = [surroundings.environment(process) for process in dispatchers]
    assert [each["DISPATCHER_LANES"] for each in environments] == ["critical,high", "normal,low"]
    assert [process.niceness for process in dispatchers] == [0, 10]
    assert len({each["DISPATCHER_LISTEN"] for each in environments}) == 2
    assert environments[0]["DISPATCHER_LISTEN"] == environments[0]["DISPATCHER_ADDR"]


def test_processes_of_the_inbox_share_its_port(surroundings: Surroundings) -> None:
    """Callers know one address; figures are read from each process."""
    inboxes = [surroundings.environment(each) for each in _processes(3) if each.service == "inbox"]
    assert [each["INBOX_REUSE_PORT"] for each in inboxes] == ["1"] * 3
    assert len({each["INBOX_LISTEN"] for each in inboxes}) == 1
    assert len({each["INBOX_METRICS_LISTEN"] for each in inboxes}) == 3


def test_a_single_inbox_keeps_its_port_to_itself(surroundings: Surroundings) -> None:
    """Otherwise a second one, started by mistake, would take half of the streams."""
    inbox = next(each for each in _processes() if each.service == "inbox")
    assert "INBOX_REUSE_PORT" not in surroundings.environment(inbox)


def test_a_developers_own_settings_reach_the_services(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failpoints, log format and a service's own settings are passed on; the rest of the shell is not."""
    monkeypatch.setenv("BROADCAST_FAILPOINTS", "x=exit")
    monkeypatch.setenv("SENDER_MAX_MESSAGE_BYTES", "2048")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    environment = surroundings.environment(_processes()[0])
    assert (environment["BROADCAST_FAILPOINTS"], environment["SENDER_MAX_MESSAGE_BYTES"]) == (
        "x=exit",
        "2048",
    )
    assert "SOMETHING_ELSE" not in environment
