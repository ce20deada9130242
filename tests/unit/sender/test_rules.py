"""What may be asked for, rule by rule and all at once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender.domain import TYPES, Action, Priority, Targeting, Wedding
from services.sender.rules import (
    Draft,
    due_time,
    one_year_after,
    preview_violations,
    send_violations,
    url_fault,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIRST, SECOND = "0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"
GOOD = Draft(
    type="feature.released",
    priority=None,
    targeting=Targeting(everyone=True),
    title="New seating plans",
    message="Try them.",
)


def broken_fields(draft: Draft) -> list[str]:
    """The fields that a send refuses."""
    return [each.field for each in send_violations(draft, NOW)]


def test_good_draft_breaks_nothing() -> None:
    """The draft that the other tests spoil."""
    assert broken_fields(GOOD) == []


@pytest.mark.parametrize("name", TYPES)
def test_every_type_can_be_sent(name: str) -> None:
    """With its wedding where it needs one."""
    wedding_id = FIRST if TYPES[name].needs_wedding else None
    assert broken_fields(replace(GOOD, type=name, wedding_id=wedding_id)) == []


@pytest.mark.parametrize(
    "name", ["", "feature", "feature.released ", "Feature.Released", "wedding.", "feature\0released"]
)
def test_unknown_type_is_refused(name: str) -> None:
    """A type is one of the table's, letter by letter."""
    assert broken_fields(replace(GOOD, type=name)) == ["type"]


@pytest.mark.parametrize("name", TYPES)
def test_critical_is_for_the_types_marked(name: str) -> None:
    """Any other type may have any other priority."""
    draft = replace(GOOD, type=name, wedding_id=FIRST)
    refused = broken_fields(replace(draft, priority=Priority.CRITICAL))
    assert refused == ([] if TYPES[name].may_be_critical else ["priority"])
    for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW):
        assert broken_fields(replace(draft, priority=priority)) == []


@pytest.mark.parametrize("name", [name for name, each in TYPES.items() if each.needs_wedding])
def test_type_about_a_wedding_needs_one(name: str) -> None:
    """Weddings in the targeting do not say which one it is about."""
    draft = replace(GOOD, type=name, targeting=Targeting(wedding_ids=(FIRST,)))
    assert broken_fields(draft) == ["wedding_id"]


def test_targeting_nobody_is_refused() -> None:
    """Nobody broadcasts to the world by leaving a field out."""
    assert broken_fields(replace(GOOD, targeting=Targeting())) == ["targeting"]


@pytest.mark.parametrize(
    "targeting",
    [
        Targeting(everyone=True),
        Targeting(user_ids=(FIRST,)),
        Targeting(roles=("florist",)),
        Targeting(tiers=("professional",)),
        Targeting(segment_ids=(FIRST,)),
        Targeting(wedding_ids=(FIRST,)),
        Targeting(roles=("florist",), tiers=("free",), user_ids=(FIRST,), wedding_ids=(SECOND,)),
        Targeting(everyone=True, wedding_ids=(FIRST,)),
    ],
)
def test_any_way_of_targeting_is_enough(targeting: Targeting) -> None:
    """Each alone, and joined."""
    assert broken_fields(replace(GOOD, targeting=targeting)) == []


def test_wedding_alone_is_enough() -> None:
    """The audience is then its team."""
    assert broken_fields(replace(GOOD, targeting=Targeting(), wedding_id=FIRST)) == []


@pytest.mark.parametrize(
    "targeting",
    [
        Targeting(everyone=True, user_ids=(FIRST,)),
        Targeting(everyone=True, roles=("florist",)),
        Targeting(everyone=True, tiers=("free",)),
        Targeting(everyone=True, segment_ids=(FIRST,)),
    ],
)
def test_everyone_is_not_joined_with_some(targeting: Targeting) -> None:
    """Who asks for both has made a mistake, and which one cannot be known."""
    assert broken_fields(replace(GOOD, targeting=targeting)) == ["targeting.everyone"]


@pytest.mark.parametrize(
    ("weddings", "is_good"), [((FIRST,), True), ((SECOND,), False), ((FIRST, SECOND), False), ((), True)]
)
def test_weddings_are_exactly_the_wedding(weddings: tuple[str, ...], is_good: bool) -> None:
    """A wall around one wedding and a broadcast about another contradict each other."""
    draft = replace(GOOD, targeting=Targeting(wedding_ids=weddings), wedding_id=FIRST)
    assert broken_fields(draft) == ([] if is_good else ["targeting.wedding_ids"])


@pytest.mark.parametrize(
    ("seconds", "is_good"),
    [
        (-61, False),
        (-60.001, False),
        (-60, True),
        (-1, True),
        (0, True),
        (1, True),
        (365 * 86_400, True),
        (365 * 86_400 + 1, False),
    ],
)
def test_schedule_lies_between_a_minute_ago_and_a_year_ahead(seconds: float, is_good: bool) -> None:
    """Both ends are included."""
    draft = replace(GOOD, scheduled_for=NOW + timedelta(seconds=seconds))
    assert broken_fields(draft) == ([] if is_good else ["scheduled_for"])


