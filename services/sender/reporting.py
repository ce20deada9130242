"""Answers for what was counted: rows a day by broadcast, type or priority, for those who may see the broadcasts."""

from collections.abc import Iterable

from wedsync.broadcast.v1 import sender_pb2

from services.sender.analytics import (
    PAGE_SIZE,
    Place,
    day_of,
    read_page_token,
    write_page_token,
)
from services.sender.analytics_messages import day_violations, question_of, response_message
from services.sender.analytics_store import AnalyticsStore
from services.sender.listing import Listing
from shared.clock import Clock
from shared.errors import FieldViolation


class Reporting:
    """What GetAnalytics does once the edge has let a call in."""

    def __init__(self, store: AnalyticsStore, listing: Listing, clock: Clock) -> None:
        """`listing` knows whose broadcasts a caller may see."""
        self._store = store
        self._listing = listing
        self._clock = clock

    def violations(self, request: sender_pb2.GetAnalyticsRequest) -> Iterable[FieldViolation]:
        """The rules that a request breaks, besides those in the contract."""
        return day_violations(request, day_of(self._clock.now()))

    async def get(self, request: sender_pb2.GetAnalyticsRequest) -> sender_pb2.GetAnalyticsResponse:
        """A page. Raises InvalidPageToken."""
        caller, question = await self._listing.reader(), question_of(request)
        token = request.page_token
        after = read_page_token(token, caller.author, question) if token else None
        today = day_of(self._clock.now())
        days = after.days.until(today) if after is not None else question.days(today)
        size = request.page_size or PAGE_SIZE
        # One more than is shown says whether there is another page.
        asking = caller.asking_about(question.wedding_id)
        page = await self._store.read(asking, question, days, after, size + 1)
        shown = page.rows[:size]
        following = ""
        if len(page.rows) > size:
            following = write_page_token(Place(days, shown[-1].day, shown[-1].key), caller.author, question)
        return response_message(shown, page.counted_through, following)
