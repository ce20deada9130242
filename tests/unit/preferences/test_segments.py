"""What may be saved as a segment, and what a field mask changes of one."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.preferences.directory import UserType, WeddingStatus
from services.preferences.segments import (
    EDITS,
    EVERYTHING,
    Criteria,
    GivenSegment,
    Segment,
    SegmentValues,
    edit,
    new_segment,
    read_page_token,
    write_page_token,
)
from shared import opaque
from shared.errors import InvalidField, InvalidPageToken, StaleEtag

NOW = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
COUPLES = Criteria(user_types=(UserType.COUPLE,), wedding_within_days=30)
CURRENT = SegmentValues("Couples", "Soon married", COUPLES)
GIVEN = GivenSegment(
    "Florists",
    "Flowers",
    Criteria(("florist",), ("free",), (UserType.SUPPLIER,), (WeddingStatus.CONFIRMED,), 7),
    is_active=False,
)


def broken_fields(given: GivenSegment, *paths: str) -> list[str]:
    """The fields that a refused edit names."""
    with pytest.raises(InvalidField) as refused:
        edit(CURRENT, given, paths)
    return [violation.field for violation in refused.value.violations]


def test_a_new_segment_is_active_unless_it_says_otherwise() -> None:
    """The rest is as given."""
    assert new_segment(replace(GIVEN, is_active=None)).is_active
    assert new_segment(GIVEN) == SegmentValues("Florists", "Flowers", GIVEN.criteria, is_active=False)


def test_a_segment_has_a_name_and_a_criterion() -> None:
    """Both are told at once."""
    with pytest.raises(InvalidField) as refused:
        new_segment(GivenSegment())
    assert [each.field for each in refused.value.violations] == ["segment.name", "segment.criteria"]


@pytest.mark.parametrize(
    "criteria",
    [
        Criteria(roles=("florist",)),
        Criteria(tiers=("free",)),
        Criteria(user_types=(UserType.STAFF,)),
        Criteria(wedding_statuses=(WeddingStatus.PLANNING,)),
        Criteria(wedding_within_days=0),
    ],
)
def test_one_criterion_is_enough(criteria: Criteria) -> None:
    """Any of them; today is a number of days."""
    assert new_segment(GivenSegment("One", criteria=criteria)).criteria == criteria


@pytest.mark.parametrize("path", sorted(EDITS.keys() - {EVERYTHING, "criteria"}))
def test_a_path_changes_what_it_names_and_nothing_else(path: str) -> None:
    """Of criteria, one."""
    edited = edit(CURRENT, GIVEN, [path])
    name, _, criterion = path.partition(".")
    if criterion:
        changed = replace(COUPLES, **{criterion: getattr(GIVEN.criteria, criterion)})
        assert edited == replace(CURRENT, criteria=changed)
    else:
        assert edited == replace(CURRENT, **{name: getattr(GIVEN, name)})


def test_criteria_as_a_whole_are_replaced() -> None:
    """What they had before is gone."""
    assert edit(CURRENT, GIVEN, ["criteria"]) == replace(CURRENT, criteria=GIVEN.criteria)


def test_a_star_changes_everything() -> None:
    """But whether it is active, when that is left out."""
    assert edit(CURRENT, GIVEN, ["*"]) == SegmentValues(
        "Florists", "Flowers", GIVEN.criteria, is_active=False
    )
    resting = replace(CURRENT, is_active=False)
    assert not edit(resting, replace(GIVEN, is_active=None), ["*"]).is_active


def test_what_a_client_sends_back_is_ignored() -> None:
    """The server's own fields may be named and change nothing."""
    own = ["segment_id", "user_count", "user_count_time", "create_time", "update_time", "etag"]
    assert edit(CURRENT, GIVEN, own) == CURRENT


def test_broken_masks_and_values_name_the_field() -> None:
    """An unknown path, a name or the last criterion taken away, and an activity that is not given."""
    assert broken_fields(GIVEN, "members", "criteria.age") == ["update_mask", "update_mask"]
    assert broken_fields(GivenSegment(), "name") == ["segment.name"]
    assert broken_fields(GivenSegment(), "criteria") == ["segment.criteria"]
    one_by_one = ("criteria.user_types", "criteria.wedding_within_days")
    assert broken_fields(GivenSegment(), *one_by_one) == ["segment.criteria"]
    assert broken_fields(GivenSegment(), "is_active") == ["segment.is_active"]


def test_a_page_token_names_a_segment() -> None:
    """Whatever its name; a token that somebody has made up from what is no name is refused as any other."""
    name = "Brautpaare ❤ im Juni"
    assert read_page_token(write_page_token(name)) == name
    for forged in (opaque.write_page_token(b"\xff", b"segments by name"), write_page_token("a\0b"), "x", "é"):
        with pytest.raises(InvalidPageToken):
            read_page_token(forged)


def test_an_etag_is_a_condition_when_it_is_given() -> None:
    """Of this very version."""
    segment = Segment(UUID(int=1), CURRENT, 3, 0, None, NOW, NOW)
    segment.require_etag("")
    segment.require_etag(segment.etag)
    with pytest.raises(StaleEtag):
        segment.require_etag("2")
