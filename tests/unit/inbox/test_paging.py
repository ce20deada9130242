"""How pages are named, and where the next one begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inbox.domain import LAST_POSITION, MOST_PINNED, Filter
from services.inbox.paging import PageStart, following, read_page_token, write_page_token
from shared.errors import InvalidPageToken
from tests.unit.inbox.places import a_place

POSITIONS = st.integers(0, 2**63 - 1)
NUMBERS = st.integers(0, 2**31 - 1)
STARTS = st.builds(
    PageStart,
    below=POSITIONS,
    tops=st.lists(POSITIONS, max_size=MOST_PINNED, unique=True).map(tuple),
    shown=st.integers(0, MOST_PINNED),
)
FILTERS = st.builds(
    Filter,
    unread_only=st.booleans(),
    priorities=st.lists(st.integers(1, 4), unique=True).map(lambda found: tuple(sorted(found))),
    type=st.text("abc.", max_size=8),
    search=st.text(max_size=8),
    wedding_id=st.none() | st.uuids(),
    include_dismissed=st.booleans(),
    include_snoozed=st.booleans(),
)


@given(STARTS, NUMBERS, FILTERS)
def test_a_page_token_names_its_place_to_whom_it_was_given(
    start: PageStart, number: int, wanted: Filter
) -> None:
    """The same query reads what it wrote, and the contract has room for it."""
    token = write_page_token(start, number, wanted)
    assert read_page_token(token, number, wanted) == start
    assert len(token) <= 512


@given(STARTS, NUMBERS, FILTERS, NUMBERS, FILTERS)
def test_a_page_token_is_worth_nothing_to_another_query(
    start: PageStart, number: int, wanted: Filter, other_number: int, other: Filter
) -> None:
    """Neither another recipient nor another filter can read it."""
    token = write_page_token(start, number, wanted)
    if (number, wanted) != (other_number, other):
        with pytest.raises(InvalidPageToken):
            read_page_token(token, other_number, other)


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: raw.hex()))
def test_what_nobody_gave_is_no_page_token(text: str) -> None:
    """Whatever it is, it is refused and nothing else happens."""
    with pytest.raises(InvalidPageToken):
        read_page_token(text, 1, Filter())


@given(STARTS, st.integers(0, 200), st.sampled_from("AQgw-_09+/= \n"))
def test_a_changed_page_token_is_refused(start: PageStart, place: int, letter: str) -> None:
    """Not one letter may be another, or more."""
    token = write_page_token(start, 1, Filter())
    changed = token[: place % len(token)] + letter + token[place % len(token) + 1 :]
    for each in (changed, token + letter):
        if each != token:
            with pytest.raises(InvalidPageToken):
                read_page_token(each, 1, Filter())


def test_a_position_that_no_log_can_reach_is_refused() -> None:
    """Though the token is written as ours are."""
    with pytest.raises(InvalidPageToken):
        read_page_token(write_page_token(PageStart(2**63), 1, Filter()), 1, Filter())


@given(st.integers(0, 30), st.integers(0, MOST_PINNED), st.integers(1, 9))
def test_pages_that_follow_one_another_have_everything_once(rest: int, pinned: int, page_size: int) -> None:
    """What is pinned first, whether it fills several pages or a part of one."""
    tops = tuple(range(1_000, 1_000 - pinned, -1))
    below = tuple(range(500, 500 - rest, -1))
    start: PageStart | None = None
    seen: list[int] = []
    while True:
        left = tops[start.shown :] if start else tops
        beneath = [each for each in below if each < (start.below if start else LAST_POSITION)]
        asked = [*left, *beneath][: page_size + 1]
        seen += asked[:page_size]
        start = following(tuple(map(a_place, asked)), page_size, min(len(left), page_size + 1), tops, start)
        if start is None:
            break
    assert tuple(seen) == tops + below
