"""Owns who may send what to whom, and which broadcasts they may see: product.md's table of rights, for the sender."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.sender.domain import Author, Broadcast, BroadcastType, Category, Targeting, Wedding
from shared.errors import NotFound, OutsideReach, PermissionDenied

ADMIN: Final = "admin"
COORDINATOR: Final = "coordinator"
SEND_SCOPE: Final = "broadcast.send"
READ_SCOPE: Final = "broadcast.read"
AUDIT_SCOPE: Final = "audit.read"

_COORDINATORS_SEND: Final = frozenset({Category.COLLABORATION, Category.WEDDING})


@dataclass(frozen=True, slots=True)
class WeddingAccess:
    """A wedding as the directory knows it now, whether the caller is on its team, and how many are."""

    wedding: Wedding
    exists: bool
    on_team: bool
    team_size: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, with what the directory says of them at this call: role, and access to the weddings in question."""

    author: Author
    role: str | None = None
    scopes: frozenset[str] = frozenset()
    weddings: tuple[WeddingAccess, ...] = ()

    @property
    def is_admin(self) -> bool:
        """Whether the directory gives this person the admin role."""
        return self.role == ADMIN

    @property
    def is_coordinator(self) -> bool:
        """Whether the directory gives this person the coordinator role."""
        return self.role == COORDINATOR

    @property
    def reads_all(self) -> bool:
        """Whether every broadcast is theirs to see."""
        return self.is_admin or READ_SCOPE in self.scopes

    @property
    def reads_audit(self) -> bool:
        """Whether the audit log is theirs to see."""
        return self.is_admin or AUDIT_SCOPE in self.scopes

    @property
    def team_weddings(self) -> tuple[str, ...]:
        """Those of the weddings in question on whose team they are, for coordinators; others see nothing by it."""
        return tuple(
            each.wedding.wedding_id for each in self.weddings if each.on_team and self.is_coordinator
        )

    def asking_about(self, wedding_id: str | None) -> "Caller":
        """Who asks about a wedding of others is shown what they sent, and not that something else is about it too."""
        is_own = wedding_id is None or wedding_id in self.team_weddings
        return self if is_own else replace(self, weddings=())

    def wedding(self, wedding_id: str | None) -> Wedding | None:
        """What the directory knows of a wedding in question, None when it knows none such."""
        known = (each.wedding for each in self.weddings if each.exists)
        return next((wedding for wedding in known if wedding.wedding_id == wedding_id), None)


def sendable_types(scopes: Iterable[str]) -> frozenset[str] | None:
    """The types that a service account's scopes let it send; None for all.

    `broadcast.send:payment.required,trial.ending` gives a list, several add up, and `broadcast.send` alone gives all.
    """
    types: set[str] = set()
    for scope in scopes:
        name, separator, listed = scope.partition(":")
        if name == SEND_SCOPE and not separator:
            return None
        if name == SEND_SCOPE:
            types.update(filter(None, listed.split(",")))
    return frozenset(types)


def require_sender(caller: Caller) -> None:
    """Raise PermissionDenied for those who may not send anything at all."""
    if caller.author.is_service:
        types = sendable_types(caller.scopes)
        may_send = types is None or bool(types)
    else:
        may_send = caller.is_admin or caller.is_coordinator
    if not may_send:
        raise PermissionDenied


def require_reader(caller: Caller) -> None:
    """Raise PermissionDenied for a person whose role shows them no broadcast; the edge knows which scopes do."""
    if not (caller.author.is_service or caller.is_admin or caller.is_coordinator):
        raise PermissionDenied


def require_type(caller: Caller, broadcast_type: BroadcastType) -> None:
    """Raise PermissionDenied unless this sender may send this type to anybody."""
    if caller.author.is_service:
        types = sendable_types(caller.scopes)
        if types is not None and broadcast_type.name not in types:
            raise PermissionDenied(f"This service account may not send {broadcast_type.name}.")
    if caller.is_coordinator and broadcast_type.category not in _COORDINATORS_SEND:
        raise PermissionDenied("Coordinators send collaboration and wedding broadcasts only.")


def require_weddings(caller: Caller) -> None:
    """Raise unless this sender may write to all of `caller.weddings`.

    OutsideReach for one beyond a coordinator's reach, whether it exists or not; NotFound for those whose reach has no
    bounds, when there is no such wedding.
    """
    if caller.is_coordinator:
        if not all(each.on_team for each in caller.weddings):
            raise OutsideReach
    elif not all(each.exists for each in caller.weddings):
        raise NotFound("A wedding that the request names does not exist.")


def require_decider(caller: Caller, author: Author) -> None:
    """Raise PermissionDenied unless the caller may approve or reject what this author has sent."""
    if not caller.is_admin:
        raise PermissionDenied("Only admins approve or reject broadcasts.")
    if caller.author == author:
        raise PermissionDenied("Nobody decides about their own broadcast: another admin must.")


def require_reach(caller: Caller, broadcast_type: BroadcastType, targeting: Targeting) -> None:
    """Raise unless this sender may send this type to this audience; `caller.weddings` must be the audience's wall.

    PermissionDenied for a type; OutsideReach for a wedding or segment beyond a coordinator's reach, whether it
    exists or not; NotFound for those whose reach has no bounds, when there is no such wedding. Whether their segments
    exist is for the audience to find.
    """
    require_type(caller, broadcast_type)
    if caller.is_coordinator and not caller.weddings:
        raise PermissionDenied("Coordinators send to the teams of weddings only: name at least one.")
    if targeting.segment_ids and caller.is_coordinator:
        raise OutsideReach
    require_weddings(caller)


def shown_to(caller: Caller, broadcast: Broadcast) -> Broadcast:
    """A broadcast as those see it who may: by the team of a wedding, without other weddings and without people."""
    if caller.reads_all or caller.author == broadcast.author:
        return broadcast
    targeting = broadcast.content.targeting
    own = tuple(each for each in targeting.wedding_ids if each in caller.team_weddings)
    content = replace(broadcast.content, targeting=replace(targeting, user_ids=(), wedding_ids=own))
    return replace(broadcast, content=content)


def keeps_right(caller: Caller, broadcast_type: BroadcastType, targeting: Targeting) -> bool:
    """Whether an author may still send what was accepted from them. A service account's scopes are not asked again."""
    if caller.author.is_service:
        return True
    try:
        require_sender(caller)
        require_reach(caller, broadcast_type, targeting)
    except PermissionDenied:
        return False
    except NotFound:
        return True  # an admin still has the right; that the wedding is gone is for the audience to find
    return True
