"""How many calls a second one inbox process answers at p99 ≤ 50 ms, beside a bare echo, interleaved in one run."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import ReceiptAction
from wedsync.broadcast.v1.inbox_pb2 import (
    GetUnreadCountRequest,
    ListInboxItemsRequest,
    RecordReceiptsRequest,
)
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from bench import inboxes, site
from bench.generator import Load, Probe
from bench.inboxes import Person
from bench.rates import ECHO, TRIES, climb, generator_beside_echo
from bench.report import Bound, Result, Row, summarize
from stack.state import StateFolder
from stack.tokens import TokenMint

SCENARIO: Final = "inbox"
RECIPIENTS: Final = 10_000
CALLERS: Final = 1_000
PAGE: Final = 50
LIMIT_MS: Final = 50.0

# First pages are answered from memory where nothing has happened; these come from the database, always.
SECOND_PAGE: Final = "ListInboxItems, second page"
# All of a person's items have these words, the last one begun: each is looked at to count them.
SEARCH: Final = "ListInboxItems, search"
WITH_IDS: Final = "RecordReceipts with request ids"
_FIRST_RATES: Final = {
    ECHO: 1_500.0,
    "GetUnreadCount": 500.0,
    "ListInboxItems": 200.0,
    SECOND_PAGE: 100.0,
    SEARCH: 50.0,
    "RecordReceipts": 300.0,
    WITH_IDS: 300.0,
}
_CAUTION: Final = 0.7
_PROBE_S: Final = 2.0
_ROUNDS: Final = 1
_FULL_PROBE_S: Final = 4.0
_FULL_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Inbox:
    """The inbox to measure: where it serves, and the stack's files."""

    target: str
    database_url: str
    state: StateFolder


async def run(full: bool, console: Console) -> Result:
    """Starts a stack, fills its inboxes, and raises each rate until it is not sustained."""
    with site.started(RECIPIENTS, console) as stack:
        inbox = Inbox(stack.environment["INBOX_ADDR"], stack.environment["DATABASE_URL"], stack.state)
        with console.status("filling inboxes"):
            people = await inboxes.fill(inbox.database_url, inbox.state, RECIPIENTS, CALLERS)
        return await measure(inbox, people, full, console)


async def measure(inbox: Inbox, people: Sequence[Person], full: bool, console: Console) -> Result:
    """The highest rates of each call and of the echo."""
    loads = await prepare(inbox, people)
    rounds, seconds = (_FULL_ROUNDS, _FULL_PROBE_S) if full else (_ROUNDS, _PROBE_S)
    found: dict[str, list[Probe]] = {name: [] for name in _FIRST_RATES}
    async with generator_beside_echo(loads) as generator:
        for turn in range(rounds):
            for name, probes in found.items():
                with console.status(f"round {turn + 1} of {rounds}: {name}"):
                    probes.append(await climb(generator, name, _start(name, probes), seconds, LIMIT_MS))
    return _result(found, full)


async def prepare(inbox: Inbox, people: Sequence[Person]) -> dict[str, Load]:
    """The calls of each method: everybody in turn, and a receipt for something that is not read yet each time."""
    mint = TokenMint.existing(inbox.state.keys)
    tokens = [mint.mint_user_token(person.user_id) for person in people]
    unread = GetUnreadCountRequest().SerializeToString()
    following = await _visit(inbox, tokens)
    page = ListInboxItemsRequest(page_size=PAGE).SerializeToString()
    pages = [ListInboxItemsRequest(page_size=PAGE, page_token=each).SerializeToString() for each in following]
    search = ListInboxItemsRequest(page_size=PAGE, search="photographer ven").SerializeToString()
    receipts, with_ids = (
        [
            (token, _receipt(person, place, has_id=has_id))
            for place in range(first, min(len(person.unread) for person in people), 2)
            for token, person in zip(tokens, people, strict=True)
        ]
        for first, has_id in enumerate((False, True))
    )
    return {
        "GetUnreadCount": _load(inbox, "GetUnreadCount", [(each, unread) for each in tokens]),
        "ListInboxItems": _load(inbox, "ListInboxItems", [(each, page) for each in tokens]),
        SECOND_PAGE: _load(inbox, "ListInboxItems", list(zip(tokens, pages, strict=True))),
        SEARCH: _load(inbox, "ListInboxItems", [(each, search) for each in tokens]),
        "RecordReceipts": _load(inbox, "RecordReceipts", receipts),
        WITH_IDS: _load(inbox, "RecordReceipts", with_ids),
    }


def _load(inbox: Inbox, method: str, calls: Sequence[tuple[str, bytes]]) -> Load:
    return Load(inbox.target, f"/wedsync.broadcast.v1.InboxService/{method}", calls)


def _receipt(person: Person, place: int, *, has_id: bool) -> bytes:
    return RecordReceiptsRequest(
        request_id=str(uuid4()) if has_id else "",
        broadcast_ids=[str(person.unread[place])],
        action=ReceiptAction.RECEIPT_ACTION_READ,
    ).SerializeToString()


async def _visit(inbox: Inbox, tokens: Sequence[str]) -> list[str]:
    """Everybody has called once, as in a process that has run for a while; the names of their second pages."""
    following = []
    async with grpc.aio.insecure_channel(inbox.target) as channel:
        stub = InboxServiceStub(channel)
        for token in tokens:
            answer = await stub.ListInboxItems(
                ListInboxItemsRequest(page_size=PAGE),
                metadata=(("authorization", f"Bearer {token}"),),
                timeout=30,
            )
            if len(answer.items) != PAGE or not PAGE < answer.unread_count < answer.total_count:
                raise RuntimeError(
                    f"{len(answer.items)} items, {answer.unread_count} unread of {answer.total_count}"
                )
            following.append(answer.next_page_token)
    return following


def _start(name: str, probes: Sequence[Probe]) -> float:
    return probes[-1].rate * _CAUTION if probes else _FIRST_RATES[name]


def _result(found: Mapping[str, Sequence[Probe]], full: bool) -> Result:
    rates = {name: statistics.median(probe.rate for probe in probes) for name, probes in found.items()}
    shares = {name: 100 * rate / rates[ECHO] for name, rate in rates.items()}
    rows = [
        Row(
            name,
            summarize([each for probe in probes for each in probe.latencies_ms]),
            facts={"calls/s": round(rates[name]), "% of echo": round(shares[name], 1)},
        )
        for name, probes in found.items()
    ]
    return Result(
        SCENARIO,
        f"Calls at the highest rate with p99 ≤ {LIMIT_MS:g} ms, from when each was due",
        rows,
        [
            Bound("GetUnreadCount beside the echo", shares["GetUnreadCount"], 35, "%", is_least=True),
            Bound(
                f"ListInboxItems of {PAGE} beside the echo", shares["ListInboxItems"], 12, "%", is_least=True
            ),
            Bound("RecordReceipts", rates["RecordReceipts"], 400, "calls/s", is_least=True),
            Bound(WITH_IDS, rates[WITH_IDS], 400, "calls/s", is_least=True),
        ],
        settings={
            "recipients": RECIPIENTS,
            "callers": CALLERS,
            "broadcasts": inboxes.BROADCASTS,
            "items_each": inboxes.ITEMS_EACH,
            "tries_of_a_rate": TRIES,
            "full": full,
        },
    )
