"""Owns the judgement on a run: Jepsen's sets over what was sent, what was accepted, and what readers found. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from pyroaring import BitMap

from tests.chaos.recount import People


class Fate(StrEnum):
    """What must have become of an accepted broadcast."""

    DELIVERED = "delivered"
    """Everybody meant has it."""
    STOPPED = "stopped"
    """Cancelled: who has it had it when the cancel returned."""
    HIDDEN = "hidden"
    """Cancelled and taken out: nobody has it any more."""
    EXPIRED = "expired"
    """It has a time limit that has passed: nobody has it any more."""
    REJECTED = "rejected"
    """Another admin was against it: nobody has ever had it."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A broadcast that the suite has taken: who must get it and who may; `at` orders them by acceptance.

    `team` is who is on its wedding's team at the end, where that changes: lists show it to nobody else.
    Of a stopped one `arrived` is who had it just after the cancel had returned and `already_sent` the answer; both are
    None when nobody was told of a cancel that took effect.
    """

    broadcast_id: str
    must: BitMap
    may: BitMap
    fate: Fate
    at: float
    arrived: BitMap | None = None
    already_sent: int | None = None
    team: BitMap | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """One send as its caller saw it, and the ids of what the suite has made of it.

    It `is_recovered` when it had been taken although the answer to that was an error.
    """

    key: str
    is_acknowledged: bool
    broadcast_ids: tuple[str, ...]
    refused: str = ""
    is_recovered: bool = False


@dataclass(slots=True)
class Copies:
    """Who was found to have a broadcast, and who more than once."""

    once: BitMap = field(default_factory=BitMap)
    again: BitMap = field(default_factory=BitMap)

    def add(self, members: BitMap) -> None:
        """Some more who have it."""
        self.again |= self.once & members
        self.once |= members


@dataclass(frozen=True, slots=True)
class Seen:
    """What one stream of one person showed over the whole run."""

    label: str
    number: int
    added: Mapping[str, int]
    alerts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the suite says of a broadcast: its state, its deliveries by channel and state, and how many did what."""

    broadcast_id: str
    state: str
    targeted: int
    channels: Mapping[str, Mapping[str, int]]
    people: People | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: its kind, of which broadcast or key, in words, and to how many deliveries."""

    kind: str
    about: str
    detail: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sets in numbers, and everything that must not be."""

    attempted: int
    acknowledged: int
    recovered: int
    delivered: int
    findings: tuple[Finding, ...]

    def count(self, kind: str) -> int:
        """How many deliveries (or sends) the findings of a kind concern."""
        return sum(finding.count for finding in self.findings if finding.kind == kind)


LOST: Final = "lost"
UNEXPECTED: Final = "unexpected"
DUPLICATE: Final = "duplicate"
AFTER_CANCEL: Final = "after a cancel"
MISCOUNT: Final = "miscount"
_ALL_CHANNELS: Final = ("realtime", "in_app")
_FINAL: Final = {
    Fate.DELIVERED: {"sent"},
    Fate.STOPPED: {"cancelled"},
    Fate.HIDDEN: {"cancelled"},
    Fate.EXPIRED: {"sent", "expired"},
    Fate.REJECTED: {"rejected"},
}


def check(
    sent: Sequence[Sent],
    accepted: Sequence[Accepted],
    merged: Mapping[str, Copies],
    listed: Mapping[str, Copies],
    readers: BitMap,
    seen: Sequence[Seen],
    ledgers: Mapping[str, Ledger],
) -> Verdict:
    """Compare. `merged` is who has what on record, `listed` what the `readers` were shown when they asked."""
    by_id = {each.broadcast_id: each for each in accepted}
    findings = [
        *check_sends(sent, by_id),
        *check_copies("on record", accepted, merged, None),
        *check_copies("in a list", accepted, listed, readers),
        *check_walls(accepted, listed),
        *(finding for each in seen for finding in check_stream(each, by_id)),
        *(
            finding
            for each in accepted
            for finding in check_ledger(each, ledgers.get(each.broadcast_id), merged)
        ),
    ]
    held = sum(len(merged[each.broadcast_id].once) for each in accepted if each.broadcast_id in merged)
    acknowledged = sum(each.is_acknowledged for each in sent)
    recovered = sum(
        each.is_recovered or (bool(each.broadcast_ids) and not each.is_acknowledged) for each in sent
    )
    return Verdict(len(sent), acknowledged, recovered, held, tuple(findings))


