"""The edge of every server: it stands before every call, and lets it in only through a method that it protects."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import grpc
import structlog
from google.protobuf import descriptor_pool
from typing_extensions import override

from shared.auth import TokenVerifier
from shared.calls import CallLimits, Traffic
from shared.methods import Gate, Handler, ProtectedMethod, Replay, UnknownMethod
from shared.rights import INTERNAL, Right, RoleOf, rights_gap
from shared.validation import Rules
from shared.wall_refusals import WallRefusals

log = structlog.get_logger(__name__)

NO_REPLAYS: Mapping[str, Replay | None] = MappingProxyType({})
NO_RULES: Mapping[str, Rules] = MappingProxyType({})
_NOBODY = Right()


class EdgeInterceptor(grpc.GenericRpcHandler):
    """Serves what `protect` and `exempt` took in, and refuses whatever else is called.

    It intercepts every call by being the only handler of its server: gRPC's own kind of interceptor costs each call
    30 µs more, measured.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        role_of: RoleOf | None = None,
        limits: CallLimits | None = None,
        refusals: WallRefusals | None = None,
    ) -> None:
        """`role_of` looks a person's role up in the directory; needed when a right names roles.

        `refusals` hears of every call from outside that is refused at a wall.
        """
        self.traffic = Traffic(limits or CallLimits())
        self._gate = Gate(verifier, role_of, self.traffic, refusals)
        self._can_look_up_roles = role_of is not None
        self._handlers: dict[str, Handler] = {}
        self._outside_calls: set[str] = set()
        self._outside_streams: set[str] = set()
        self._unknown = UnknownMethod(self._gate).handler()

    def protect(
        self,
        service: str,
        handlers: Mapping[str, Handler],
        rights: Mapping[str, Right],
        replays: Mapping[str, Replay | None] = NO_REPLAYS,
        rules: Mapping[str, Rules] = NO_RULES,
    ) -> None:
        """Takes in a service by its full name: every method of its descriptor, those without a right for nobody.

        A method whose calls may have a request_id must be among `replays`: with None when it finds their first answers
        itself, where it does its work. ValueError when one is missing.
        """
        descriptor = descriptor_pool.Default().FindServiceByName(service)
        gap = rights_gap(descriptor, rights)
        if gap:
            log.error("rights_do_not_match", rpc_service=service, missing=gap.missing, unknown=gap.unknown)
        for method in descriptor.methods:
            right = rights.get(method.name, _NOBODY)
            if right.needs_role and not self._can_look_up_roles:
                raise ValueError(
                    f"the right to call {method.full_name} names roles, and nothing looks them up"
                )
            name = method.name
            protected = ProtectedMethod(
                self._gate, method, handlers[name], right, replays.get(name), rules.get(name)
            )
            if protected.is_repeatable and name not in replays:
                raise ValueError(f"{method.full_name} takes a request_id, and nothing answers a repeated one")
            path = f"/{service}/{name}"
            self._handlers[path] = protected.handler()
            if right != INTERNAL:
                is_stream = method.client_streaming or method.server_streaming
                (self._outside_streams if is_stream else self._outside_calls).add(path)

    def exempt(self, service: str, handlers: Mapping[str, Handler], *, by_the_door: bool = False) -> None:
        """Takes in a service that anybody may call, as it is: health and reflection; `by_the_door` like any other."""
        taken_in = {f"/{service}/{name}": handler for name, handler in handlers.items()}
        self._handlers |= taken_in
        if by_the_door:
            self._outside_calls |= taken_in.keys()

    def set_apart(self) -> Iterator[str]:
        """The paths of all methods but those whose calls come from outside: the door for calls is not for these."""
        return (path for path in self._handlers if path not in self._outside_calls)

    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """The method behind its edge; a name that was not taken in is refused like any other call, token first."""
        method = handler_call_details.method
        if method in self._outside_streams and (refusal := self.traffic.streams.refusal()) is not None:
            return refusal.handler()
        return self._handlers.get(method, self._unknown)
