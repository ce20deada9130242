"""Owns which failpoint kills which process next, and what the log of failpoints says has fired."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

LOST_STEPS: Final = {
    "inbox": (
        "inbox.wake.before",
        *(f"inbox_delivery_{lane}.worker.before_ack" for lane in ("high", "normal", "low")),
    ),
    "dispatcher": ("dispatcher_report.worker.before_ack", "dispatcher_due_normal.worker.before_ack"),
    "sender": ("sender_state.worker.before_ack",),
}
"""Places at which a wake-up or an acknowledgement may be left out."""


class Arming:
    """Hands each process that starts a failpoint to die at, until all that its service declares have fired."""

    def __init__(self, random: Random, log: Path) -> None:
        self.log = log
        self.declared: dict[str, set[str]] = {}
        self.is_on = False
        self._random = random
        self._waiting: dict[str, list[str]] = {}
        self._held: dict[str, str] = {}

    def declare(self, service: str, names: Iterable[str]) -> None:
        """What the processes of a service can be killed at; names of other services are not meant."""
        own = {name for name in names if name.startswith(service)}
        self.declared.setdefault(service, set()).update(own)

    def begin(self) -> None:
        """Arm every process that starts from now on; each name once, in an order of chance."""
        self.is_on = True
        for service, names in self.declared.items():
            waiting = sorted(names - self._killing())
            self._random.shuffle(waiting)
            self._waiting[service] = waiting

    def end(self) -> None:
        """Arm nothing any more."""
        self.is_on = False

    def again(self) -> None:
        """Another round: every name is to kill once more."""
        for service, names in self.declared.items():
            waiting = sorted(names)
            self._random.shuffle(waiting)
            self._waiting[service] += waiting

    def take(self, process: str, service: str) -> str:
        """BROADCAST_FAILPOINTS for a process that is about to start."""
        if not self.is_on:
            return ""
        faults = []
        name = self._next(service)
        if name is not None:
            self._held[process] = name
            faults.append(f"{name}=kill@1")
        lost = self._random.choice(LOST_STEPS.get(service, ("",)))
        if lost and lost != self._held.get(process) and self._random.random() < 0.5:
            faults.append(f"{lost}=skip@{self._random.randint(1, 3)}")
        return ";".join(faults)

    def note_end(self, process: str, service: str, pid: int) -> str | None:
        """A process has ended: the failpoint that killed it; one that did not get to fire is somebody else's now."""
        held = self._held.pop(process, None)
        if held is None:
            return None
        if any(line[:2] == [held, "kill"] and line[3] == str(pid) for line in self._lines()):
            return held
        if held not in self._killing():
            self._waiting[service].append(held)
        return None

    def missing(self) -> list[str]:
        """Failpoints that have killed nobody yet."""
        return sorted(set().union(*self.declared.values()) - self._killing())

    def _next(self, service: str) -> str | None:
        """The next in turn; when all are taken, one that has not fired yet, for whichever process reaches it first."""
        waiting = self._waiting[service]
        if waiting:
            return waiting.pop(0)
        left = sorted(self.declared[service] - self._killing())
        return self._random.choice(left) if left else None

    def is_through(self) -> bool:
        """Whether every name that was handed out has fired."""
        return not any(self._waiting.values()) and not self._held

    def fired(self) -> Counter[tuple[str, str]]:
        """How often each failpoint has done what."""
        return Counter((line[0], line[1]) for line in self._lines())

    def _killing(self) -> set[str]:
        return {line[0] for line in self._lines() if line[1] == "kill"}

    def _lines(self) -> list[list[str]]:
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [line.split() for line in text.splitlines()]