def check_sends(sent: Iterable[Sent], accepted: Mapping[str, Accepted]) -> Iterator[Finding]:
    """Each acknowledged send is one broadcast, any other none or one, and no legal one was refused."""
    for each in sent:
        if each.refused:
            yield Finding("refused", each.key, each.refused)
        if each.is_acknowledged and not each.broadcast_ids:
            yield Finding(LOST, each.key, "acknowledged, and not on record at all")
        if len(each.broadcast_ids) > 1:
            yield Finding(DUPLICATE, each.key, f"accepted as {len(each.broadcast_ids)} broadcasts")
    known = {broadcast_id for each in sent for broadcast_id in each.broadcast_ids}
    for broadcast_id in accepted.keys() - known:
        yield Finding(UNEXPECTED, broadcast_id, "on record, and nobody has sent it")


def check_copies(
    where: str, accepted: Sequence[Accepted], found: Mapping[str, Copies], readers: BitMap | None
) -> Iterator[Finding]:
    """Who has what against who should, as far as `readers` looked (None is everybody).

    On record are also those who had a broadcast that was taken out or has expired; in a list they are not.
    """
    is_record = readers is None
    known = {each.broadcast_id for each in accepted}
    for broadcast_id in found.keys() - known:
        count = len(found[broadcast_id].once)
        yield Finding(UNEXPECTED, broadcast_id, f"{where}, and nobody has accepted it", count)
    lost_by: dict[int, list[str]] = {}
    for each in accepted:
        copies = found.get(each.broadcast_id, Copies())
        must, may = _allowed(each, is_record=is_record)
        if readers is not None:
            must, may = must & readers, may & readers
        if copies.again:
            yield Finding(DUPLICATE, each.broadcast_id, where, len(copies.again))
        if extra := copies.once - may:
            kind = AFTER_CANCEL if each.fate in (Fate.STOPPED, Fate.HIDDEN) else UNEXPECTED
            yield Finding(kind, each.broadcast_id, f"{where}, {each.fate}", len(extra))
        for number in must - copies.once:
            lost_by.setdefault(number, []).append(each.broadcast_id)
        if is_record and each.already_sent is not None and len(copies.once) != each.already_sent:
            detail = f"the cancel answered {each.already_sent} already sent, {len(copies.once)} have it"
            yield Finding(AFTER_CANCEL, each.broadcast_id, detail, abs(len(copies.once) - each.already_sent))
    yield from _lost(where, accepted, found, lost_by)


def check_walls(accepted: Sequence[Accepted], listed: Mapping[str, Copies]) -> Iterator[Finding]:
    """Who has left the team of a wedding is not shown what is behind its wall any more."""
    for each in accepted:
        found = listed.get(each.broadcast_id)
        if each.team is not None and found is not None and (outside := found.once - each.team):
            yield Finding(UNEXPECTED, each.broadcast_id, "in a list, outside the wall", len(outside))


def _allowed(each: Accepted, *, is_record: bool) -> tuple[BitMap, BitMap]:
    """Who must have it and who may."""
    nobody = BitMap()
    match each.fate:
        case Fate.REJECTED:
            return nobody, nobody
        case Fate.DELIVERED:
            return each.must, each.may
        case Fate.STOPPED:
            had = each.arrived if each.arrived is not None else nobody
            shown = had if is_record or each.team is None else had & each.team
            return shown, had if each.arrived is not None else each.may
        case _:
            had = each.arrived if each.arrived is not None else each.may
            return nobody, had if is_record else nobody


