"""The service config that clients are given is the one that the code makes."""

import json
from pathlib import Path

from shared.channels import service_config

PAGE = Path(__file__).parents[3] / "ARCHITECTURE.md"
SERVICES = ("Sender", "Inbox", "Preferences", "Directory", "Dispatcher")


def test_the_page_for_clients_has_the_patient_config() -> None:
    """Whoever copies it from ARCHITECTURE.md has what the tests of replaced processes run with."""
    told = PAGE.read_text().partition("```json")[2].partition("```")[0]
    made = service_config((f"wedsync.broadcast.v1.{name}Service" for name in SERVICES), is_patient=True)
    assert json.loads(told) == json.loads(made)


def test_services_are_less_patient_with_each_other() -> None:
    """Between services a call that finds nobody is told so, and not kept waiting."""
    (method,) = json.loads(service_config(["wedsync.broadcast.v1.AudienceService"]))["methodConfig"]
    assert method["waitForReady"] is False
    assert method["name"] == [{"service": "wedsync.broadcast.v1.AudienceService"}]


def test_no_channel_asks_for_health_checks() -> None:
    """Those of gRPC end the process of the caller when a connection is lost in the moment in which it stands."""
    assert "healthCheckConfig" not in json.loads(service_config([], is_patient=True))
