"""The inbox's settings that somebody else relies on."""

import inspect
from pathlib import Path

import pytest
from wedsync.broadcast.client.inbox import Inbox

from services.inbox.config import LONGEST_HEARTBEAT_S, Settings
from shared.settings import Environment, SettingsError


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What an inbox must be told."""
    token = tmp_path / "inbox.jwt"
    token.write_text("a token")
    return {
        "INBOX_LISTEN": "127.0.0.1:5004",
        "INBOX_DATABASE_URL": "postgresql://inbox_api@127.0.0.1/wedsync",
        "INBOX_WORKER_DATABASE_URL": "postgresql://inbox_worker@127.0.0.1/wedsync",
        "INBOX_SERVICE_TOKEN_FILE": str(token),
        "NATS_URL": "nats://127.0.0.1:4222",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "AUTH_JWKS": "/keys.json",
        "AUTH_ISSUER": "issuer",
        "AUTH_AUDIENCE": "audience",
        **{f"{name}_ADDR": "127.0.0.1:5000" for name in ("SENDER", "PREFERENCES")},
    }


def test_clients_hear_several_signs_of_life_before_they_leave(variables: dict[str, str]) -> None:
    """However an inbox is set: two may be late, and a quiet stream is still no silent one."""
    silence_s = inspect.signature(Inbox.watch).parameters["silence_s"].default
    assert 3 * LONGEST_HEARTBEAT_S <= silence_s
    slowest = Settings.read(Environment(variables | {"INBOX_HEARTBEAT_S": f"{LONGEST_HEARTBEAT_S:g}"}))
    assert slowest.streams.heartbeat_s == LONGEST_HEARTBEAT_S
    with pytest.raises(SettingsError, match=r"INBOX_HEARTBEAT_S must be seconds from 0\.1 to 20;"):
        Settings.read(Environment(variables | {"INBOX_HEARTBEAT_S": "20.1"}))
