"""What may come back from every RPC, for every kind of caller: product.md's table and wall, written without the code.

Two weddings (`two_weddings.py`) are looked at by many callers. For each there is a view, which is what exists for them,
and an expectation, which is how they are answered then. What else they ask for must look as if nothing were there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import grpc

from tests.e2e.client import Client, Metadata
from tests.e2e.test_rights import TABLE
from tests.e2e.two_weddings import (
    BILLING,
    MEMBERS,
    PEOPLE,
    STORIES,
    STRANGER,
    TOLD,
    A,
    B,
    Member,
    Story,
    as_service,
    expired,
)

Code = grpc.StatusCode
Names: TypeAlias = frozenset[str]

WEDDINGS: Final[Names] = frozenset({A, B})
SCOPES: Final = frozenset[str]().union(*TABLE.values()) - {"person", "coordinator", "admin"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls: a person, or a service account by its scope, or nobody that is known."""

    name: str
    metadata: Metadata
    member: Member | None = None
    scope: str = ""

    @property
    def kind(self) -> str:
        """What the table of rights calls them; nothing for those without a good token."""
        if self.member is None:
            return self.scope
        return self.member.role if self.member.role in ("admin", "coordinator") else "person"

    @property
    def is_known(self) -> bool:
        """Whether the directory knows them, or they need not be in it."""
        return self.member is not STRANGER

    @property
    def weddings(self) -> Names:
        """Those on whose teams they are."""
        return self.member.weddings if self.member else frozenset()

    @property
    def home(self) -> str:
        """The wedding that they name where one must be named."""
        return min(self.weddings, default=A)


def callers(client: Client) -> list[Caller]:
    """Every kind of identity there is."""
    people = [Caller(each.name, client.person(each.user_id), each) for each in (*MEMBERS, STRANGER)]
    services = [Caller(scope, as_service(client, scope), scope=scope) for scope in sorted(SCOPES)]
    author = Caller(BILLING, client.service("broadcast.send", name=BILLING), scope="broadcast.send")
    return [
        Caller("anonymous", ()),
        Caller("expired", expired(client)),
        *people,
        *services,
        author,
    ]


@dataclass(frozen=True, slots=True)
class View:
    """What exists for a caller, by name; of those in `addresses` also how they are reached."""

    broadcasts: Names = frozenset()
    weddings: Names = frozenset()
    people: Names = frozenset()
    addresses: Names = frozenset()

    @property
    def names(self) -> Names:
        """Everything that exists."""
        return self.broadcasts | self.weddings | self.people

    @property
    def texts(self) -> Names:
        """The secrets that are texts of these broadcasts."""
        return frozenset(f"text of {name}" for name in self.broadcasts)

    @property
    def secrets(self) -> Names:
        """Every secret that may be in an answer."""
        return self.names | self.texts | frozenset(f"address of {name}" for name in self.addresses)


ALL: Final = View(frozenset(TOLD), WEDDINGS, frozenset(PEOPLE), frozenset(PEOPLE))


def team(wedding: str) -> Names:
    """Everybody on a wedding's team."""
    return frozenset(member.name for member in MEMBERS if wedding in member.weddings)


def meant(story: Story) -> Names:
    """Whom a broadcast names, and who was on the teams that it was for."""
    teams = {each.name for each in MEMBERS if not (each.weddings | each.left).isdisjoint(story.weddings)}
    return frozenset(story.people) | teams


def receives(member: Member, story: Story) -> bool:
    """Whether a broadcast is in somebody's inbox: meant for them, due, and about a wedding of theirs if about any."""
    is_meant = not story.people or member.name in story.people
    is_inside = not story.weddings or not member.weddings.isdisjoint(story.weddings)
    return is_meant and is_inside and not story.is_for_tomorrow


def nothing(caller: Caller) -> View:
    """There is nothing to be seen."""
    return View()


def everything(caller: Caller) -> View:
    """Whoever comes as far as that sees all."""
    return ALL


def on_record(caller: Caller) -> View:
    """All, and those whom nobody knows as well: the audit log names whoever has tried a wall."""
    return replace(ALL, people=ALL.people | {STRANGER.name})


def oneself(caller: Caller) -> View:
    """What a person may ask about: themselves, and the weddings on whose teams they are."""
    own = frozenset({caller.member.name} if caller.member else ())
    return View(weddings=caller.weddings, people=own, addresses=own)


def inbox(caller: Caller) -> View:
    """A person's own inbox."""
    member = caller.member or PEOPLE["couple A"]  # whose token a service shows that connects inboxes
    if not caller.is_known:
        return View()
    stories = [story for story in STORIES if receives(member, story)]
    return View(frozenset(story.name for story in stories), member.weddings)


def reading(caller: Caller) -> View:
    """Those whose reach has no bounds read of all; others of what they sent, coordinators also of their weddings."""
    if caller.kind in ("admin", "broadcast.read"):
        return ALL
    sent = [story for story in STORIES if story.author == caller.name]
    teams = caller.weddings if caller.kind == "coordinator" else frozenset[str]()
    about = [story for story in STORIES if not teams.isdisjoint(story.weddings)]
    weddings = teams | {wedding for story in sent for wedding in story.weddings}
    people = frozenset[str]().union(*map(team, teams), *map(meant, sent)) | {each.author for each in about}
    return View(frozenset(story.name for story in (*sent, *about)), weddings, people)


