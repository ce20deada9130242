"""Owns what a broadcast is: its types, its states, and which change of state is legal."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Final

from shared.errors import IllegalState


class Category(StrEnum):
    """What a broadcast is about; a person can switch a category off."""

    SYSTEM = "system"
    BUSINESS = "business"
    COLLABORATION = "collaboration"
    WEDDING = "wedding"


class Priority(IntEnum):
    """How urgent it is. The numbers are the contract's, and sorting by them puts critical first."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4

    @property
    def slug(self) -> str:
        """The word as subjects and log lines have it."""
        return self.name.lower()


class State(StrEnum):
    """Where a broadcast is in its life."""

    AWAITING_APPROVAL = "awaiting_approval"
    PENDING = "pending"
    DISPATCHING = "dispatching"
    SENT = "sent"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether dispatching is over. What is held may still be released, or cancelled."""
        return self not in _UNFINISHED


_UNFINISHED: Final = frozenset({State.AWAITING_APPROVAL, State.PENDING, State.DISPATCHING})

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.AWAITING_APPROVAL: frozenset({State.PENDING, State.REJECTED, State.CANCELLED, State.EXPIRED}),
    State.PENDING: frozenset({State.DISPATCHING, State.CANCELLED, State.EXPIRED, State.FAILED}),
    # A dispatcher may find only when it plans that the time has run out.
    State.DISPATCHING: frozenset({State.SENT, State.CANCELLED, State.EXPIRED, State.FAILED}),
    # Deliveries may still be held when it is sent, and a retracted one leaves inboxes again.
    State.SENT: frozenset({State.CANCELLED}),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
    State.REJECTED: frozenset(),
    State.FAILED: frozenset(),
}
"""From each state, the states that may follow: the only place that says so."""


def require_transition(state: State, following: State) -> None:
    """Raise IllegalState unless `following` may come after `state`."""
    if following not in TRANSITIONS[state]:
        raise IllegalState(f"A broadcast that is {state} cannot become {following}.")


def states_before(following: State) -> tuple[State, ...]:
    """The states from which `following` may be reached."""
    return tuple(state for state, after in TRANSITIONS.items() if following in after)


@dataclass(frozen=True, slots=True)
class BroadcastType:
    """What follows from a broadcast's type. An essential one stays findable in the inbox whatever is muted."""

    name: str
    category: Category
    may_be_critical: bool = False
    needs_wedding: bool = False
    essential: bool = False

    @property
    def default_priority(self) -> Priority:
        """The priority of a broadcast that does not name one."""
        return Priority.HIGH if self.essential else Priority.NORMAL


def _types(
    category: Category, *names: str, critical: bool = False, wedding: bool = False, essential: bool = False
) -> dict[str, BroadcastType]:
    return {name: BroadcastType(name, category, critical, wedding, essential) for name in names}


TYPES: Final[Mapping[str, BroadcastType]] = {
    **_types(
        Category.SYSTEM,
        "maintenance.scheduled",
        "maintenance.started",
        "maintenance.completed",
        "feature.released",
    ),
    **_types(Category.SYSTEM, "security.alert", critical=True, essential=True),
    **_types(
        Category.BUSINESS, "tier.upgraded", "tier.downgraded", "trial.ending", "usage.limit.approaching"
    ),
    **_types(Category.BUSINESS, "payment.required", essential=True),
    **_types(Category.COLLABORATION, "form.locked", "journey.updated", "supplier.joined", "couple.connected"),
    **_types(Category.COLLABORATION, "timeline.changed", wedding=True, essential=True),
    **_types(
        Category.WEDDING,
        "wedding.cancelled",
        "wedding.emergency",
        "coordinator.handoff",
        critical=True,
        wedding=True,
        essential=True,
    ),
}
"""Every type by name. One is only ever added: broadcasts that have it outlive its last send."""


@dataclass(frozen=True, slots=True)
class Action:
    """The one button of a broadcast."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Targeting:
    """Who is meant, as it was asked; ids are UUIDs in lower case, nothing is there twice."""

    everyone: bool = False
    user_ids: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    segment_ids: tuple[str, ...] = ()
    wedding_ids: tuple[str, ...] = ()

    @property
    def names_people(self) -> bool:
        """Whether anything but `everyone` and the wall is given."""
        return bool(self.user_ids or self.roles or self.tiers or self.segment_ids)


@dataclass(frozen=True, slots=True)
class Wedding:
    """A wedding as the directory knew it when it was last asked."""

    wedding_id: str
    couple_name: str = ""
    wedding_date: date | None = None


ERASED_TITLE: Final = "Erased"
ERASED_MESSAGE: Final = "What this said was meant for one person alone, who has been erased."
"""What a broadcast says once nobody is left for whom it was meant."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a broadcast says and to whom, checked and complete; it stays so, unless whom alone it is for is erased."""

    type: BroadcastType
    priority: Priority
    title: str
    message: str
    targeting: Targeting
    scheduled_for: datetime
    action: Action | None = None
    wedding: Wedding | None = None
    expires_at: datetime | None = None

    @property
    def wall(self) -> tuple[str, ...]:
        """The weddings whose teams bound the audience; empty when it is not about any."""
        return wall_of(self.targeting, self.wedding.wedding_id if self.wedding else None)


def needs_approval(content: Content, targeted: int, above: int) -> bool:
    """Whether another admin must agree: to more than `above` people, and to a critical one that is about no wedding.

    `targeted` is how many are meant at acceptance. That is what is agreed to, however many there are at dispatch.
    """
    is_alarm = content.priority is Priority.CRITICAL and content.wedding is None
    return is_alarm or targeted > above


def wall_of(targeting: Targeting, wedding_id: str | None) -> tuple[str, ...]:
    """The weddings whose teams bound an audience: the one it is about, else those it is targeted at."""
    return (wedding_id,) if wedding_id else targeting.wedding_ids


@dataclass(frozen=True, slots=True)
class Author:
    """Who sent a broadcast: a person by user id, or a service account by name."""

    name: str
    is_service: bool


@dataclass(frozen=True, slots=True)
class Cancellation:
    """How a broadcast was stopped: what will not arrive any more, what had arrived, and whether that was taken out."""

    at: datetime
    reason: str
    stopped: int
    already_sent: int
    retracted: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Who approved or rejected a broadcast (a user id), when, and what they gave as the reason."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A broadcast with its state. `targeted` is how many people it was meant for when it was accepted."""

    broadcast_id: str
    content: Content
    author: Author
    created_at: datetime
    targeted: int
    state: State = State.PENDING
    sent_at: datetime | None = None
    failed_at: datetime | None = None
    error: str = ""
    is_being_cancelled: bool = False
    is_to_be_retracted: bool = False
    cancellation: Cancellation | None = None
    decision: Decision | None = None
