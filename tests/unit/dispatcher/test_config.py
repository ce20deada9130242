"""The dispatcher's settings: lanes, and who applies reports."""

from pathlib import Path

import pytest

from services.dispatcher.config import Settings
from services.dispatcher.domain import InFlightLimit, Priority
from shared.settings import Environment, SettingsError


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What a dispatcher must be told."""
    token = tmp_path / "dispatcher.jwt"
    token.write_text("a token")
    return {
        "DISPATCHER_LISTEN": "127.0.0.1:5003",
        "DISPATCHER_DATABASE_URL": "postgresql://dispatcher_api@127.0.0.1/wedsync",
        "DISPATCHER_WORKER_DATABASE_URL": "postgresql://dispatcher_worker@127.0.0.1/wedsync",
        "DISPATCHER_SERVICE_TOKEN_FILE": str(token),
        "NATS_URL": "nats://127.0.0.1:4222",
        "AUTH_JWKS": "/keys.json",
        "AUTH_ISSUER": "issuer",
        "AUTH_AUDIENCE": "audience",
        **{f"{name}_ADDR": "127.0.0.1:5000" for name in ("SENDER", "PREFERENCES", "INBOX")},
    }


def test_a_dispatcher_alone_serves_every_lane_and_applies_reports(variables: dict[str, str]) -> None:
    """What has to be told is little."""
    settings = Settings.read(Environment(variables))
    assert settings.lanes == tuple(Priority)
    assert settings.applies_reports
    urgent = InFlightLimit(chunks=2, members=262_144, most_chunks=48)
    bulk = InFlightLimit(chunks=2, members=131_072, most_chunks=48, lane_members=131_072)
    assert settings.plan.limits == {
        Priority.CRITICAL: urgent,
        Priority.HIGH: urgent,
        Priority.NORMAL: bulk,
        Priority.LOW: bulk,
    }


@pytest.mark.parametrize(
    ("lanes", "told", "served", "applies"),
    [
        ("critical,high", None, (Priority.CRITICAL, Priority.HIGH), True),
        ("low, normal", None, (Priority.NORMAL, Priority.LOW), False),
        ("low", "1", (Priority.LOW,), True),
        ("critical", "0", (Priority.CRITICAL,), False),
    ],
)
def test_reports_are_applied_where_critical_ones_are_served(
    variables: dict[str, str], lanes: str, told: str | None, served: tuple[Priority, ...], *, applies: bool
) -> None:
    """So that no process of low priority stands between a critical broadcast and its end, unless it is told to."""
    given = {**variables, "DISPATCHER_LANES": lanes, **({"DISPATCHER_REPORTS": told} if told else {})}
    settings = Settings.read(Environment(given))
    assert (settings.lanes, settings.applies_reports) == (served, applies)


@pytest.mark.parametrize("lanes", ["urgent", "critical,critical", "critical,,high"])
def test_lanes_that_do_not_exist_are_refused(variables: dict[str, str], lanes: str) -> None:
    """With the name of the variable and the words that it takes."""
    with pytest.raises(SettingsError, match="DISPATCHER_LANES must be some of critical, high, normal, low"):
        Settings.read(Environment({**variables, "DISPATCHER_LANES": lanes}))


def test_no_lane_waits_for_another_ones_connection(variables: dict[str, str]) -> None:
    """One for each planner, loop and four reviews that may need one at once, and seven for what runs beside them."""
    settings = Settings.read(Environment({**variables, "DISPATCHER_PLANNERS_PER_LANE": "3"}))
    assert settings.worker_connections == 4 * (3 + 1 + 4) + 7
