"""Holds the lock files against pyproject.toml, without asking an index."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = ("requirements.lock", "requirements-dev.lock")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock: its exact version, its hashes, and who asked for it."""

    requirement: Requirement
    hashes: frozenset[str]
    asked_by: frozenset[str]

    @property
    def version(self) -> str:
        """The one version that it may have."""
        (specifier,) = self.requirement.specifier
        assert specifier.operator == "=="
        return specifier.version


def pins(lock: str) -> dict[str, Pin]:
    """The pins of a lock by package name."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text())
    return {canonicalize_name(pin.requirement.name): pin for pin in map(_pin, entries)}


def _pin(entry: str) -> Pin:
    head = entry.partition(" \\\n")[0]
    askers = re.findall(r"#(?: via)? +([^\s#]+)", entry.replace("# via\n", ""))
    hashes = re.findall(r"--hash=(sha256:[0-9a-f]{64})\b", entry)
    return Pin(Requirement(head), frozenset(hashes), frozenset(askers))


def asked(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """What pyproject.toml asks for itself, with these extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return (each for each in map(Requirement, lines) if each.name != PROJECT["name"])


@pytest.mark.parametrize(("lock", "extras"), [(LOCKS[0], ()), (LOCKS[1], ("stack", "dev"))])
def test_a_lock_pins_exactly_what_the_project_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    """After a change of pyproject.toml, `make locks` was run: no requirement is missing, loose or left over."""
    present = pins(lock)
    wanted = {canonicalize_name(each.name): each for each in asked(extras)}
    for name, requirement in wanted.items():
        assert present[name].version in requirement.specifier, f"{lock}: {name}"
    of_the_project = {name for name, pin in present.items() if PROJECT["name"] in pin.asked_by}
    assert set(wanted) == of_the_project


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_a_reason(lock: str) -> None:
    """pip can refuse a changed file, and nothing is in a lock that no requirement of ours leads to."""
    present = pins(lock)
    for name, pin in present.items():
        assert pin.version, name
        assert pin.hashes, f"{lock}: {name}"
        askers = {canonicalize_name(each) for each in pin.asked_by} & (present.keys() | {PROJECT["name"]})
        assert askers, f"{lock}: nothing asks for {name}"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_no_address(lock: str) -> None:
    """It installs from any index or mirror, and tells nothing about the machine that made it."""
    text = (ROOT / lock).read_text()
    assert re.findall(r"\S*(?:://|--index|--find-links|--extra-index| @ |/home/|/root/|\.whl)\S*", text) == []


def test_what_runs_is_what_was_tested() -> None:
    """A package of the runtime lock has the same version and hashes in the environment of the tests."""
    tested = {name: (pin.version, pin.hashes) for name, pin in pins(LOCKS[1]).items()}
    running = {name: (pin.version, pin.hashes) for name, pin in pins(LOCKS[0]).items()}
    assert running.items() <= tested.items()


def test_what_runs_carries_no_tool_of_the_workshop() -> None:
    """Neither the embedded servers nor a linter or test tool gets into a service's image."""
    workshop = {canonicalize_name(each.name) for extra in EXTRAS for each in map(Requirement, EXTRAS[extra])}
    assert pins(LOCKS[0]).keys() & workshop == set()
