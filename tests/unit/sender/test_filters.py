"""What a list is asked for, and how its pages are named."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wedsync.broadcast.v1 import common_pb2
from wedsync.broadcast.v1.sender_pb2 import ListBroadcastsRequest

from services.sender.domain import TYPES, Author, Priority, State
from services.sender.filters import (
    Filter,
    Period,
    Place,
    read_page_token,
    types_named,
    write_page_token,
)
from services.sender.messages import filter_of
from shared import opaque
from shared.errors import InvalidPageToken

ME, SERVICE = Author(str(uuid4()), is_service=False), Author("billing", is_service=True)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
PERIODS = st.builds(Period, st.none() | MOMENTS, st.none() | MOMENTS)
FILTERS = st.builds(
    Filter,
    states=st.lists(st.sampled_from(State), unique=True).map(tuple),
    type=st.sampled_from(["", "wedding.", "form.locked"]),
    priorities=st.lists(st.sampled_from(Priority), unique=True).map(tuple),
    created_by=st.sampled_from(["", "billing", ME.name]),
    wedding_id=st.none() | st.uuids().map(str),
    created=PERIODS,
    due=PERIODS,
)
PLACES = st.builds(Place, MOMENTS, st.uuids().map(str))


@given(PLACES, FILTERS)
def test_a_page_token_names_its_place_to_the_microsecond(place: Place, wanted: Filter) -> None:
    """To the same caller with the same filter."""
    assert read_page_token(write_page_token(place, ME, wanted), ME, wanted) == place


@given(PLACES, FILTERS, FILTERS)
def test_a_page_token_is_good_for_its_caller_and_filter_only(
    place: Place, wanted: Filter, other: Filter
) -> None:
    """Neither another filter nor another caller reads it, nor a service account that is called as a person is."""
    token = write_page_token(place, ME, wanted)
    for author, asked in ((SERVICE, wanted), (Author(ME.name, is_service=True), wanted), (ME, other)):
        if (author, asked) != (ME, wanted):
            with pytest.raises(InvalidPageToken):
                read_page_token(token, author, asked)


@pytest.mark.parametrize("place", [b"", b"\x00" * 23, b"\x00" * 25, b"\xff" * 24])
def test_a_place_that_cannot_be_is_refused(place: bytes) -> None:
    """Though somebody took the trouble of binding it to the query."""
    forged = opaque.write_page_token(place, repr((ME, Filter())).encode())
    with pytest.raises(InvalidPageToken):
        read_page_token(forged, ME, Filter())


@pytest.mark.parametrize(
    ("wanted", "types"),
    [
        ("", None),
        ("wedding.emergency", ("wedding.emergency",)),
        ("wedding.party", ("wedding.party",)),
        ("wedding.", ("wedding.cancelled", "wedding.emergency")),
        ("nothing.", ()),
        (".", ()),
    ],
)
def test_a_type_is_exact_or_a_prefix(wanted: str, types: tuple[str, ...] | None) -> None:
    """One that ends in a dot stands for all types that begin with it, which may be none."""
    assert types_named(wanted) == types
    assert types is None or len(types) != 2 or set(types) <= TYPES.keys()


def test_a_request_is_read_as_it_is_meant() -> None:
    """The order and case of what is named make no difference, so that a page token outlives them."""
    moment = datetime(2027, 6, 5, 12, tzinfo=UTC)
    request = ListBroadcastsRequest(
        states=[common_pb2.BROADCAST_STATE_SENT, common_pb2.BROADCAST_STATE_FAILED] * 2,
        type="wedding.",
        priorities=[common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_CRITICAL],
        created_by=ME.name.upper(),
        wedding_id="0A000000-0000-4000-8000-000000000001",
    )
    request.create_time.start_time.FromDatetime(moment)
    request.scheduled_for.end_time.FromDatetime(moment + timedelta(days=1))
    wanted = filter_of(request)
    assert wanted == Filter(
        states=(State.FAILED, State.SENT),
        type="wedding.",
        priorities=(Priority.CRITICAL, Priority.LOW),
        created_by=ME.name,
        wedding_id="0a000000-0000-4000-8000-000000000001",
        created=Period(start=moment),
        due=Period(end=moment + timedelta(days=1)),
    )
    assert filter_of(ListBroadcastsRequest()) == Filter()
    assert filter_of(ListBroadcastsRequest(created_by="Billing")).created_by == "Billing"