def _lost(
    where: str,
    accepted: Sequence[Accepted],
    found: Mapping[str, Copies],
    lost_by: Mapping[int, Sequence[str]],
) -> Iterator[Finding]:
    """What is missing, told apart by where in the order of acceptance: before all that they have, after it, within."""
    order = [each.broadcast_id for each in sorted(accepted, key=lambda each: each.at)]
    places = {broadcast_id: place for place, broadcast_id in enumerate(order)}
    counts: Counter[tuple[str, str]] = Counter()
    for number, missing in lost_by.items():
        had = [places[each] for each, copies in found.items() if each in places and number in copies.once]
        for broadcast_id in missing:
            counts[broadcast_id, _part(places[broadcast_id], had)] += 1
    for (broadcast_id, part), count in counts.items():
        yield Finding(LOST, broadcast_id, f"{where}: {part}", count)


def _part(place: int, had: Sequence[int]) -> str:
    if not had:
        return "all of it"
    if place < min(had):
        return "prefix"
    return "tail" if place > max(had) else "middle"


def check_stream(seen: Seen, accepted: Mapping[str, Accepted]) -> Iterator[Finding]:
    """A stream shows what its person must have exactly once, anything else that they may have at most once."""
    for what, shown in (("added", seen.added), ("alert", seen.alerts)):
        for broadcast_id, times in shown.items():
            each = accepted.get(broadcast_id)
            if each is None or each.fate is Fate.REJECTED or seen.number not in each.may:
                yield Finding(UNEXPECTED, broadcast_id, f"{what} on the stream of {seen.label}", times)
            if times > 1:
                detail = f"{what} {times} times on the stream of {seen.label}"
                yield Finding(DUPLICATE, broadcast_id, detail, times - 1)
    for broadcast_id, each in accepted.items():
        is_due = each.fate is Fate.DELIVERED and seen.number in each.must
        if is_due and broadcast_id not in seen.added:
            yield Finding(LOST, broadcast_id, f"on the stream of {seen.label}")


def check_ledger(each: Accepted, ledger: Ledger | None, merged: Mapping[str, Copies]) -> Iterator[Finding]:
    """Its state is final, each channel adds up to the audience, and what it says the inbox has is on record there."""
    if ledger is None:
        yield Finding("ledger", each.broadcast_id, "none")
        return
    if ledger.state not in _FINAL[each.fate]:
        yield Finding("state", each.broadcast_id, f"{ledger.state}, and is {each.fate}")
    is_planned = bool(ledger.channels)
    for channel in _ALL_CHANNELS if is_planned else ():
        states = ledger.channels.get(channel, {})
        total = sum(states.values())
        if total != ledger.targeted:
            detail = f"{channel} adds up to {total} of {ledger.targeted}"
            yield Finding("ledger", each.broadcast_id, detail, abs(total - ledger.targeted))
        if states.get("pending"):
            yield Finding("ledger", each.broadcast_id, f"{channel} has {states['pending']} pending")
    if not is_planned and each.fate is Fate.DELIVERED and each.must:
        yield Finding("ledger", each.broadcast_id, "empty, and somebody is meant")
    held = len(merged[each.broadcast_id].once) if each.broadcast_id in merged else 0
    delivered = ledger.channels.get("in_app", {}).get("delivered", 0)
    if is_planned and delivered != held:
        yield Finding("ledger", each.broadcast_id, f"says {delivered} delivered, {held} have it")


def check_counts(
    where: str, truth: Mapping[str, People], told: Mapping[str, People], *, has_no_others: bool = False
) -> Iterator[Finding]:
    """What the suite says of people is what a recount says, for each broadcast of which there is a snapshot.

    With `has_no_others` it says nothing of any other.
    """
    for broadcast_id, people in truth.items():
        counted = told.get(broadcast_id)
        if counted is None:
            yield Finding(MISCOUNT, broadcast_id, f"{where}: not counted at all", people.targeted)
            continue
        # Stats say nothing of how long readers took.
        known = people if counted.time_to_read is not None else replace(people, time_to_read=None)
        if counted != known:
            yield Finding(MISCOUNT, broadcast_id, f"{where}: {counted}, and it is {known}")
    for broadcast_id in told.keys() - truth.keys() if has_no_others else ():
        yield Finding(MISCOUNT, broadcast_id, f"{where}: counted, and never dispatched")
