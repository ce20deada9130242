"""What may be written of people and weddings, and who may see whom."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest

from services.preferences.directory import (
    Person,
    Reach,
    UserType,
    WeddingDetails,
    WeddingStatus,
    check_people,
    check_weddings,
    reach_of,
    require_admin_right,
    require_known,
)
from shared.errors import FieldViolation, InvalidField, PermissionDenied

ONE, TWO = UUID(int=1), UUID(int=2)
PERSON = Person(ONE, "Petra Novak", "venue", UserType.SUPPLIER, "free", None, None, "Europe/Vienna")
WEDDING = WeddingDetails(ONE, "Amara & Jonas", date(2027, 6, 5), WeddingStatus.PLANNING, "UTC")


@pytest.mark.parametrize(
    ("role", "is_service", "reach"),
    [
        (None, True, Reach.EVERYONE),
        ("admin", False, Reach.EVERYONE),
        ("coordinator", False, Reach.TEAMS),
        ("photographer", False, Reach.SELF),
        (None, False, Reach.SELF),
    ],
)
def test_reach_follows_the_directory_role(role: str | None, is_service: bool, reach: Reach) -> None:
    """Admins and services see everyone, coordinators their teams, all others themselves."""
    assert reach_of(role, is_service=is_service) is reach


def test_good_entries_pass() -> None:
    """Different users and weddings with zones that exist."""
    check_people([PERSON, replace(PERSON, user_id=TWO)])
    check_weddings([WEDDING, replace(WEDDING, wedding_id=TWO)])


def test_every_bad_entry_is_named() -> None:
    """Repeated ids and bad zones by place, together with what was known to be wrong before."""
    with pytest.raises(InvalidField) as people:
        check_people([PERSON, replace(PERSON, time_zone="Europe/Gotham")])
    assert [each.field for each in people.value.violations] == [
        "recipients[1].user_id",
        "recipients[1].time_zone",
    ]
    with pytest.raises(InvalidField) as weddings:
        check_weddings(
            [replace(WEDDING, time_zone="nowhere")], [FieldViolation("weddings[0].wedding_date", "bad")]
        )
    assert [each.field for each in weddings.value.violations] == [
        "weddings[0].wedding_date",
        "weddings[0].time_zone",
    ]


@pytest.mark.parametrize(
    ("before", "after", "changes_admins"),
    [
        (None, "admin", True),
        ("admin", "venue", True),
        ("venue", "admin", True),
        ("admin", "admin", False),
        (None, "venue", False),
        ("venue", "couple", False),
    ],
)
def test_the_admin_role_is_guarded_both_ways(before: str | None, after: str, changes_admins: bool) -> None:
    """Giving and taking need the right; writing an admin who stays one does not."""
    people, roles = [replace(PERSON, role=after)], {ONE: before} if before else {}
    require_admin_right(people, roles, may_change_admins=True)
    if not changes_admins:
        require_admin_right(people, roles, may_change_admins=False)
        return
    with pytest.raises(PermissionDenied):
        require_admin_right(people, roles, may_change_admins=False)


def test_unknown_users_are_named_by_place() -> None:
    """Each of them."""
    require_known([ONE], {ONE: 7})
    with pytest.raises(InvalidField) as refusal:
        require_known([TWO, ONE], {ONE: 7})
    assert [each.field for each in refusal.value.violations] == ["user_ids[0]"]
