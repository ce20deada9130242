"""The chain of the audit log: the form in which an entry is hashed, and that nothing in it can be changed unnoticed."""

import hashlib
import struct
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender.audit import (
    BEGINNING,
    AuditAction,
    AuditEntry,
    AuditEvent,
    Checkpoint,
    Flaw,
    FlawKind,
    canonical,
    follow,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
FULL = AuditEvent(
    event_id=UUID(int=1),
    at=NOON,
    source="sender",
    actor=str(UUID(int=2)),
    action=AuditAction.CANCELLED,
    broadcast_id=UUID(int=3),
    broadcast_type="security.alert",
    targeted=2_000,
    retract=True,
    stopped=3,
    already_sent=1_997,
    user_id=UUID(int=4),
    wedding_id=UUID(int=5),
    role_before="couple",
    role_after="coordinator",
    method="SenderService/SendBroadcast",
    attempts=7,
    segment_id=UUID(int=8),
)
EMPTY = AuditEvent(UUID(int=6), NOON, "preferences", "", AuditAction.WALL_REFUSED)


def by_hand(entry: AuditEntry) -> bytes:
    """The bytes of an entry, put together in another way than the module does."""
    event = entry.event
    micros = [
        round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
        for moment in (entry.recorded_at, event.at)
    ]
    values: list[object] = [entry.previous_hash, entry.position, event.event_id, *micros, event.source]
    values += [event.actor, event.action, event.broadcast_id, event.broadcast_type, event.targeted]
    values += [event.retract, event.stopped, event.already_sent, event.user_id, event.wedding_id]
    values += [event.role_before, event.role_after, event.method, event.attempts]
    values += [event.segment_id] if entry.format == 2 else []
    parts = [f"wedsync.broadcast.audit.{entry.format}".encode()]
    for value in values:
        match value:
            case None:
                parts.append(struct.pack(">i", -1))
            case bytes():
                parts.append(struct.pack(f">i{len(value)}s", len(value), value))
            case str():
                parts.append(struct.pack(">i", len(value.encode())) + value.encode())
            case UUID():
                parts.append(struct.pack(">i16s", 16, value.bytes))
            case int():
                parts.append(struct.pack(">iq", 8, value))
    return b"".join(parts)


def chain(*events: AuditEvent, form: int = 2) -> list[AuditEntry]:
    """These events as they are chained from the beginning."""
    entries: list[AuditEntry] = []
    before = BEGINNING
    for event in events:
        entry = AuditEntry(before.position + 1, form, NOON, event, before.hash, b"")
        entries.append(replace(entry, hash=hashlib.sha256(by_hand(entry)).digest()))
        before = Checkpoint(entries[-1].position, entries[-1].hash)
    return entries


def rehashed(entry: AuditEntry) -> AuditEntry:
    """An entry with the hash that fits it."""
    return replace(entry, hash=hashlib.sha256(canonical(entry)).digest())


def first_flaw(entries: list[AuditEntry], checkpoints: dict[int, bytes] | None = None) -> Flaw | None:
    """What is wrong with a log from its beginning."""
    return follow(BEGINNING, entries, checkpoints or {})[1]


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("event", [FULL, EMPTY])
def test_an_entry_has_its_form(event: AuditEvent, form: int) -> None:
    """Lengths before values, big-endian, -1 for what is not there: by a second computation of it."""
    (entry,) = chain(event, form=form)
    assert canonical(entry) == by_hand(entry)


def test_the_forms_never_change() -> None:
    """Hashes that were written down once; entries of years ago must still agree with them."""
    first, second = chain(FULL, EMPTY, form=1)
    assert first.hash.hex() == "75d4ecfc862ae85a5c20562fd648fd78b8d45ea99b4e37e719f4b4c98970d122"
    assert second.hash.hex() == "c080c9db73d1f219007fbcccdc6ea72f23b47cadfe8a6290e2b2ddfa38baa98a"
    first, second = chain(FULL, EMPTY, form=2)
    assert first.hash.hex() == "b039a40a64313b45134497593a37904e7c8912f4ace76ed1c250b3a3b7c683dc"
    assert second.hash.hex() == "85a0e84b1fdbb494df4107abd8d628d65776bfde26f54338b76384dcc1919d11"


def test_a_chain_that_nobody_touched_is_right_to_its_end() -> None:
    """From the beginning and from any checkpoint within."""
    entries = chain(*[FULL, EMPTY] * 5)
    known = {each.position: each.hash for each in entries}
    assert follow(BEGINNING, entries, known) == (Checkpoint(10, entries[-1].hash), None)
    middle = Checkpoint(4, entries[3].hash)
    assert follow(middle, entries[4:], known) == (Checkpoint(10, entries[-1].hash), None)
    assert follow(middle, [], known) == (middle, None)


OTHER = {
    UUID: UUID(int=99),
    datetime: NOON + timedelta(microseconds=1),
    str: "other",
    bool: False,
    int: 99,
    AuditAction: AuditAction.APPROVED,
}


@pytest.mark.parametrize("name", [field.name for field in fields(AuditEvent)])
@pytest.mark.parametrize("is_removed", [False, True])
def test_every_value_of_an_event_is_bound(name: str, is_removed: bool) -> None:
    """Another value, or none, in any field of it is an entry that was changed."""
    entries = chain(EMPTY, FULL, EMPTY)
    other = None if is_removed else OTHER[type(getattr(FULL, name))]
    if is_removed and name in ("event_id", "at", "source", "actor", "action"):
        return  # the schema has no NULL there
    entries[1] = replace(entries[1], event=replace(FULL, **{name: other}))
    assert first_flaw(entries) == Flaw(FlawKind.ENTRY_CHANGED, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"recorded_at": NOON + timedelta(days=1)},
        {"format": 1},
        {"previous_hash": bytes(32)},
        {"hash": bytes(32)},
    ],
)
def test_the_place_of_an_entry_is_bound(change: dict[str, object]) -> None:
    """When it was added, its form and both hashes."""
    entries = chain(EMPTY, FULL, EMPTY)
    entries[1] = replace(entries[1], **change)  # type: ignore[arg-type]
    assert first_flaw(entries) == Flaw(FlawKind.ENTRY_CHANGED, 2)


