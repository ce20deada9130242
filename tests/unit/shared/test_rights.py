"""Rights: whom a declaration admits, and that a table which does not fit its service is noticed."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from wedsync.broadcast.v1 import preferences_pb2

from shared.auth import Identity, SubjectKind
from shared.errors import DependencyUnavailable, PermissionDenied
from shared.rights import Right, admit, any_person, limited_scope, rights_gap, roles, scopes

ANA, BEN, CLEO = UUID(int=1), UUID(int=2), UUID(int=3)
ROLES = {ANA: "admin", BEN: "couple"}
LATER = datetime(2027, 1, 1, tzinfo=UTC)
PREFERENCES = preferences_pb2.DESCRIPTOR.services_by_name["PreferencesService"]


async def role_of(user_id: UUID) -> str | None:
    """The directory: Ana is an admin, Ben half of a couple, Cleo unknown."""
    return ROLES.get(user_id)


async def nobody_asks(user_id: UUID) -> str | None:
    """A directory that must not be needed."""
    raise AssertionError("the role was looked up")


def person(user_id: UUID) -> Identity:
    """A person, whose token tried to bring a scope along in vain."""
    return Identity(str(user_id), SubjectKind.USER, user_id, frozenset(), LATER)


def service(*scope: str) -> Identity:
    """A service with scopes."""
    return Identity("billing", SubjectKind.SERVICE, None, frozenset(scope), LATER)


async def admits(right: Right, identity: Identity) -> bool:
    """Whether a right lets an identity in."""
    try:
        await admit(identity, right, role_of)
    except PermissionDenied:
        return False
    return True


CALLERS = [person(ANA), person(BEN), person(CLEO), service("audit.read"), service("internal", "x"), service()]


@pytest.mark.parametrize(
    ("right", "admitted"),
    [
        (Right(), []),
        (any_person(), [0, 1, 2]),
        (roles("admin"), [0]),
        (roles("admin", "couple"), [0, 1]),
        (scopes("internal"), [4]),
        (scopes("internal", "audit.read"), [3, 4]),
        (roles("admin") | scopes("audit.read"), [0, 3]),
        (any_person() | scopes("internal"), [0, 1, 2, 4]),
        (any_person() | roles("admin"), [0, 1, 2]),
        (roles("internal"), []),
        (scopes("admin"), []),
    ],
)
async def test_right_admits_whom_it_names(right: Right, admitted: list[int]) -> None:
    """People by being people or by role, services by scope, and a name of one kind means nothing for the other."""
    assert [i for i, caller in enumerate(CALLERS) if await admits(right, caller)] == admitted


@pytest.mark.parametrize(
    ("carried", "is_admitted"),
    [
        ("broadcast.send", True),
        ("broadcast.send:payment.required,trial.ending", True),
        ("broadcast.send:", False),
        ("broadcast.send:,,", False),
        ("broadcast.sending", False),
        ("broadcast", False),
        ("audit.read:broadcast.send", False),
    ],
)
async def test_scope_that_may_be_limited_admits_with_and_without_its_list(
    carried: str, *, is_admitted: bool
) -> None:
    """What stands before the colon is the scope; what it is limited to is the servicer's to heed."""
    assert await admits(limited_scope("broadcast.send") | roles("admin"), service(carried)) is is_admitted


async def test_role_is_looked_up_only_for_rights_that_name_roles() -> None:
    """A person's own calls need no directory, and a service never does."""
    assert await admit(person(BEN), any_person(), nobody_asks) is None
    assert await admit(service("internal"), roles("admin") | scopes("internal"), nobody_asks) is None


async def test_role_that_was_looked_up_is_answered() -> None:
    """The servicer needs no second look."""
    assert await admit(person(BEN), any_person() | roles("admin"), role_of) == "couple"


async def test_directory_that_is_down_admits_nobody() -> None:
    """Without an answer from the directory the call fails as unavailable; it is not let in."""

    async def down(user_id: UUID) -> str | None:
        raise DependencyUnavailable

    with pytest.raises(DependencyUnavailable):
        await admit(person(ANA), roles("admin"), down)


def test_table_that_fits_its_service_has_no_gap() -> None:
    """One right for each method and no other: nothing to tell."""
    rights = {method.name: any_person() for method in PREFERENCES.methods}
    assert not rights_gap(PREFERENCES, rights)


def test_missing_and_unknown_rights_are_named() -> None:
    """Methods without a right and rights without a method are both found."""
    rights = {method.name: any_person() for method in PREFERENCES.methods}
    del rights["GetPreferences"]
    gap = rights_gap(PREFERENCES, {**rights, "GetMoon": any_person()})
    assert bool(gap)
    assert (gap.missing, gap.unknown) == (("GetPreferences",), ("GetMoon",))
