"""Who may send what to whom."""

import pytest

from services.sender.domain import TYPES, Author, Category, Targeting, Wedding
from services.sender.rights import (
    Caller,
    WeddingAccess,
    keeps_right,
    require_decider,
    require_reach,
    require_sender,
    sendable_types,
)
from shared.errors import NotFound, OutsideReach, PermissionDenied

PERSON = Author("7d3c1d7e-2a56-4a19-9d5c-000000000001", is_service=False)
SERVICE = Author("billing", is_service=True)
TEAM = Targeting(roles=("florist",))
COORDINATORS_TYPES = [
    name for name, each in TYPES.items() if each.category in (Category.COLLABORATION, Category.WEDDING)
]


def wedding(number: int, *, exists: bool = True, on_team: bool = False) -> WeddingAccess:
    """A wedding and the caller's place on it."""
    return WeddingAccess(Wedding(f"0a000000-0000-4000-8000-00000000000{number}", "A & B"), exists, on_team)


OWN, OTHER, NONE = wedding(1, on_team=True), wedding(2), wedding(3, exists=False)


def person(role: str | None, *weddings: WeddingAccess) -> Caller:
    """Somebody with a role."""
    return Caller(PERSON, role, frozenset(), weddings)


def service(*scopes: str, weddings: tuple[WeddingAccess, ...] = ()) -> Caller:
    """A service account."""
    return Caller(SERVICE, None, frozenset(scopes), weddings)


@pytest.mark.parametrize("role", ["couple", "photographer", "florist", "admins", "", None])
def test_ordinary_people_send_nothing(role: str | None) -> None:
    """Also those whom the directory does not know."""
    with pytest.raises(PermissionDenied):
        require_sender(person(role))


@pytest.mark.parametrize(
    "caller",
    [
        person("admin"),
        person("coordinator"),
        service("broadcast.send"),
        service("broadcast.send:trial.ending"),
    ],
)
def test_senders_may_send(caller: Caller) -> None:
    """Admins, coordinators, and service accounts with the scope."""
    require_sender(caller)


@pytest.mark.parametrize(
    "scopes", [(), ("internal",), ("broadcast.read",), ("broadcast.send:",), ("broadcast.sender",)]
)
def test_service_account_needs_the_scope(scopes: tuple[str, ...]) -> None:
    """No other scope stands for it, and an empty list is nothing."""
    with pytest.raises(PermissionDenied):
        require_sender(service(*scopes))


@pytest.mark.parametrize(
    ("scopes", "types"),
    [
        (["broadcast.send"], None),
        (["broadcast.send:payment.required,trial.ending"], {"payment.required", "trial.ending"}),
        (
            ["broadcast.send:payment.required", "broadcast.send:trial.ending"],
            {"payment.required", "trial.ending"},
        ),
        (["broadcast.send:payment.required", "broadcast.send"], None),
        (["broadcast.send:"], set()),
        (["broadcast.read"], set()),
    ],
)
def test_scope_lists_types(scopes: list[str], types: set[str] | None) -> None:
    """A list limits, several add up, none gives all."""
    assert sendable_types(scopes) == types


def test_service_account_sends_its_types_only() -> None:
    """Billing bills."""
    billing = service("broadcast.send:payment.required")
    require_reach(billing, TYPES["payment.required"], Targeting(everyone=True))
    with pytest.raises(PermissionDenied) as refused:
        require_reach(billing, TYPES["trial.ending"], Targeting(everyone=True))
    assert not isinstance(refused.value, OutsideReach)


@pytest.mark.parametrize("name", TYPES)
def test_admin_sends_every_type_to_every_audience(name: str) -> None:
    """On the team or not."""
    require_reach(person("admin", OTHER), TYPES[name], TEAM)
    require_reach(person("admin"), TYPES[name], Targeting(everyone=True))


@pytest.mark.parametrize("name", TYPES)
def test_coordinator_sends_what_is_about_people_and_weddings(name: str) -> None:
    """Nothing of the platform's, nothing of the business."""
    coordinator = person("coordinator", OWN)
    if name in COORDINATORS_TYPES:
        require_reach(coordinator, TYPES[name], TEAM)
    else:
        with pytest.raises(PermissionDenied):
            require_reach(coordinator, TYPES[name], TEAM)