@pytest.mark.parametrize(
    ("moment", "later"),
    [
        (datetime(2026, 11, 22, 12, 30, tzinfo=UTC), datetime(2027, 11, 22, 12, 30, tzinfo=UTC)),
        (datetime(2027, 3, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 23, tzinfo=UTC), datetime(2029, 3, 1, 23, tzinfo=UTC)),
    ],
)
def test_a_year_ends_on_the_same_day(moment: datetime, later: datetime) -> None:
    """Also in a leap year, and for the day that only those have."""
    assert one_year_after(moment) == later


def test_what_is_just_past_is_due_now() -> None:
    """Nobody's broadcast is due before it was accepted."""
    assert due_time(None, NOW) == NOW
    assert due_time(NOW - timedelta(seconds=30), NOW) == NOW
    assert due_time(NOW + timedelta(hours=1), NOW) == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("scheduled_s", "expires_s", "is_good"),
    [
        (None, 1, True),
        (None, 0, False),
        (None, -1, False),
        (3600, 3601, True),
        (3600, 3600, False),
        (3600, 10, False),
        (-30, -10, False),
        (-30, 10, True),
    ],
)
def test_expiry_comes_after_the_schedule_and_after_now(
    scheduled_s: int | None, expires_s: int, is_good: bool
) -> None:
    """A broadcast that nobody could ever see is refused."""
    draft = replace(
        GOOD,
        scheduled_for=None if scheduled_s is None else NOW + timedelta(seconds=scheduled_s),
        expires_at=NOW + timedelta(seconds=expires_s),
    )
    assert broken_fields(draft) == ([] if is_good else ["expires_at"])


def test_escalation_is_refused_in_plain_words() -> None:
    """It is declared and not served yet, and is not dropped silently."""
    (violation,) = send_violations(replace(GOOD, escalates=True), NOW)
    assert (violation.field, violation.description) == ("escalation", "is not served yet: send without it")


def test_every_broken_rule_is_told_at_once() -> None:
    """A caller mends a request in one go."""
    draft = Draft(
        type="wedding.cancelled",
        priority=None,
        targeting=Targeting(everyone=True, roles=("florist",)),
        action=Action("Open", "ftp://example.org"),
        scheduled_for=NOW - timedelta(hours=1),
        expires_at=NOW - timedelta(hours=2),
        escalates=True,
    )
    assert sorted(broken_fields(draft)) == [
        "action.url",
        "escalation",
        "expires_at",
        "scheduled_for",
        "targeting.everyone",
        "wedding_id",
    ]


def test_preview_is_held_to_the_rules_of_its_fields() -> None:
    """It has no action and no schedule, and the rest is as in a send."""
    draft = Draft(type="wedding.cancelled", priority=None, targeting=Targeting(), expires_at=NOW)
    assert [each.field for each in preview_violations(draft, NOW)] == [
        "wedding_id",
        "targeting",
        "expires_at",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://wedsync.example/weddings/1?tab=timeline#top",
        "http://example.org",
        "HTTPS://EXAMPLE.ORG/",
        "https://example.org:8443/a@b",
        "https://[2001:db8::1]/",
        "https://münchen.example/straße",
        "/",
        "/weddings/1/timeline",
        "/a//b",
    ],
)
def test_url_that_leads_somewhere_is_taken(url: str) -> None:
    """Absolute http and https, and paths of the application itself."""
    assert url_fault(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//example.org/a",
        "///example.org",
        "/\\example.org",
        "https:\\\\example.org",
        "https://user@example.org/",
        "https://user:secret@example.org/",
        "https://@example.org/",
        "https:///path",
        "https://",
        "https:example.org",
        "https:/example.org",
        "ftp://example.org",
        "javascript:alert(1)",
        "data:text/html,x",
        "mailto:a@example.org",
        "example.org/a",
        "weddings/1",
        "?a=1",
        " https://example.org",
        "https://exa mple.org",
        "https://example.org/\n",
        "/a\tb",
        "/a\0b",
        "/a\u0085b",
        "/a\u00a0b",
        "https://[::1",
        "https://example.org:port/",
        "https://example.org:99999/",
    ],
)
def test_url_that_could_lead_astray_is_refused(url: str) -> None:
    """Other schemes, user info, and what a browser would read otherwise than we do."""
    assert url_fault(url) is not None


@given(st.text(max_size=40))
def test_no_url_makes_the_rule_fail(text: str) -> None:
    """Whatever comes, the rule decides, and a path it takes has exactly one slash to begin with."""
    for url in (text, "/" + text, "https://" + text, "http://[" + text):
        if url_fault(url) is None:
            assert url.lower().startswith(("http://", "https://")) or (url[0] == "/" and url[1:2] != "/")
            assert not any(character.isspace() or character in "\\\0" for character in url)


def test_content_is_what_was_asked_with_what_follows_from_it() -> None:
    """The type gives the priority, now gives the time, the directory gives the wedding."""
    wedding = Wedding(FIRST, "Amara & Jonas")
    draft = replace(GOOD, type="timeline.changed", wedding_id=FIRST, action=Action("Open", "/w"))
    content = draft.content(NOW, wedding)
    assert content.priority is Priority.HIGH
    assert content.scheduled_for == NOW
    assert content.wedding == wedding
    assert content.action == Action("Open", "/w")
    assert replace(draft, priority=Priority.LOW).content(NOW, wedding).priority is Priority.LOW
