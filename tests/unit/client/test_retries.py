"""The service config of clients is the one that ARCHITECTURE.md gives away, and services have what they need of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from wedsync.broadcast.client import ConfigurationError, Retries
from wedsync.broadcast.client.retries import PACKAGE, SERVICES
from wedsync.broadcast.v1 import directory_pb2, dispatcher_pb2, inbox_pb2, preferences_pb2, sender_pb2

from shared.channels import service_config

PAGE = Path(__file__).parents[3] / "ARCHITECTURE.md"
CONTRACT = (directory_pb2, dispatcher_pb2, inbox_pb2, preferences_pb2, sender_pb2)


def methods(config: str) -> list[dict[str, Any]]:
    """The entries of a service config."""
    found: list[dict[str, Any]] = json.loads(config)["methodConfig"]
    return found


def test_the_page_for_clients_has_the_patient_config() -> None:
    """Whoever copies it from ARCHITECTURE.md has what the tests of replaced processes run with."""
    told = PAGE.read_text().partition("```json")[2].partition("```")[0]
    assert json.loads(told) == json.loads(Retries.PATIENT.service_config())


def test_services_and_brisk_clients_try_alike() -> None:
    """One policy, held in two places: services know nothing of the client, nor it of them."""
    ours = methods(service_config([f"{PACKAGE}.InboxService"]))[0]
    theirs = methods(Retries.BRISK.service_config())[0]
    assert {**ours, "name": None} == {**theirs, "name": None}


def test_every_service_that_callers_have_a_stub_of_is_retried() -> None:
    """A service that is new to the contract is one here, too."""
    declared = {name for file in CONTRACT for name in file.DESCRIPTOR.services_by_name}
    assert {name for names in SERVICES.values() for name in names} == declared


def test_every_stream_is_left_to_its_holder() -> None:
    """gRPC would begin it where it began, and wait with it where nobody hears of it."""
    pool = descriptor_pool.Default()
    declared = [
        {"service": f"{PACKAGE}.{name}", "method": method.name}
        for names in SERVICES.values()
        for name in names
        for method in pool.FindServiceByName(f"{PACKAGE}.{name}").methods
        if method.server_streaming
    ]
    retried, streams = methods(Retries.PATIENT.service_config())
    assert sorted(streams["name"], key=str) == sorted(declared, key=str)
    assert "retryPolicy" in retried
    assert "retryPolicy" not in streams


@pytest.mark.parametrize("config", [Retries.PATIENT.service_config(), service_config([])])
def test_no_channel_asks_for_health_checks(config: str) -> None:
    """Those of gRPC end the process of the caller when a connection is lost in the moment in which it stands."""
    assert "healthCheckConfig" not in json.loads(config)


@pytest.mark.parametrize("wrong", [{"attempts": 6}, {"attempts": 1}, {"first_s": 0.001}, {"ceiling_s": 0.1}])
def test_retries_that_grpc_would_not_make_are_refused(wrong: dict[str, Any]) -> None:
    """It would quietly make fewer, or lose the call."""
    with pytest.raises(ConfigurationError, match=r"Retries\.(attempts|first_s) must be"):
        Retries(**wrong)
