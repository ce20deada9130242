"""Owns what may be asked for: product.md's field rules, as far as the contract's own annotations cannot state them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from unicodedata import category as character_category
from urllib.parse import SplitResult, urlsplit

from services.sender.domain import TYPES, Action, BroadcastType, Content, Priority, Targeting, Wedding
from shared.errors import FieldViolation

LATE_TOLERANCE: Final = timedelta(seconds=60)
"""How far in the past `scheduled_for` may lie and still count as now."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A broadcast as it is asked for, unchecked. What is absent is None, and empty for texts."""

    type: str
    priority: Priority | None
    targeting: Targeting
    wedding_id: str | None = None
    title: str = ""
    message: str = ""
    action: Action | None = None
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None
    escalates: bool = False

    @property
    def chosen_priority(self) -> Priority:
        """The priority that it names, else its type's; for a type that there is."""
        return self.priority or TYPES[self.type].default_priority

    def content(self, now: datetime, wedding: Wedding | None) -> Content:
        """What is accepted at `now`: a draft without violations, `wedding` being the one that it names."""
        return Content(
            type=TYPES[self.type],
            priority=self.chosen_priority,
            title=self.title,
            message=self.message,
            targeting=self.targeting,
            scheduled_for=due_time(self.scheduled_for, now),
            action=self.action,
            wedding=wedding,
            expires_at=self.expires_at,
        )


def due_time(scheduled_for: datetime | None, now: datetime) -> datetime:
    """When it is sent: at `now` without a schedule, or with one that has just passed."""
    return now if scheduled_for is None else max(scheduled_for, now)


def one_year_after(moment: datetime) -> datetime:
    """The same day of the next year; the 1st of March for a 29th of February."""
    try:
        return moment.replace(year=moment.year + 1)
    except ValueError:
        return moment.replace(year=moment.year + 1, month=3, day=1)


def send_violations(draft: Draft, now: datetime) -> list[FieldViolation]:
    """Every rule that a broadcast to be sent breaks."""
    return [
        *preview_violations(draft, now),
        *_schedule(draft, now),
        *_action(draft.action),
        *_escalation(draft),
    ]


def preview_violations(draft: Draft, now: datetime) -> list[FieldViolation]:
    """Every rule that type, priority, audience and expiry break."""
    return [*kind_violations(draft), *_targeting(draft), *expiry_violations(draft, now)]


def kind_violations(draft: Draft) -> Iterator[FieldViolation]:
    """The rules that type, priority and wedding break together."""
    broadcast_type = TYPES.get(draft.type)
    if broadcast_type is None:
        yield FieldViolation("type", "is not a broadcast type")
        return
    yield from _type_rules(broadcast_type, draft)


def _type_rules(broadcast_type: BroadcastType, draft: Draft) -> Iterator[FieldViolation]:
    if draft.priority is Priority.CRITICAL and not broadcast_type.may_be_critical:
        yield FieldViolation("priority", f"{broadcast_type.name} may not be critical")
    if broadcast_type.needs_wedding and draft.wedding_id is None:
        yield FieldViolation("wedding_id", f"is required by {broadcast_type.name}")


def _targeting(draft: Draft) -> Iterator[FieldViolation]:
    targeting = draft.targeting
    if targeting == Targeting() and draft.wedding_id is None:
        yield FieldViolation("targeting", "must say who is meant, unless wedding_id does")
    if targeting.everyone and targeting.names_people:
        yield FieldViolation(
            "targeting.everyone", "cannot be joined with user_ids, roles, tiers or segment_ids"
        )
    if draft.wedding_id and targeting.wedding_ids and set(targeting.wedding_ids) != {draft.wedding_id}:
        yield FieldViolation("targeting.wedding_ids", "must be exactly wedding_id when both are given")


def _schedule(draft: Draft, now: datetime) -> Iterator[FieldViolation]:
    if draft.scheduled_for is None:
        return
    if draft.scheduled_for < now - LATE_TOLERANCE:
        yield FieldViolation("scheduled_for", "must not be more than 60 seconds in the past")
    if draft.scheduled_for > one_year_after(now):
        yield FieldViolation("scheduled_for", "must be at most one year ahead")


def expiry_violations(draft: Draft, now: datetime) -> Iterator[FieldViolation]:
    """The rule that time alone can make a draft break."""
    if draft.expires_at is not None and draft.expires_at <= due_time(draft.scheduled_for, now):
        yield FieldViolation("expires_at", "must be after scheduled_for, and after now")


def _escalation(draft: Draft) -> Iterator[FieldViolation]:
    if draft.escalates:
        yield FieldViolation("escalation", "is not served yet: send without it")


def _action(action: Action | None) -> Iterator[FieldViolation]:
    fault = action and url_fault(action.url)
    if fault:
        yield FieldViolation("action.url", fault)


def url_fault(url: str) -> str | None:
    """What is wrong with an action's URL, or None. Browsers read `\\` as `/`, and drop tabs and line ends."""
    if any(
        character == "\\" or character.isspace() or character_category(character) == "Cc" for character in url
    ):
        return "must not contain whitespace, control characters or backslashes"
    if url.startswith("/"):
        return "must start with exactly one / when it is a path" if url.startswith("//") else None
    parts = _split(url)
    if parts is None or not url.lower().startswith(("http://", "https://")) or not parts.hostname:
        return "must be an absolute http or https URL, or a path that starts with /"
    return "must not contain user info" if "@" in parts.netloc else None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read because it raises too: for a port that is no number, or beyond 65,535
    except ValueError:
        return None
    return parts
