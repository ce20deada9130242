"""Owns turning what a run has done and seen into what the checker compares, and into a report."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from pyroaring import BitMap

from tests.chaos.checker import Accepted, Fate, Seen, Sent, Verdict, check, check_counts
from tests.chaos.crew import Crew
from tests.chaos.desk import Decisions
from tests.chaos.looking import Looking
from tests.chaos.processes import Death
from tests.chaos.reading import OnRecord
from tests.chaos.recovery import Span, recovery
from tests.chaos.report import Report
from tests.chaos.site import Site
from tests.chaos.storm import Course
from tests.chaos.terms import RECOVERY_BOUND_S, SHOWN_S, Terms
from tests.chaos.workload import Attempt

_SAMPLE: Final = 300
_POLL_S: Final = 0.1
_SLACK_S: Final = 1.5
"""What starting a process takes on a machine that does much else, on top of the bound on recovery."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's sends, with the broadcasts that they have become."""

    sent: list[Sent]
    accepted: list[Accepted]
    arrivals: list[Span]


async def judge(
    site: Site, crew: Crew, terms: Terms, course: Course, deaths: Sequence[Death], began: float
) -> Report:
    """Look at everything that can be seen in time, compare, and tell."""
    looking = Looking(terms.look_s)
    rows = await looking.at("what was accepted", crew.record.broadcasts(), [])
    teams = await looking.at("teams", crew.record.teams(crew.cast.changing), {})
    outcome = outcome_of(crew.workload.attempts, rows, teams, crew.desk.decisions)
    await _until_shown(crew, outcome.accepted)
    await _until_expired(crew.workload.attempts)
    verdict = await _compare(crew, terms, outcome, looking)
    other = await _other_findings(crew, course, outcome, looking)
    kills = [death for death in deaths if death.is_killed]
    tries = [Span(*each) for attempt in crew.workload.attempts for each in attempt.tries]
    ended = Counter((each.process.partition("-")[0], each.code) for each in deaths if not each.is_killed)
    fired = site.arming.fired()
    return Report(
        seed=terms.seed,
        seconds=time.time() - began,
        verdict=verdict,
        faults=crew.faults.counts(),
        kills=Counter({name: count for (name, action), count in fired.items() if action == "kill"}),
        lost_steps=Counter({name: count for (name, action), count in fired.items() if action == "skip"}),
        unfired=site.arming.missing(),
        undone=[*crew.faults.missing(), *crew.desk.missing()],
        recoveries=[
            recovery(death.at, tries, outcome.arrivals) for death in kills if death.at < course.healed_at
        ],
        delays_s=[each.ended - each.began for each in outcome.arrivals],
        codes=crew.callers.codes,
        other=[*other, *slow_recoveries(course.solitary, tries, outcome.arrivals), *looking.unseen],
        notes=[
            ", ".join(course.phases),
            f"{len(kills)} processes were killed",
            f"{len(crew.desk.decisions.approved)} were approved, {len(crew.desk.decisions.rejected)} rejected",
            *(
                f"{count} times a {service} ended by itself with code {code}"
                for (service, code), count in sorted(ended.items())
            ),
            f"streams were resumed {crew.screens.resumed} times; {crew.echo.repeated} messages were repeated",
            *(f"a stream ended: {each}" for each in sorted(set(crew.screens.failures))),
        ],
    )


def outcome_of(
    attempts: Iterable[Attempt],
    rows: Iterable[OnRecord],
    teams: Mapping[str, BitMap],
    decisions: Decisions,
) -> Outcome:
    """Match sends with what is on record by the key in the title; `teams` are those that have changed, by wedding."""
    by_title: dict[str, list[OnRecord]] = {}
    for row in rows:
        by_title.setdefault(row.title, []).append(row)
    sent, accepted, arrivals = [], [], []
    for attempt in attempts:
        found = by_title.pop(attempt.key, [])
        is_acknowledged = attempt.accepted_at is not None
        sent.append(
            Sent(
                attempt.key,
                is_acknowledged,
                tuple(row.broadcast_id for row in found),
                attempt.refused,
                attempt.is_recovered,
            )
        )
        for row in found:
            team = teams.get(attempt.request.wedding_id)
            is_rejected = decisions.has_rejected(row.broadcast_id, row.state)
            accepted.append(_accepted(attempt, row, team, is_rejected=is_rejected))
            if row.sent_at is not None and attempt.accepted_at is not None:
                approved_at = decisions.approved.get(row.broadcast_id, 0.0)
                began = max(attempt.accepted_at, attempt.due_at, approved_at)
                arrivals.append(Span(began, row.sent_at.timestamp()))
    for rest in by_title.values():  # nobody has sent these
        accepted += [Accepted(row.broadcast_id, BitMap(), BitMap(), Fate.DELIVERED, 0.0) for row in rest]
    return Outcome(sent, accepted, arrivals)


def slow_recoveries(kills: Iterable[float], tries: Sequence[Span], arrivals: Sequence[Span]) -> list[str]:
    """Kills in calm weather that were not recovered from within the lease and one poll."""
    bound_s = RECOVERY_BOUND_S + _SLACK_S
    found = []
    for at in kills:
        seen = recovery(at, tries, arrivals)
        if max(seen.accepted_s or 0.0, seen.arrived_s or 0.0) > bound_s:
            found.append(f"recovery took {seen}, at most {bound_s:g} s are allowed")
    return found