def test_coordinator_names_a_wedding() -> None:
    """Without one there is no wall to stay behind."""
    with pytest.raises(PermissionDenied):
        require_reach(person("coordinator"), TYPES["form.locked"], Targeting(roles=("florist",)))


@pytest.mark.parametrize("beyond", [OTHER, NONE])
def test_coordinator_is_kept_to_own_weddings(beyond: WeddingAccess) -> None:
    """All that are named, and a wedding that does not exist looks like one that is not theirs."""
    with pytest.raises(OutsideReach) as refused:
        require_reach(person("coordinator", OWN, beyond), TYPES["form.locked"], Targeting())
    assert refused.value.message == OutsideReach().message


def test_segments_are_beyond_a_coordinators_reach() -> None:
    """Whether there is such a segment or not: who is in one is on no team of theirs."""
    with pytest.raises(OutsideReach):
        require_reach(person("coordinator", OWN), TYPES["form.locked"], Targeting(segment_ids=(PERSON.name,)))


@pytest.mark.parametrize("caller", [person("admin", NONE), service("broadcast.send", weddings=(OTHER, NONE))])
def test_unbounded_reach_learns_what_does_not_exist(caller: Caller) -> None:
    """There is nothing to hide from those who may see all."""
    with pytest.raises(NotFound):
        require_reach(caller, TYPES["form.locked"], Targeting())


@pytest.mark.parametrize("caller", [person("admin"), service("broadcast.send")])
def test_unbounded_reach_has_all_segments(caller: Caller) -> None:
    """That there is none such is for the audience to find."""
    require_reach(caller, TYPES["form.locked"], Targeting(segment_ids=(PERSON.name,)))


@pytest.mark.parametrize(
    ("caller", "keeps"),
    [
        (person("admin"), True),
        (person("admin", NONE), True),
        (person("coordinator", OWN), True),
        (person("coordinator", OTHER), False),
        (person("coordinator", OWN, OTHER), False),
        (person("photographer", OWN), False),
        (person(None), False),
        (Caller(SERVICE, weddings=(OTHER,)), True),
    ],
)
def test_right_is_kept_or_lost_by_the_time_of_dispatch(caller: Caller, keeps: bool) -> None:
    """Role and team as they are then; a service account's scopes are in its token and not asked again."""
    assert keeps_right(caller, TYPES["form.locked"], Targeting()) is keeps


def test_only_coordinators_read_by_team() -> None:
    """A photographer on the team sees the broadcast in the inbox and nowhere else."""
    assert person("coordinator", OWN, OTHER).team_weddings == (OWN.wedding.wedding_id,)
    assert person("photographer", OWN).team_weddings == ()
    assert service("broadcast.send", weddings=(OWN,)).team_weddings == ()


def test_readers_of_all_are_admins_and_the_scope() -> None:
    """Nobody else."""
    assert person("admin").reads_all
    assert service("broadcast.read").reads_all
    assert not person("coordinator").reads_all
    assert not service("broadcast.send").reads_all


def test_facts_are_those_of_weddings_that_exist() -> None:
    """What the directory does not know says nothing about a couple."""
    caller = person("admin", OWN, NONE)
    assert caller.wedding(OWN.wedding.wedding_id) == OWN.wedding
    assert caller.wedding(NONE.wedding.wedding_id) is None
    assert caller.wedding(None) is None


def test_admins_decide_about_what_others_have_sent() -> None:
    """A person's or a service account's, and never their own."""
    other = Author("7d3c1d7e-2a56-4a19-9d5c-000000000002", is_service=False)
    for author in (other, SERVICE):
        require_decider(person("admin"), author)
    with pytest.raises(PermissionDenied, match="own"):
        require_decider(person("admin"), PERSON)


@pytest.mark.parametrize(
    "caller",
    [person("coordinator"), person("couple"), person(None), service("broadcast.send", "broadcast.read")],
)
def test_nobody_else_decides(caller: Caller) -> None:
    """Whatever they may send or see."""
    with pytest.raises(PermissionDenied):
        require_decider(caller, Author("forms", is_service=True))
