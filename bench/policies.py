"""What row level security costs ListInboxItems: beside the same queries with its conditions written into them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, TypeVar

import grpc
from rich.console import Console
from wedsync.broadcast.v1.inbox_pb2 import ListInboxItemsRequest, ListInboxItemsResponse
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from bench import inboxes, site, unpoliced
from bench.inboxes import Person
from bench.report import Bound, Result, Row, summarize
from services.inbox.domain import Badge, Filter
from services.inbox.paging import Page, PageStart
from services.inbox.store import InboxStore
from shared import database
from stack.background import BackgroundStack
from stack.credentials import Secrets
from stack.provision import SuiteDatabase
from stack.tokens import TokenMint

SCENARIO: Final = "policies"
RECIPIENTS: Final = 10_000
CALLERS: Final = 500
PAGE: Final = 50
ROUNDS, FULL_ROUNDS = 4, 20
MOST_TIMES: Final = 1.15
_CALL: Final = "ListInboxItems"
_QUERY: Final = f"its query, of {PAGE} items"
_EVERYTHING: Final = Filter()
# In every item, so that its words are looked at until the page is full, and for the count in all of them.
_SEARCH: Final = Filter(search="photographer")

_Side = TypeVar("_Side")
_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Pair:
    """Milliseconds of a call under policies, and of the same without."""

    bound_ms: list[float] = field(default_factory=list)
    free_ms: list[float] = field(default_factory=list)

    async def time(self, call: Callable[[_Side], Awaitable[_Answer]], bound: _Side, free: _Side) -> _Answer:
        """Calls both sides, each first in turn. Raises RuntimeError when they do not answer alike."""
        sides = [(bound, self.bound_ms), (free, self.free_ms)]
        answers = []
        for side, taken_ms in sides if len(self.bound_ms) % 2 else reversed(sides):
            begun = perf_counter()
            answers.append(await call(side))
            taken_ms.append(1000 * (perf_counter() - begun))
        if answers[0] != answers[1]:
            raise RuntimeError("without policies another page is found")
        return answers[0]


async def run(full: bool, console: Console) -> Result:
    """Fills inboxes, and reads each of them both ways."""
    rounds = FULL_ROUNDS if full else ROUNDS
    with site.started(RECIPIENTS, console) as stack:
        admin_url = stack.environment["DATABASE_URL"]
        with console.status("filling inboxes"):
            people = await inboxes.fill(admin_url, stack.state, RECIPIENTS, CALLERS)
        bound_url = SuiteDatabase(admin_url, Secrets(stack.state.secrets).password).url("inbox")
        async with unpoliced.reader(admin_url) as free_url:
            with console.status("asking the database"):
                pairs = await _query(bound_url, free_url, people, rounds)
            with console.status("calling two inboxes"):
                calls = await _call(stack, free_url, people, rounds)
    return _result({_CALL: calls, **pairs}, rounds, full)


async def _query(bound_url: str, free_url: str, people: Sequence[Person], rounds: int) -> dict[str, Pair]:
    """What ListInboxItems asks the database, with the badge remembered as it is, and without."""
    first, second, counted, searched = Pair(), Pair(), Pair(), Pair()
    async with _store(bound_url) as bound, _store(free_url) as free:
        for person in [person for _ in range(rounds) for person in people]:
            page = await counted.time(_page(person, _EVERYTHING, None, None), bound, free)
            below, known = PageStart(page.places[-1].position), page.badge
            await first.time(_page(person, _EVERYTHING, None, known), bound, free)
            await second.time(_page(person, _EVERYTHING, below, known), bound, free)
            await searched.time(_page(person, _SEARCH, None, known), bound, free)
    return {
        _QUERY: first,
        f"{_QUERY}, further down": second,
        f"{_QUERY}, with all counted anew": counted,
        f"{_QUERY} that have a word": searched,
    }


def _page(
    person: Person, wanted: Filter, start: PageStart | None, known: Badge | None
) -> Callable[[InboxStore], Awaitable[Page]]:
    return lambda store: store.list_items(person.number, wanted, start, PAGE, known)


@asynccontextmanager
async def _store(url: str) -> AsyncIterator[InboxStore]:
    connected = await database.connect(url, application_name="bench", max_size=1)
    try:
        yield InboxStore(connected)
    finally:
        await connected.close()


async def _call(stack: BackgroundStack, free_url: str, people: Sequence[Person], rounds: int) -> Pair:
    """Second pages, which always come from the database, of the stack's inbox and of one that no policy binds."""
    mint, pair = TokenMint.existing(stack.state.keys), Pair()
    async with (
        unpoliced.inbox(stack, free_url) as address,
        grpc.aio.insecure_channel(stack.environment["INBOX_ADDR"]) as ours,
        grpc.aio.insecure_channel(address) as theirs,
    ):
        bound, free = InboxServiceStub(ours), InboxServiceStub(theirs)
        tokens = [mint.mint_user_token(person.user_id) for person in people]
        # Everybody has called both before, as they have of processes that have run for a while.
        following = [await Pair().time(_list(token, ""), bound, free) for token in tokens]
        calls = [_list(token, page.next_page_token) for token, page in zip(tokens, following, strict=True)]
        for call in calls * rounds:
            await pair.time(call, bound, free)
    return pair


def _list(token: str, page_token: str) -> Callable[[InboxServiceStub], Awaitable[ListInboxItemsResponse]]:
    request = ListInboxItemsRequest(page_size=PAGE, page_token=page_token)
    metadata = (("authorization", f"Bearer {token}"),)
    return lambda stub: stub.ListInboxItems(request, metadata=metadata, timeout=30)


def _result(pairs: Mapping[str, Pair], rounds: int, full: bool) -> Result:
    rows = [Row(case, summarize(pair.bound_ms), summarize(pair.free_ms)) for case, pair in pairs.items()]
    return Result(
        SCENARIO,
        "ListInboxItems under row level security",
        rows,
        [
            Bound(
                row.case, row.ours.median / row.baseline.median, MOST_TIMES, "times its time without policies"
            )
            for row in rows
            if row.baseline
        ],
        baseline="without policies",
        settings={
            "recipients": RECIPIENTS,
            "callers": CALLERS,
            "broadcasts": inboxes.BROADCASTS,
            "items_each": inboxes.ITEMS_EACH,
            "rounds": rounds,
            "full": full,
        },
    )
