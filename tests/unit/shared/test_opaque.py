"""What is opaque outside: read by who wrote it, for the same query, and by nobody else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidPageToken
from shared.opaque import decode, encode, read_page_token, write_page_token

PLACES = st.binary(max_size=40)
QUERIES = st.binary(max_size=40)


@given(PLACES, QUERIES)
def test_a_page_token_names_its_place_to_its_query(place: bytes, query: bytes) -> None:
    """And it can stand in an address as it is."""
    token = write_page_token(place, query)
    assert read_page_token(token, query) == place
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)


@given(PLACES, QUERIES, QUERIES)
def test_a_page_token_is_worth_nothing_to_another_query(place: bytes, query: bytes, other: bytes) -> None:
    """Also when place and query would read the same, one after the other."""
    for wrong in {other, place[-1:] + query} - {query}:
        with pytest.raises(InvalidPageToken):
            read_page_token(write_page_token(place, query), wrong)


def test_the_end_of_a_place_is_not_the_beginning_of_a_query() -> None:
    """A shorter place of a longer query has another token."""
    assert write_page_token(b"ab", b"c") != write_page_token(b"a", b"bc")


@given(PLACES, st.integers(0, 200), st.sampled_from("AQgw-_09+/= \né"))
def test_a_changed_page_token_is_refused(place: bytes, at: int, letter: str) -> None:
    """Not one letter may be another, one more or one less; the refusal names the field and the rule."""
    token = write_page_token(place, b"query")
    at %= len(token)
    for each in {token[:at] + letter + token[at + 1 :], token + letter, token[:-1]} - {token}:
        with pytest.raises(InvalidPageToken) as refused:
            read_page_token(each, b"query")
        assert [violation.field for violation in refused.value.violations] == ["page_token"]


@given(st.text(max_size=40))
def test_what_nobody_gave_is_refused(text: str) -> None:
    """Whatever it is, and nothing else happens."""
    with pytest.raises(InvalidPageToken):
        read_page_token(text, b"query")


@given(st.binary(max_size=60))
def test_bytes_have_one_text(raw: bytes) -> None:
    """Neither padding nor another version of the text is taken for it."""
    text = encode(raw)
    assert decode(text) == raw
    for other in (text + "=", "Ag" + text[2:], ""):
        with pytest.raises(ValueError, match=r"not a text of ours|padding"):
            decode(other)
