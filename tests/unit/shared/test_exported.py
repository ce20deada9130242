"""What an export's records and pages look like."""

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from uuid import UUID

import pytest

from shared.errors import InvalidPageToken
from shared.exported import PAGE_SIZE, ExportPart, export_page, exported
from shared.opaque import write_page_token

ME, SOMEBODY = b"me", b"somebody"


def note(text: str) -> ExportPart:
    """A part of one record."""
    return ExportPart([exported("inbox", "note", {"text": text})])


async def first(place: str) -> ExportPart:
    """Three pages, of which the second is empty."""
    parts = {"": ("one", "2"), "2": ("", "3"), "3": ("three", "")}
    text, following = parts[place]
    return ExportPart(note(text).records if text else [], following)


async def second(place: str) -> ExportPart:
    """One page; anything else is no place in it."""
    if place:
        raise ValueError(place)
    return note("last")


PARTS = {"first": first, "second": second}


async def test_parts_follow_each_other_page_by_page() -> None:
    """Each from its beginning, and the last page has no token."""
    told, token = [], ""
    for _ in range(4):
        page = await export_page(PARTS, token, ME)
        told.append([json.loads(each.json)["text"] for each in page.records])
        token = page.next_page_token
    assert (told, token) == ([["one"], [], ["three"], ["last"]], "")


async def test_a_token_is_good_for_the_person_that_it_was_given_for() -> None:
    """Another's is refused, and so is one that was made up, even well."""
    token = (await export_page(PARTS, "", ME)).next_page_token
    made_up = [write_page_token(each, ME) for each in (b"third ", b"second x", b"\xff", b"first 9")]
    for wrong in (token[:-1], "x", *made_up):
        with pytest.raises(InvalidPageToken):
            await export_page(PARTS, wrong, ME)
    with pytest.raises(InvalidPageToken):
        await export_page(PARTS, token, SOMEBODY)


async def test_a_defect_of_the_first_page_is_not_taken_for_a_bad_token() -> None:
    """Nobody gave one."""

    async def broken(place: str) -> ExportPart:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await export_page({"only": broken}, "", ME)


def test_values_have_one_form() -> None:
    """Times in UTC, days, minutes and ids as texts, sets in order, text as it is."""
    told = exported(
        "inbox",
        "everything",
        {
            "at": datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            "precise": datetime(2026, 5, 1, 12, 0, 0, 5, tzinfo=UTC),
            "day": date(2026, 5, 1),
            "quiet": time(22, 30),
            "id": UUID(int=1),
            "channels": frozenset({"push", "email"}),
            "name": "Zoë 🎉",
            "nothing": None,
        },
    )
    assert (told.service, told.kind) == ("inbox", "everything")
    assert json.loads(told.json) == {
        "at": "2026-05-01T10:00:00Z",
        "precise": "2026-05-01T12:00:00.000005Z",
        "day": "2026-05-01",
        "quiet": "22:30",
        "id": "00000000-0000-0000-0000-000000000001",
        "channels": ["email", "push"],
        "name": "Zoë 🎉",
        "nothing": None,
    }
    assert "Zoë 🎉" in told.json


def test_what_has_no_form_is_an_error() -> None:
    """Rather than something that nobody can read."""
    with pytest.raises(TypeError, match="bytes has no form"):
        exported("inbox", "note", {"bitmap": b"x"})


@pytest.mark.parametrize(("rows", "place"), [(PAGE_SIZE, "last"), (PAGE_SIZE - 1, ""), (0, "")])
def test_a_full_page_has_another_behind_it(rows: int, place: str) -> None:
    """Fewer rows than were asked for are the end."""
    part = ExportPart.of(range(rows), lambda row: exported("inbox", "row", {"row": row}), lambda row: "last")
    assert (len(part.records), part.place) == (rows, place)
