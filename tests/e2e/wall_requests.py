"""Finds every RPC by its descriptor, and makes requests to it for every id that these can name."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias
from uuid import NAMESPACE_URL, uuid5

import wedsync.broadcast.v1
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.e2e.two_weddings import NOWHERE, A, B, World
from tests.e2e.wall_rules import RULES
from tests.e2e.wall_table import Asked, Caller

Path: TypeAlias = tuple[str, ...]
Names: TypeAlias = tuple[str, ...]

KINDS: Final = {
    **dict.fromkeys(("broadcast_id", "broadcast_ids"), "broadcast"),
    **dict.fromkeys(("wedding_id", "wedding_ids", "wall_wedding_ids"), "wedding"),
    **dict.fromkeys(("user_id", "user_ids", "created_by", "sender"), "user"),
    **dict.fromkeys(("segment_id", "segment_ids"), "segment"),
}
"""What the ids in a field of this name are ids of."""
NO_KIND: Final = frozenset({"request_id", "event_id"})
"""Ids that are their caller's own."""

FEW: Final = frozenset({(), ("change B",), (B,), ("couple B",), (NOWHERE[0],)})
"""Names that are enough to ask for where nothing that is asked for makes a difference."""

_HERE: Final = NOWHERE[0]
_ASKED: Final[dict[str, Sequence[Names]]] = {
    "broadcast": [
        *[("change A",), ("change B",), ("emergency B",), ("both",), ("named",), ("news",), ("bill",)],
        *[("farewell A",), ("tomorrow A",), ("tomorrow B",), (_HERE,)],
        *[("change A", "change B"), ("change A", _HERE), ("change B", _HERE)],
    ],
    "wedding": [(A,), (B,), (_HERE,), (A, B), (A, _HERE), (B, _HERE)],
    "user": [
        *[("couple A",), ("couple B",), ("photographer of both",), ("admin",), (_HERE,)],
        *[("couple A", "couple B"), ("couple A", _HERE)],
    ],
    "segment": [(_HERE,)],
}


@dataclass(frozen=True, slots=True)
class Probe:
    """A request as the rule fills it, or with other ids in one of its fields."""

    path: Path = ()
    names: Names = ()

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}={'+'.join(self.names)}" if self.path else "as usual"


@cache
def methods() -> dict[str, MethodDescriptor]:
    """Every RPC of every service in the contract, by name."""
    package = wedsync.broadcast.v1
    names = [each.name for each in pkgutil.iter_modules(package.__path__) if each.name.endswith("_pb2")]
    files = [importlib.import_module(f"{package.__name__}.{name}").DESCRIPTOR for name in names]
    services = [service for file in files for service in file.services_by_name.values()]
    found = {method.name: method for service in services for method in service.methods}
    assert len(found) == sum(len(service.methods) for service in services), "two RPCs have one name"
    return found


def id_fields(message: Descriptor, above: Path = ()) -> Iterator[tuple[Path, FieldDescriptor]]:
    """Where a message has texts that are called ids, whatever they are ids of."""
    for field in message.fields:
        path = (*above, field.name)
        if field.message_type is not None and len(path) < 5:
            yield from id_fields(field.message_type, path)
        elif field.name in KINDS or field.name.endswith(("_id", "_ids")):
            yield path, field


def probes(rpc: str) -> list[Probe]:
    """A request as usual, and one for each of the ids that may be asked for, in each place that takes one."""
    found = [Probe()]
    for path, field in id_fields(methods()[rpc].input_type):
        asked_for = _ASKED.get(KINDS.get(field.name, ""), ())
        found += [Probe(path, names) for names in asked_for if len(names) == 1 or _takes_many(rpc, path)]
    return found


def _takes_many(rpc: str, path: Path) -> bool:
    message: Descriptor | None = methods()[rpc].input_type
    for name in path:
        assert message is not None
        field = message.fields_by_name[name]
        if field.is_repeated:
            return True
        message = field.message_type
    return False


def request(rpc: str, world: World, caller: Caller, probe: Probe) -> Message:
    """The request of a caller. All give the same request_id to the same probe."""
    message = GetMessageClass(methods()[rpc].input_type)()
    known = message.DESCRIPTOR.fields_by_name
    filled = {name: value for name, value in RULES[rpc].fill(world, caller).items() if name in known}
    message = type(message)(**filled)
    if "request_id" in known:
        message.request_id = str(uuid5(NAMESPACE_URL, f"{rpc} {probe}"))  # type: ignore[attr-defined]
    if probe.path:
        _put(message, probe.path, [world.id_of(name) for name in probe.names])
    return message


def _put(message: Message, path: Path, ids: Sequence[str]) -> None:
    """Write ids into a field, and take them out of every other field of their kind."""
    for other, field in id_fields(message.DESCRIPTOR):
        if KINDS.get(field.name) == KINDS[path[-1]] and other != path:
            for holder in _holders(message, other[:-1]):
                holder.ClearField(other[-1])
    _write(message, path, ids)


def _holders(message: Any, path: Path) -> Iterator[Message]:  # noqa: ANN401 # any message of the contract
    if not path:
        yield message
        return
    field = message.DESCRIPTOR.fields_by_name[path[0]]
    if field.is_repeated:
        below = list(getattr(message, path[0]))
    else:
        below = [getattr(message, path[0])] if message.HasField(path[0]) else []
    for each in below:
        yield from _holders(each, path[1:])


def _write(message: Any, path: Path, ids: Sequence[str]) -> None:  # noqa: ANN401
    name = path[0]
    field = message.DESCRIPTOR.fields_by_name[name]
    if len(path) == 1:
        message.ClearField(name)
        if field.is_repeated:
            getattr(message, name).extend(ids)
        else:
            setattr(message, name, ids[0])
    elif field.is_repeated:
        before = list(getattr(message, name)) or [GetMessageClass(field.message_type)()]
        message.ClearField(name)
        for each in ids:
            element = getattr(message, name).add()
            element.CopyFrom(before[0])
            _write(element, path[1:], [each])
    else:
        _write(getattr(message, name), path[1:], ids)


def asked(world: World, message: Message) -> Asked:
    """What a request names."""
    names = {world.id_of(name): name for kinds in _ASKED.values() for each in kinds for name in each}
    names |= {value.decode(): name for name, value in world.secrets().items()}
    found: dict[str, tuple[str, ...]] = {}
    for path, field in id_fields(message.DESCRIPTOR):
        kind = KINDS.get(field.name)
        if kind is None:
            continue
        for holder in _holders(message, path[:-1]):
            value = getattr(holder, path[-1])
            ids = list(value) if field.is_repeated else [value] if value else []
            found[kind] = (*found.get(kind, ()), *(names[each] for each in ids))
    return Asked(found)
