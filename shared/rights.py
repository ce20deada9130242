"""Who may call an RPC at all: declared for each method beside its servicer, and checked before the request is read."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from google.protobuf.descriptor import ServiceDescriptor

from shared.auth import Identity
from shared.errors import PermissionDenied

# The role that the directory gives a person now, None for somebody it does not know.
RoleOf = Callable[[UUID], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Right:
    """Those who may call a method: anybody whom one of these admits. Combine with `|`."""

    any_person: bool = False
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    limited_scopes: frozenset[str] = frozenset()

    def __or__(self, other: Self) -> "Right":
        """Admits whom either admits."""
        return Right(
            self.any_person or other.any_person,
            self.roles | other.roles,
            self.scopes | other.scopes,
            self.limited_scopes | other.limited_scopes,
        )

    @property
    def needs_role(self) -> bool:
        """Whether deciding about a person takes their role."""
        return bool(self.roles)

    def admits_service(self, carried: Collection[str]) -> bool:
        """Whether a service whose token carries these scopes may call."""
        return not self.scopes.isdisjoint(carried) or any(map(self._admits_limited, carried))

    def _admits_limited(self, scope: str) -> bool:
        """A list that names nothing is no right, and who has none must not come as far as the rules of the request."""
        name, separator, listed = scope.partition(":")
        return name in self.limited_scopes and (not separator or bool(listed.strip(",")))


def any_person() -> Right:
    """Every person, for what is their own; the servicer asks only for data of the caller."""
    return Right(any_person=True)


def roles(*names: str) -> Right:
    """People to whom the directory gives one of these roles at the time of the call."""
    return Right(roles=frozenset(names))


def scopes(*names: str) -> Right:
    """Services whose token carries one of these scopes."""
    return Right(scopes=frozenset(names))


def limited_scope(name: str) -> Right:
    """Services whose token carries this scope whole, or limited by a list (`name:one,two`) that the servicer heeds."""
    return Right(limited_scopes=frozenset({name}))


INTERNAL: Final = scopes("internal")
"""The right to what only the suite's own services call: no load from outside may keep them from each other."""


async def admit(identity: Identity, right: Right, role_of: RoleOf | None) -> str | None:
    """Refuses an identity that `right` does not admit; answers the person's role when it had to be looked up."""
    if identity.user_id is None:
        if not right.admits_service(identity.scopes):
            raise PermissionDenied
        return None
    role = await role_of(identity.user_id) if right.needs_role and role_of is not None else None
    if not right.any_person and role not in right.roles:
        raise PermissionDenied
    return role


@dataclass(frozen=True, slots=True)
class RightsGap:
    """Where a table of rights and a gRPC service differ; empty when they agree."""

    missing: tuple[str, ...]
    unknown: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.missing or self.unknown)


def rights_gap(service: ServiceDescriptor, rights: Mapping[str, Right]) -> RightsGap:
    """The methods of a service without a right, and the rights of no method, both sorted."""
    methods = {method.name for method in service.methods}
    return RightsGap(tuple(sorted(methods - rights.keys())), tuple(sorted(rights.keys() - methods)))
