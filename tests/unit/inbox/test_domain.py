"""What an item is searched by, and how places are named."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inbox.domain import (
    Filter,
    fits_a_chunk,
    fold_words,
    read_cursor,
    words_of,
    write_cursor,
)
from shared.audience import Audience
from shared.errors import InvalidCursor

POSITIONS = st.integers(0, 2**63 - 1)


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: raw.hex()))
def test_what_nobody_gave_is_no_cursor(text: str) -> None:
    """Whatever it is, it is refused and nothing else happens."""
    with pytest.raises(InvalidCursor):
        read_cursor(text, UUID(int=7))


@given(POSITIONS, st.uuids(), st.uuids())
def test_a_cursor_is_good_for_its_log_only(position: int, log: UUID, other: UUID) -> None:
    """What it names there is nothing elsewhere, and no mistake of the client's either: its log may have been lost."""
    assert read_cursor(write_cursor(position, log), log) == position
    if log.bytes[:8] != other.bytes[:8]:
        assert read_cursor(write_cursor(position, log), other) is None


def test_a_position_that_no_log_can_reach_is_refused() -> None:
    """Though the cursor is written as ours are."""
    log = uuid4()
    with pytest.raises(InvalidCursor):
        read_cursor(write_cursor(2**63, log), log)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t.,;!?'\"\\()&|:*<> ", []),
        ("Rain, RAIN; rain", ["rain", "rain", "rain"]),
        ("It's 14:30", ["it", "s", "14", "30"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ﬁrst café cafe\u0301 cafe", ["first", "cafe", "cafe", "cafe"]),
        ("Ίσως ΊΣΩΣ ισως", ["ισωσ", "ισωσ", "ισωσ"]),
        ("結婚式 wedding", ["結婚式", "wedding"]),
        ("결혼식 शादी งานแต่ง", ["결혼식", "शादी", "งานแต่ง"]),
        ("venue雨天 6月", ["venue", "雨天", "6", "月"]),
        ("Zere\u00admonie \u200fמזל\u200f", ["zeremonie", "מזל"]),
    ],
)
def test_words_are_folded(text: str, words: list[str]) -> None:
    """Case, ligatures and accents make no difference, the signs of other scripts do; what stands between is nothing."""
    assert fold_words(text) == words


@given(st.text())
def test_folded_words_are_plain_and_short_enough(text: str) -> None:
    """No word could be taken for syntax, or is longer than an index takes."""
    for word in words_of([text, text * 100]):
        assert not set(word) & set("'\"\\&|!():*<> ")
        assert 0 < len(word.encode()) <= 2_000


def test_a_text_is_indexed_by_each_word_once() -> None:
    """In order; where no spaces are set, by each two characters, and the last alone."""
    assert words_of(("Rain or shine", "Shine, RAIN!")) == ["or", "rain", "shine"]
    assert words_of(("雨天会場 会", "plan会場")) == ["plan", "会", "会場", "場", "天会", "雨天"]


@given(st.text("会場雨天のケーงานa1 ", min_size=1), st.data())
def test_what_stands_in_a_text_is_found_in_it(text: str, data: st.DataObject) -> None:
    """Every part of a run without spaces asks for nothing that the text is not kept by."""
    run = data.draw(st.sampled_from([*fold_words(text), "雨天会場"]))
    start = data.draw(st.integers(0, len(run) - 1)) if not run.isascii() else 0
    search = run[start : data.draw(st.integers(start + 1, len(run)))]
    kept = words_of([text, "雨天会場"])
    for term in (Filter(search=search).query or "").split(" & "):
        part, is_beginning = term.removesuffix(":*").strip("'"), term.endswith(":*")
        assert part in kept or (is_beginning and any(word.startswith(part) for word in kept))


@pytest.mark.parametrize(
    ("search", "query"),
    [
        ("", None),
        (" \t\n", None),
        (" ?! ", "' '"),
        ("💍", "' '"),
        ("Rain", "'rain':*"),
        ("rain Plan B", "'rain' & 'plan' & 'b':*"),
        ("a'b", "'a' & 'b':*"),
        ("时间", "'时间':*"),
        ("时间变 rain", "'时间' & '间变' & 'rain':*"),
        ("6月 rain", "'6' & '月':* & 'rain':*"),
        ("雨", "'雨':*"),
    ],
)
def test_a_search_wants_all_words_and_the_beginning_of_the_last(search: str, query: str | None) -> None:
    """None when nothing is looked for; what has no word in it is found nowhere."""
    assert Filter(search=search).query == query


@pytest.mark.parametrize(
    ("type_", "exact", "prefix"),
    [
        ("", None, None),
        ("wedding.emergency", "wedding.emergency", None),
        ("wedding.", None, "wedding."),
        (".", None, "."),
    ],
)
def test_a_type_that_ends_in_a_dot_is_a_prefix(type_: str, exact: str | None, prefix: str | None) -> None:
    """Any other is exact."""
    wanted = Filter(type=type_)
    assert (wanted.exact_type, wanted.type_prefix) == (exact, prefix)


@pytest.mark.parametrize(
    ("members", "fits"),
    [
        ([], True),
        ([5], True),
        (range(16 * 4096), True),
        (range(16 * 4096 + 1), False),
        (range(0, 2**31, 2**27), True),
    ],
)
def test_a_chunk_is_at_most_sixteen_blocks(members: range, fits: bool) -> None:
    """However many members they have, and wherever they lie."""
    assert fits_a_chunk(Audience.of(members)) is fits
