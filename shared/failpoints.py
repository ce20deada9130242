"""Owns failpoints: named places where a test can make a process die, stall or fail, and prove that it did.

A module declares its names once, `FAILPOINTS = declare("sender.send.before_commit")`, and awaits `failpoint(name)`
there. `BROADCAST_FAILPOINTS="sender.send.before_commit=kill@3;inbox.merge.after_commit=delay:0.5"` arms them: `@3`
means the third time only, otherwise it is each time. `skip` leaves out the step that follows, where a place offers
that. `BROADCAST_FAILPOINTS_LOG` names a file that gets a line for each that fired, before it acts;
`BROADCAST_FAILPOINTS_DECLARED` names one that gets the names of all that a process has, once it is built.
"""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ENTRY: Final = re.compile(
    r"(?P<name>[a-z0-9_.]+)=(?P<action>kill|exit|error|delay|pause|skip)(?::(?P<seconds>\d+(?:\.\d+)?))?(?:@(?P<hit>[1-9]\d*))?"
)
EXIT_STATUS: Final = 86
"""What `exit` leaves the process with."""


class FailpointError(RuntimeError):
    """A failpoint armed with `error` was reached."""


class BadFailpoints(ValueError):
    """BROADCAST_FAILPOINTS cannot be read, or names a failpoint that no module declared."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What an armed failpoint does: on each hit, or on hit number `hit` only."""

    action: str
    seconds: float = 0.0
    hit: int | None = None


@dataclass(slots=True)
class Plan:
    """The armed failpoints of this process, and how often each was reached."""

    faults: Mapping[str, Fault]
    log: Path | None = None
    hits: Counter[str] = field(default_factory=Counter)

    def due(self, name: str) -> Fault | None:
        """Count a hit of `name`; the fault when this is one that fires."""
        fault = self.faults.get(name)
        if fault is None:
            return None
        self.hits[name] += 1
        return fault if fault.hit in (None, self.hits[name]) else None

    def record(self, name: str, fault: Fault) -> None:
        """Append the firing to the log, so that it is there even when the process is not any more."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"{name} {fault.action} {self.hits[name]} {os.getpid()}\n")


def parse(text: str) -> dict[str, Fault]:
    """The faults that a value of BROADCAST_FAILPOINTS describes. Raises BadFailpoints."""
    faults = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        match = _ENTRY.fullmatch(entry)
        if match is None or (match["seconds"] is None) == (match["action"] == "delay"):
            raise BadFailpoints(
                f"{entry!r} is not name=kill|exit|error|pause|skip|delay:SECONDS, with @HIT or without"
            )
        if match["name"] in faults:
            raise BadFailpoints(f"{match['name']} is armed twice")
        hit = int(match["hit"]) if match["hit"] else None
        faults[match["name"]] = Fault(match["action"], float(match["seconds"] or 0), hit)
    return faults


def _from_environment() -> Plan | None:
    text = os.environ.get("BROADCAST_FAILPOINTS", "")
    log = os.environ.get("BROADCAST_FAILPOINTS_LOG")
    return Plan(parse(text), Path(log) if log else None) if text else None


_declared: set[str] = set()
_plan: Plan | None = _from_environment()


def read_environment() -> None:
    """Arm what the environment says now: for a process that was forked from one with another environment."""
    global _plan  # noqa: PLW0603  # the one switch that every failpoint looks at
    _plan = _from_environment()


def declare(*names: str) -> tuple[str, ...]:
    """Make these names known; answers them."""
    _declared.update(names)
    return names


def check_declared() -> None:
    """Raise BadFailpoints when a name is armed that nobody declared: `main` calls it once everything is built."""
    told = os.environ.get("BROADCAST_FAILPOINTS_DECLARED")
    if told:
        Path(told).write_text("".join(f"{name}\n" for name in sorted(_declared)), encoding="utf-8")
    unknown = sorted(set(_plan.faults) - _declared) if _plan else []
    if unknown:
        raise BadFailpoints(f"no module declares {', '.join(unknown)}")


async def failpoint(name: str) -> bool:
    """Do here what is armed under `name`; nothing, at the cost of a call, when nothing is.

    True when the caller is to leave out the step that follows, as if it had been lost.
    """
    if _plan is None:
        return False
    if name not in _declared:
        raise BadFailpoints(f"no module declares {name}")
    fault = _plan.due(name)
    if fault is None:
        return False
    _plan.record(name, fault)
    return await _act(name, fault)


async def _act(name: str, fault: Fault) -> bool:
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(EXIT_STATUS)
        case "pause":
            os.kill(os.getpid(), signal.SIGSTOP)  # as a stalled machine would; SIGCONT from outside ends it
        case "delay":
            await asyncio.sleep(fault.seconds)
        case "error":
            raise FailpointError(f"failpoint {name}")
    return fault.action == "skip"


@contextmanager
def armed(text: str, log: Path | None = None) -> Iterator[Plan]:
    """Arm failpoints of this process for the length of a test; the plan's `hits` prove what was reached."""
    global _plan  # noqa: PLW0603  # the one switch that every failpoint looks at
    before, _plan = _plan, Plan(parse(text), log)
    try:
        check_declared()
        yield _plan
    finally:
        _plan = before