def sending(caller: Caller) -> View:
    """Whom one may send to: coordinators the teams of their weddings, the others everybody."""
    if caller.kind != "coordinator":
        return View(frozenset(), WEDDINGS, ALL.people)
    return View(frozenset(), caller.weddings, frozenset[str]().union(*map(team, caller.weddings)))


def directory(caller: Caller) -> View:
    """People themselves, coordinators also their teams but not how these are reached, the others everybody."""
    if caller.kind in ("admin", "directory.read", "directory.write"):
        return ALL
    known = oneself(caller)
    if caller.kind != "coordinator":
        return View(people=known.people if caller.is_known else frozenset(), addresses=known.addresses)
    colleagues = frozenset[str]().union(*map(team, caller.weddings))
    return View(people=known.people | colleagues, addresses=known.addresses)


def personal(caller: Caller) -> View:
    """Everything about oneself, if one is known; whoever looks after privacy, and admins, about anybody."""
    if caller.kind in ("admin", "privacy"):
        return ALL
    return _joined(oneself(caller), inbox(caller)) if caller.is_known else View()


def explaining(caller: Caller) -> View:
    """What was meant for oneself, besides what one may read of."""
    return _joined(reading(caller), inbox(caller)) if caller.member else reading(caller)


def _joined(one: View, other: View) -> View:
    return View(
        one.broadcasts | other.broadcasts,
        one.weddings | other.weddings,
        one.people | other.people,
        one.addresses | other.addresses,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request names: weddings, people, broadcasts and what nobody has, by kind of id."""

    names: Mapping[str, tuple[str, ...]]

    def of(self, kind: str) -> Names:
        """The names of one kind."""
        return frozenset(self.names.get(kind, ()))

    def all(self) -> Names:
        """The names of every kind."""
        return frozenset(name for names in self.names.values() for name in names)


Expected: TypeAlias = Callable[[Caller, View, Asked], frozenset[Code]]


def _one(code: Code) -> frozenset[Code]:
    return frozenset({code})


def answered(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """Whatever is named: what does not exist for the caller is left out of the answer."""
    return _one(Code.OK)


def of_the_known(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """The same, but whom the directory does not know has no inbox."""
    return _one(Code.OK if caller.is_known else Code.PERMISSION_DENIED)


def looked_up(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """A thing asked for by its id is there or is not."""
    return _one(Code.OK if asked.all() <= view.names else Code.NOT_FOUND)


def vouched_for(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """Whether somebody else may read of a broadcast, whom a service of the suite asks for."""
    members = [PEOPLE[name] for name in asked.of("user") if name in PEOPLE]
    seen = {story for member in members for story in reading(Caller(member.name, (), member)).broadcasts}
    return _one(Code.OK if asked.of("broadcast") <= seen else Code.NOT_FOUND)


def own_item(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """The same for those who have an inbox."""
    return looked_up(caller, view, asked) if caller.is_known else _one(Code.PERMISSION_DENIED)


def within_reach(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """A wedding of others and one that does not exist are beyond reach; without bounds, the latter is not found."""
    if asked.of("wedding") | asked.of("segment") <= view.weddings:
        return _one(Code.OK)
    return _one(Code.PERMISSION_DENIED if view.weddings != WEDDINGS else Code.NOT_FOUND)


def own_preferences(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """A filter is about a wedding of one's own, for admins too; strangers have no preferences."""
    if not caller.is_known:
        return _one(Code.NOT_FOUND)
    return _one(Code.OK if asked.of("wedding") <= view.weddings else Code.PERMISSION_DENIED)


def outdated_preferences(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """Of those who have preferences, nobody has that version."""
    return _one(Code.ABORTED if caller.is_known else Code.NOT_FOUND)


def cancelled(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """What one sees is only for its sender and admins to stop, and what everybody has cannot be stopped."""
    if not asked.all() <= view.names:
        return _one(Code.NOT_FOUND)
    story = TOLD[next(iter(asked.of("broadcast")))]
    if caller.kind != "admin" and story.author != caller.name:
        return _one(Code.PERMISSION_DENIED)
    return _one(Code.FAILED_PRECONDITION)


def decided(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """Nobody decides about their own, and of what has been told nothing waits for a decision."""
    if not asked.all() <= view.names:
        return _one(Code.NOT_FOUND)
    story = TOLD[next(iter(asked.of("broadcast")))]
    return _one(Code.PERMISSION_DENIED if story.author == caller.name else Code.FAILED_PRECONDITION)


def planned(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """A dispatch is there once its broadcast is due."""
    is_there = all(name in TOLD and not TOLD[name].is_for_tomorrow for name in asked.of("broadcast"))
    return _one(Code.OK if is_there else Code.NOT_FOUND)


def resolved(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """Services of the suite are told what does not exist, of weddings and segments."""
    is_there = asked.of("wedding") | asked.of("segment") <= view.weddings
    return _one(Code.OK if is_there else Code.NOT_FOUND)


def unsaid(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """What is to be made has to be said; the world stays as it is."""
    return _one(Code.INVALID_ARGUMENT)


def not_known_yet(caller: Caller, view: View, asked: Asked) -> frozenset[Code]:
    """For what is not served yet: any answer that is one, and no sign of anything broken."""
    return frozenset(
        {Code.OK, Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION}
    )
