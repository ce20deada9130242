"""Who may send what to whom, for any sender and any broadcast, against product.md's table written down once more."""

from dataclasses import dataclass, replace
from itertools import chain

from hypothesis import example, given
from hypothesis import strategies as st

from services.sender.domain import TYPES, Author, Targeting, Wedding, wall_of
from services.sender.rights import Caller, WeddingAccess, keeps_right, require_reach, require_sender
from shared.errors import NotFound, PermissionDenied

ROLES = ("admin", "coordinator", "couple", "photographer", "Admin", "coordinators", "", None)
# By hand from product.md, whose table of types has two columns of interest here.
COLLABORATION = {"form.locked", "journey.updated", "supplier.joined", "couple.connected", "timeline.changed"}
WEDDING = {"wedding.cancelled", "wedding.emergency", "coordinator.handoff"}
OWN, OTHER, GONE = (f"0a000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
SEGMENT = "0b000000-0000-4000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class Send:
    """What somebody tries to send."""

    is_service: bool
    role: str | None
    scopes: frozenset[str]
    type: str
    targeting: Targeting
    wedding_id: str | None

    @property
    def caller(self) -> Caller:
        """Who tries, with what the directory says of every wedding that bounds the audience."""
        wall = wall_of(self.targeting, self.wedding_id)
        weddings = tuple(WeddingAccess(Wedding(each), each != GONE, each == OWN) for each in wall)
        author = Author(
            "billing" if self.is_service else "7d3c1d7e-2a56-4a19-9d5c-000000000001", self.is_service
        )
        role = None if self.is_service else self.role
        return Caller(author, role, self.scopes if self.is_service else frozenset(), weddings)


def _lists(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=3, unique=True).map(tuple)


TARGETINGS = st.builds(
    Targeting,
    everyone=st.booleans(),
    user_ids=_lists(OWN, OTHER),
    roles=_lists("couple", "admin"),
    tiers=_lists("free"),
    segment_ids=_lists(SEGMENT),
    wedding_ids=_lists(OWN, OTHER, GONE),
)
SCOPES = st.frozensets(
    st.sampled_from(
        (
            *("broadcast.send", "broadcast.send:", "broadcast.send:,", "broadcast.sender", "broadcast.read"),
            *("internal", "broadcast.send:form.locked", "broadcast.send:trial.ending,wedding.emergency"),
        )
    ),
    max_size=3,
)
SENDS = st.builds(
    Send,
    is_service=st.booleans(),
    role=st.sampled_from(ROLES),
    scopes=SCOPES,
    type=st.sampled_from(sorted(TYPES)),
    targeting=TARGETINGS,
    wedding_id=st.sampled_from((None, OWN, OTHER, GONE)),
)


def allowed(send: Send) -> str:
    """What product.md answers: `yes`, or the name of the refusal."""
    if send.is_service:
        return _service_allowed(send)
    if send.role not in ("admin", "coordinator"):
        return "PermissionDenied"
    return _unbounded(send) if send.role == "admin" else _coordinator_allowed(send)


def _service_allowed(send: Send) -> str:
    """Its scope whole, or with a list that has the type in it."""
    lists = [scope.split(":", 1)[1] for scope in send.scopes if scope.startswith("broadcast.send:")]
    listed = set(chain.from_iterable(each.split(",") for each in lists)) - {""}
    if "broadcast.send" not in send.scopes and send.type not in listed:
        return "PermissionDenied"
    return _unbounded(send)


def _coordinator_allowed(send: Send) -> str:
    """Collaboration and wedding types, to weddings on whose team they are, all named."""
    named = _named(send)
    if send.type not in COLLABORATION | WEDDING or not named:
        return "PermissionDenied"
    return "yes" if named == {OWN} and not send.targeting.segment_ids else "OutsideReach"


def _unbounded(send: Send) -> str:
    """GONE is no wedding; of a segment the audience finds out."""
    return "NotFound" if GONE in _named(send) else "yes"


def _named(send: Send) -> set[str]:
    return {send.wedding_id} if send.wedding_id else set(send.targeting.wedding_ids)


def answered(send: Send) -> str:
    """What the sender answers."""
    try:
        require_sender(send.caller)
        require_reach(send.caller, TYPES[send.type], send.targeting)
    except (PermissionDenied, NotFound) as refused:
        return type(refused).__name__
    return "yes"


ONLY_PEOPLE = Targeting(user_ids=(OWN,))


@given(SENDS)
@example(Send(False, "coordinator", frozenset(), "timeline.changed", ONLY_PEOPLE, None))
@example(Send(False, "coordinator", frozenset(), "timeline.changed", ONLY_PEOPLE, OWN))
@example(Send(False, "coordinator", frozenset(), "trial.ending", ONLY_PEOPLE, OWN))
@example(Send(False, "coordinator", frozenset(), "form.locked", Targeting(wedding_ids=(OWN, OTHER)), None))
@example(Send(False, "coordinator", frozenset(), "form.locked", Targeting(wedding_ids=(OWN, GONE)), None))
def test_the_sender_answers_as_the_table_says(send: Send) -> None:
    """Whatever is tried, whoever tries."""
    assert answered(send) == allowed(send)


@given(SENDS)
def test_a_wedding_of_others_and_none_are_refused_alike(send: Send) -> None:
    """To a coordinator it makes no difference whether there is one behind an id that is not theirs."""

    def with_another(wedding_id: str) -> Send:
        targeting = replace(send.targeting, wedding_ids=(OWN, wedding_id))
        return replace(send, is_service=False, role="coordinator", targeting=targeting, wedding_id=None)

    assert answered(with_another(OTHER)) == answered(with_another(GONE))


@given(SENDS)
def test_a_person_keeps_the_right_that_they_would_be_given(send: Send) -> None:
    """At dispatch as at the send; that a wedding or segment is gone by then is for the audience to find."""
    person = replace(send, is_service=False)
    kept = keeps_right(person.caller, TYPES[person.type], person.targeting)
    assert kept == (answered(person) in ("yes", "NotFound"))
