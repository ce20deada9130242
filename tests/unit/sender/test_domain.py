"""What follows from a broadcast's type, and which of its states may follow which."""

from datetime import UTC, datetime

import pytest

from services.sender.domain import (
    TRANSITIONS,
    TYPES,
    Category,
    Content,
    Priority,
    State,
    Targeting,
    Wedding,
    needs_approval,
    require_transition,
    states_before,
    wall_of,
)
from shared.errors import IllegalState

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIRST, SECOND = "0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"


def test_critical_sorts_first() -> None:
    """The order of the numbers is the order of urgency."""
    assert [each.slug for each in sorted(Priority)] == ["critical", "high", "normal", "low"]


@pytest.mark.parametrize(
    ("category", "names"),
    [
        (
            Category.SYSTEM,
            {
                "maintenance.scheduled",
                "maintenance.started",
                "maintenance.completed",
                "feature.released",
                "security.alert",
            },
        ),
        (
            Category.BUSINESS,
            {
                "tier.upgraded",
                "tier.downgraded",
                "trial.ending",
                "usage.limit.approaching",
                "payment.required",
            },
        ),
        (
            Category.COLLABORATION,
            {"form.locked", "journey.updated", "supplier.joined", "couple.connected", "timeline.changed"},
        ),
        (Category.WEDDING, {"wedding.cancelled", "wedding.emergency", "coordinator.handoff"}),
    ],
)
def test_each_category_has_its_types(category: Category, names: set[str]) -> None:
    """The table of product.md, by category; each type is listed under its own name."""
    assert {name for name, each in TYPES.items() if each.category is category} == names
    assert all(TYPES[name].name == name for name in names)


def test_only_alarms_may_be_critical() -> None:
    """What rings at night is the security alert and the wedding types."""
    assert {name for name, each in TYPES.items() if each.may_be_critical} == {
        "security.alert",
        "wedding.cancelled",
        "wedding.emergency",
        "coordinator.handoff",
    }


def test_some_types_are_about_a_wedding() -> None:
    """A timeline change and the wedding types make no sense without one."""
    assert {name for name, each in TYPES.items() if each.needs_wedding} == {
        "timeline.changed",
        "wedding.cancelled",
        "wedding.emergency",
        "coordinator.handoff",
    }


def test_essential_types_are_high_by_default_and_others_normal() -> None:
    """What may cost someone money or a wedding goes out one by one unless the sender says otherwise."""
    essential = {name for name, each in TYPES.items() if each.default_priority is Priority.HIGH}
    assert essential == {
        "security.alert",
        "payment.required",
        "timeline.changed",
        "wedding.cancelled",
        "wedding.emergency",
        "coordinator.handoff",
    }
    assert {name for name, each in TYPES.items() if each.essential} == essential
    assert {TYPES[name].default_priority for name in TYPES.keys() - essential} == {Priority.NORMAL}


LEGAL = {
    (State.AWAITING_APPROVAL, State.PENDING),
    (State.AWAITING_APPROVAL, State.REJECTED),
    (State.AWAITING_APPROVAL, State.CANCELLED),
    (State.AWAITING_APPROVAL, State.EXPIRED),
    (State.PENDING, State.DISPATCHING),
    (State.PENDING, State.CANCELLED),
    (State.PENDING, State.EXPIRED),
    (State.PENDING, State.FAILED),
    (State.DISPATCHING, State.SENT),
    (State.DISPATCHING, State.CANCELLED),
    (State.DISPATCHING, State.EXPIRED),
    (State.DISPATCHING, State.FAILED),
    (State.SENT, State.CANCELLED),
}


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_exactly_the_legal_changes_of_state_are_allowed(before: State, after: State) -> None:
    """Every pair of states, against product.md's list."""
    if (before, after) in LEGAL:
        require_transition(before, after)
    else:
        with pytest.raises(IllegalState):
            require_transition(before, after)


def test_every_state_is_in_the_table() -> None:
    """No state is missing, so that none is a dead end by accident."""
    assert set(TRANSITIONS) == set(State)


def test_states_before_is_the_table_read_backwards() -> None:
    """What SQL takes as the states from which it may move agrees with what Python refuses."""
    assert {(before, after) for after in State for before in states_before(after)} == LEGAL


def test_dispatching_is_over_in_final_states_only() -> None:
    """A watcher may stop at these."""
    assert {state for state in State if not state.is_final} == {
        State.AWAITING_APPROVAL,
        State.PENDING,
        State.DISPATCHING,
    }


@pytest.mark.parametrize(
    ("targeting", "wedding_id", "wall"),
    [
        (Targeting(everyone=True), None, ()),
        (Targeting(wedding_ids=(FIRST, SECOND)), None, (FIRST, SECOND)),
        (Targeting(), FIRST, (FIRST,)),
        (Targeting(wedding_ids=(FIRST,)), FIRST, (FIRST,)),
        (Targeting(roles=("florist",)), FIRST, (FIRST,)),
    ],
)
def test_wall_is_the_wedding_or_those_targeted(
    targeting: Targeting, wedding_id: str | None, wall: tuple[str, ...]
) -> None:
    """A broadcast about a wedding is bounded by its team, whatever else is asked for."""
    assert wall_of(targeting, wedding_id) == wall
    content = Content(
        type=TYPES["timeline.changed"],
        priority=Priority.HIGH,
        title="Ceremony at 3",
        message="An hour earlier.",
        targeting=targeting,
        scheduled_for=NOW,
        wedding=Wedding(wedding_id) if wedding_id else None,
    )
    assert content.wall == wall


@pytest.mark.parametrize(
    ("priority", "wedding", "targeted", "waits"),
    [
        (Priority.HIGH, None, 50_000, False),
        (Priority.HIGH, None, 50_001, True),
        (Priority.LOW, None, 0, False),
        (Priority.LOW, None, 1_000_000, True),
        (Priority.CRITICAL, None, 0, True),
        (Priority.CRITICAL, None, 1, True),
        (Priority.CRITICAL, Wedding(FIRST), 1, False),
        (Priority.CRITICAL, Wedding(FIRST), 50_000, False),
        (Priority.CRITICAL, Wedding(FIRST), 50_001, True),
    ],
)
def test_many_people_and_alarms_need_approval(
    priority: Priority, wedding: Wedding | None, targeted: int, waits: bool
) -> None:
    """More people than the threshold, whatever it is about; and a critical one unless it is about a wedding."""
    content = Content(
        type=TYPES["wedding.emergency" if wedding else "security.alert"],
        priority=priority,
        title="Ceremony at 3",
        message="An hour earlier.",
        targeting=Targeting(everyone=True),
        scheduled_for=NOW,
        wedding=wedding,
    )
    assert needs_approval(content, targeted, above=50_000) is waits


def test_weddings_that_are_only_targeted_are_no_wedding_that_it_is_about() -> None:
    """A critical one to the teams of a thousand weddings is an alarm all the same."""
    content = Content(
        type=TYPES["security.alert"],
        priority=Priority.CRITICAL,
        title="Change your password",
        message="Now.",
        targeting=Targeting(wedding_ids=(FIRST, SECOND)),
        scheduled_for=NOW,
    )
    assert needs_approval(content, 12, above=50_000)