def _accepted(attempt: Attempt, row: OnRecord, team: BitMap | None, *, is_rejected: bool) -> Accepted:
    cancel = attempt.cancel
    is_confirmed = cancel is not None and cancel.confirmed_at is not None
    if is_rejected:
        fate = Fate.REJECTED
    elif cancel is not None and (is_confirmed or row.state == "cancelled"):
        fate = Fate.HIDDEN if cancel.retract else Fate.STOPPED
    else:
        fate = Fate.EXPIRED if attempt.expires else Fate.DELIVERED
    return Accepted(
        row.broadcast_id,
        attempt.meant.must,
        attempt.meant.may,
        fate,
        attempt.accepted_at or attempt.started_at,
        cancel.arrived if cancel is not None and is_confirmed else None,
        cancel.already_sent if cancel is not None and is_confirmed else None,
        team,
    )


async def _until_shown(crew: Crew, accepted: Sequence[Accepted]) -> None:
    """Give the streams time for what they have not shown yet; what is missing then the checker will tell."""
    deadline = time.monotonic() + SHOWN_S
    due = [
        (each.broadcast_id, shown)
        for each in accepted
        if each.fate is Fate.DELIVERED
        for shown in crew.screens.all
        if shown.number in each.must
    ]
    while due and time.monotonic() < deadline:
        due = [(broadcast_id, shown) for broadcast_id, shown in due if broadcast_id not in shown.added]
        await asyncio.sleep(_POLL_S)


async def _until_expired(attempts: Iterable[Attempt]) -> None:
    """Whatever has a time limit has passed it, by every clock."""
    limits = [attempt.request.expires_at.seconds + 2 for attempt in attempts if attempt.expires]
    await asyncio.sleep(max(0.0, max(limits, default=0) - time.time()))


async def _compare(crew: Crew, terms: Terms, outcome: Outcome, looking: Looking) -> Verdict:
    everyone = sorted(crew.truth.user_ids)
    watchers = {shown.number for shown in crew.screens.alone}
    moved = {number for each in crew.cast.changing for number in crew.truth.weddings[each]}
    chosen = set(Random(terms.seed).sample(everyone, _SAMPLE)) | watchers | moved
    readers = everyone if terms.lists_all else sorted(chosen)
    merged = await looking.at("what is on record", crew.record.everything(), {})
    listed = await looking.at("what people are shown", crew.lists.inboxes(readers), None)
    asked = [each.broadcast_id for each in outcome.accepted]
    ledgers = await looking.at("the ledgers", crew.lists.ledgers(asked), {})
    seen = [Seen(each.label, each.number, each.added, each.alerts) for each in crew.screens.all]
    looked = BitMap(readers if listed is not None else ())
    verdict = check(outcome.sent, outcome.accepted, merged, listed or {}, looked, seen, ledgers)
    truth = await looking.at("a recount", crew.record.recounted(), {})
    analytics = await looking.at("the analytics", crew.record.analytics(), None)
    told = {each.broadcast_id: each.people for each in ledgers.values() if each.people is not None}
    miscounts = [
        *check_counts("stats", {each: truth[each] for each in told.keys() & truth.keys()}, told),
        *(check_counts("analytics", truth, analytics, has_no_others=True) if analytics is not None else ()),
    ]
    return replace(verdict, findings=(*verdict.findings, *miscounts))


async def _other_findings(crew: Crew, course: Course, outcome: Outcome, looking: Looking) -> list[str]:
    record = crew.record
    gone = {each.broadcast_id for each in outcome.accepted if each.fate in (Fate.HIDDEN, Fate.EXPIRED)}
    broadcasts = await looking.at("what is on its way", record.unfinished(), 0)
    walls = await looking.at("the walls", record.walls_that_differ(), 0)
    flaws = await looking.at("the audit log", record.audit_flaws(), 0)
    letters = await looking.at("dead letters", record.dead_letters(), [])
    unread = await looking.at("receipts", crew.lists.unread(crew.changes.read, gone), [])
    told = {
        number: each for number, each in crew.changes.minds.items() if number not in crew.changes.in_doubt
    }
    minds = await looking.at("what people want", crew.lists.minds(told), {})
    return [
        *course.unfinished,
        *crew.screens.broken_off,
        *(f"a decision was refused: {each}" for each in crew.desk.decisions.refused),
        *([f"{broadcasts} broadcasts or cancels are still on their way"] if broadcasts else []),
        *([f"{walls} walls are still another in the inbox than in the directory"] if walls else []),
        *([f"the audit log is wrong in {flaws} places"] if flaws else []),
        *(f"dead letters: {each}" for each in letters),
        *(f"a confirmed receipt is gone: {number} has not read {each}" for number, each in unread),
        *(
            f"an edit was made that nobody was answered: {number} was told {told[number]} and has {found}"
            for number, found in minds.items()
            if found != told[number]
        ),
    ]
