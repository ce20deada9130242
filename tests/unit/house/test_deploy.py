"""Holds the Docker deployment against the services that it starts and the rights that it gives."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import Environment
from stack import permissions

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
OUR_OWN = {name: each for name, each in CONTAINERS.items() if each["image"].startswith("wedsync-broadcast:")}
SERVING = {name: each for name, each in OUR_OWN.items() if name != "provision"}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(.*?)\}")


def test_nothing_secret_has_a_default() -> None:
    """Every variable of the shell is required, so that a forgotten password stops the start instead of being empty."""
    text = (ROOT / "docker-compose.yml").read_text()
    assert {rest for _, rest in VARIABLE.findall(text)} == {":?"}
    secrets = re.findall(r"^\s*\w*(?:PASSWORD|SECRET|TOKEN)\w*: (.+)$", text, re.MULTILINE)
    assert secrets
    assert [value for value in secrets if not re.search(r"\$\{|^/run/secrets/", value)] == []


def test_images_are_pinned_to_a_version() -> None:
    """Starting again next year starts the same major versions: PostgreSQL's data would not survive another."""
    assert [each["image"] for each in CONTAINERS.values() if not re.search(r":\d", each["image"])] == []


def test_only_loopback_is_published() -> None:
    """Without TLS nothing may be reached from another machine; servers of data are not reached from outside at all."""
    published = {name: each["ports"] for name, each in CONTAINERS.items() if each.get("ports")}
    assert published.keys() == {"sender", "preferences", "dispatcher", "inbox"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "provision"])
def test_every_container_that_stays_is_asked_for_its_health(name: str) -> None:
    """A container that hangs is seen, and what depends on it waits until it can serve."""
    assert CONTAINERS[name]["healthcheck"]["test"]
    assert CONTAINERS[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVING)
def test_addresses_and_ports_fit_together(name: str) -> None:
    """A service is called, published and probed where it listens."""
    environment = SERVING[name]["environment"]
    service = SERVING[name]["command"][0].split(".")[1]
    listen = f"{service.upper()}_LISTEN"
    port = environment[listen].rpartition(":")[2]
    assert SERVING[name]["healthcheck"]["test"][-2:] == ["shared.health_probe", listen]
    assert [published.split(":")[2] for published in SERVING[name]["ports"]] in ([port], [])
    callers = (each["environment"].get(f"{service.upper()}_ADDR") for each in SERVING.values())
    assert {address for address in callers if address} <= {f"{service}:{port}"}


@pytest.mark.parametrize("name", SERVING)
def test_a_service_is_given_what_its_config_reads_and_nothing_else(name: str, tmp_path: Path) -> None:
    """No variable is missing, misspelt, of the wrong form, or left from a setting that is gone."""
    (tmp_path / "token").write_text("a token")
    given = {
        key: re.sub(r"^/run/secrets/.*", str(tmp_path / "token"), VARIABLE.sub("0123456789abcdef", value))
        for key, value in SERVING[name]["environment"].items()
    }
    env = Environment(given)
    import_module(SERVING[name]["command"][0].replace(".main", ".config")).Settings.read(env)
    assert given.keys() - env.names == set()
    assert {key for key in env.names if re.search(r"_ADDR$|_URL$|_USER$|_PASSWORD$", key)} <= given.keys()


@pytest.mark.parametrize("name", SERVING)
def test_secrets_and_files_are_mounted_where_settings_look_for_them(name: str) -> None:
    """A service finds its own token and the keys of the identity provider."""
    environment = SERVING[name]["environment"]
    paths = {value for value in environment.values() if value.startswith("/run/")}
    mounted = {f"/run/secrets/{secret}" for secret in SERVING[name]["secrets"]}
    mounted |= {config["target"] for config in SERVING[name]["configs"]}
    assert mounted == paths
    assert set(SERVING[name]["secrets"]) <= COMPOSE["secrets"].keys()


def test_every_lane_has_a_dispatcher_and_urgent_ones_have_their_own() -> None:
    """What may wait never takes the workers of what may not."""
    lanes = [each["environment"].get("DISPATCHER_LANES") for each in SERVING.values()]
    assert [each for each in lanes if each] == ["critical,high", "normal,low"]


def test_nats_lets_each_service_do_what_the_stack_lets_it_do() -> None:
    """deploy/nats/nats.conf names the users of stack/permissions.py with the same subjects."""
    lines = (ROOT / "deploy/nats/nats.conf").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    users = json.loads(re.sub(r": (\$[A-Z_]+)", r': "\1"', text))["authorization"]["users"]
    assert users == [
        {
            "user": user.name,
            "password": f"$NATS_{user.name.upper()}_PASSWORD",
            "permissions": {
                "publish": {"allow": list(user.publish)},
                "subscribe": {"allow": list(user.subscribe)},
            },
        }
        for user in permissions.users(lambda name: name)
    ]
    given = CONTAINERS["nats"]["environment"]
    assert {user["password"].removeprefix("$") for user in users} <= given.keys()