def test_an_entry_that_was_replaced_does_not_fit_what_follows() -> None:
    """Its own hash is right; the next one was made after another."""
    entries = chain(EMPTY, FULL, EMPTY)
    entries[1] = rehashed(replace(entries[1], event=EMPTY))
    assert first_flaw(entries) == Flaw(FlawKind.CHAIN_BROKEN, 3)


def test_an_entry_that_is_missing_is_told_by_its_position() -> None:
    """At the beginning, in the middle, and two together."""
    entries = chain(*[FULL] * 6)
    assert first_flaw(entries[1:]) == Flaw(FlawKind.ENTRY_MISSING, 1)
    assert first_flaw(entries[:2] + entries[3:]) == Flaw(FlawKind.ENTRY_MISSING, 3)
    assert first_flaw(entries[:3] + entries[5:]) == Flaw(FlawKind.ENTRY_MISSING, 4)


def test_entries_that_changed_places_are_found() -> None:
    """With their own positions, and with each other's."""
    one, two, three = chain(EMPTY, FULL, FULL)
    assert first_flaw([two, one, three]) == Flaw(FlawKind.ENTRY_MISSING, 1)
    swapped = [one, replace(three, position=2), replace(two, position=3)]
    assert first_flaw(swapped) == Flaw(FlawKind.ENTRY_CHANGED, 2)


def test_a_log_that_was_written_anew_differs_from_its_checkpoint() -> None:
    """It is a chain without fault; only what was kept of the old one shows it."""
    old, new = chain(EMPTY, FULL, EMPTY), chain(EMPTY, EMPTY, EMPTY)
    assert first_flaw(new) is None
    assert first_flaw(new, {3: old[2].hash}) == Flaw(FlawKind.CHECKPOINT_DIFFERS, 3)
    assert first_flaw(old, {3: old[2].hash}) is None


def test_what_is_right_is_told_up_to_the_flaw() -> None:
    """The last entry before it is where a later check may begin."""
    entries = chain(*[FULL] * 4)
    entries[2] = replace(entries[2], event=EMPTY)
    through, flaw = follow(BEGINNING, entries, {})
    assert through == Checkpoint(2, entries[1].hash)
    assert flaw == Flaw(FlawKind.ENTRY_CHANGED, 3)


texts = st.none() | st.text(max_size=5)


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_no_two_entries_have_the_same_bytes(
    one: tuple[str | None, ...], other: tuple[str | None, ...]
) -> None:
    """What ends one text and begins the next cannot be moved over."""

    def form(values: tuple[str | None, ...]) -> bytes:
        before, after, method = values
        event = replace(EMPTY, role_before=before, role_after=after, method=method)
        return canonical(AuditEntry(1, 1, NOON, event, bytes(32), bytes(32)))

    assert (form(one) == form(other)) == (one == other)
