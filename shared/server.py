"""A gRPC server as every service runs it: its options, its address, health and reflection, and how it leaves."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self, TypeVar, cast

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from shared import event_loop, loopback
from shared.calls import CallLimits
from shared.doorstep import Doorstep
from shared.drain import DrainStep
from shared.errors import ServiceError
from shared.health import HealthMonitor
from shared.interceptors import NO_REPLAYS, NO_RULES, EdgeInterceptor
from shared.loopback import Loopback
from shared.methods import Handler, Replay
from shared.metrics import serve_metrics
from shared.rights import Right
from shared.settings import Address, Environment, SettingsError
from shared.tls import Transport
from shared.validation import Rules

log = structlog.get_logger(__name__)

# gRPC dies of a segmentation fault when the grace of one `stop` ends just as another has ended everything, which two
# that have the same time do now and then: so only one of them ever ends anything.
_NEVER_S: Final = 3_600.0

_Servicer = TypeVar("_Servicer")
# What sysexits.h calls EX_CONFIG: a supervisor need not try again before somebody has changed something.
_BAD_SETTINGS = 78
_YOUNG_OBJECTS = 10_000


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how one service is served. `pause_s` lets callers see NOT_SERVING before anything is refused."""

    prefix: str
    listen: Address
    metrics_listen: Address | None
    transport: Transport
    limits: CallLimits = field(default_factory=CallLimits)
    max_message_bytes: int = 4 << 20
    reuse_port: bool = False
    pause_s: float = 0.5
    finish_s: float = 10.0

    @classmethod
    def read(cls, env: Environment, prefix: str) -> Self:
        """Reads the variables that begin with `prefix`, such as SENDER: `_LISTEN`, `_METRICS_LISTEN` and the limits."""
        return cls(
            prefix=prefix,
            listen=env.address(f"{prefix}_LISTEN"),
            metrics_listen=env.optional_address(f"{prefix}_METRICS_LISTEN"),
            transport=Transport.read(env),
            limits=CallLimits.read(env, prefix),
            max_message_bytes=env.integer(
                f"{prefix}_MAX_MESSAGE_BYTES", 4 << 20, least=1 << 10, most=64 << 20
            ),
            reuse_port=env.flag(f"{prefix}_REUSE_PORT", default=False),
            pause_s=env.seconds(f"{prefix}_DRAIN_PAUSE_S", 0.5, least=0, most=60),
            finish_s=env.seconds(f"{prefix}_DRAIN_FINISH_S", 10.0, least=0, most=600),
        )


class GrpcServer:
    """One server: servicers are added, it starts, and two drain steps end it."""

    def __init__(self, settings: ServerSettings, edge: EdgeInterceptor, health: HealthMonitor) -> None:
        """Must be made within the event loop that will serve."""
        self._settings = settings
        self._edge = edge
        self._health = health
        self._services: list[str] = []
        self._stop_metrics: Callable[[], None] | None = None
        self._doorstep = Doorstep(edge, edge.traffic.calls.refusal, _options(settings))
        self._server = grpc.aio.server()
        # What it is made with has not begun anything.
        self._server._server = self._doorstep  # type: ignore[attr-defined]  # noqa: SLF001
        self._loopback = Loopback(self._server)
        edge.exempt(loopback.SERVICE, self._loopback.handlers, by_the_door=True)

    def add(
        self,
        register: Callable[[_Servicer, grpc.aio.Server], None],
        servicer: _Servicer,
        rights: Mapping[str, Right],
        replays: Mapping[str, Replay | None] = NO_REPLAYS,
        rules: Mapping[str, Rules] = NO_RULES,
    ) -> None:
        """Serves a servicer behind the edge; `register` is the generated `add_…Servicer_to_server`.

        By method: who may call it, what answers a repeated request (None for one that sees to it itself), and which
        rules its proto cannot state.
        """
        for service, handlers in _handlers(register, servicer).items():
            self._edge.protect(service, handlers, rights, replays, rules)
            self._services.append(service)

    async def start(self) -> Address:
        """Serves from here on, SERVING once the first health round is through; answers the address with its port."""
        self._expose(health_pb2_grpc.add_HealthServicer_to_server, self._health.servicer)
        names = (*self._services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        servicer = reflection.aio.ReflectionServicer(names)
        self._expose(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, servicer)
        address = self._bind()
        if self._settings.metrics_listen is not None:
            variable = f"{self._settings.prefix}_METRICS_LISTEN"
            self._stop_metrics = serve_metrics(variable, self._settings.metrics_listen)
        await self._health.start(self._services)
        self._doorstep.set_apart(self._edge.set_apart())
        await self._server.start()
        self._edge.traffic.calls.measure_by(self._loopback.ask)
        log.info("serving", listen=str(address), services=self._services)
        return address

    def leave(self) -> DrainStep:
        """The first step of the end: health says NOT_SERVING, and callers get a moment to see it."""

        async def run() -> None:
            await self._health.leave()
            await asyncio.sleep(self._settings.pause_s)

        return DrainStep("leave", run, self._settings.pause_s + 5)

    def finish_calls(self) -> DrainStep:
        """The step that refuses new calls, lets those that run finish, and ends what is left after `finish_s`."""

        async def run() -> None:
            stopping = asyncio.create_task(self._server.stop(_NEVER_S))
            # Health watchers never finish of themselves; only the edge's calls are worth waiting for.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._edge.traffic.wait_until_idle(), self._settings.finish_s)
            await self._edge.traffic.calls.close()
            await self._loopback.close()
            await self._server.stop(None)
            await stopping
            if self._stop_metrics is not None:
                await asyncio.to_thread(self._stop_metrics)

        return DrainStep("finish_calls", run, self._settings.finish_s + 5)

    def _expose(self, register: Callable[[_Servicer, grpc.aio.Server], None], servicer: _Servicer) -> None:
        for service, handlers in _handlers(register, servicer).items():
            self._edge.exempt(service, handlers)

    def _bind(self) -> Address:
        listen, variable = self._settings.listen, f"{self._settings.prefix}_LISTEN"
        credentials = self._settings.transport.server_credentials(variable, listen)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(str(listen))
            else:
                port = self._server.add_secure_port(str(listen), credentials)
        except RuntimeError as error:
            raise SettingsError(f"{variable}: {_why_not(listen)}") from error
        return Address(listen.host, port)


def settle_memory() -> None:
    """What a process holds once it serves, it keeps: looking through that for garbage would stop all calls meanwhile.

    A full collection takes 60 ms in a process that has just started. What comes later is collected as ever, only in
    larger portions, because a call leaves hardly anything that is not gone by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def run_service(main: Callable[[], Awaitable[int]]) -> NoReturn:
    """Runs a service's `main` to its exit code; settings that cannot be served with end it with one clear line."""

    async def run() -> int:
        return await main()

    try:
        code = event_loop.run(run())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        code = _BAD_SETTINGS
    except ServiceError as error:
        # Something that it cannot start without is not there yet: a supervisor tries again.
        sys.stderr.write(f"{error}\n")
        code = 1
    except KeyboardInterrupt:
        # Ctrl-C before there was anything to drain.
        code = 128 + signal.SIGINT
    sys.exit(code)


class _HandlerCollector:
    """Stands in for a server while generated code registers a servicer, and keeps the handlers for the edge.

    The real server has the edge alone. It also does not learn the names in advance, because for each name that it
    does it holds a task, and looks through all of them at every call (35 µs a call with 17 methods, measured).
    """

    def __init__(self) -> None:
        self.services: dict[str, Mapping[str, Handler]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """The same handlers come by name as well."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Keeps them."""
        self.services[service_name] = method_handlers


def _handlers(
    register: Callable[[_Servicer, grpc.aio.Server], None], servicer: _Servicer
) -> dict[str, Mapping[str, Handler]]:
    collector = _HandlerCollector()
    register(servicer, cast(grpc.aio.Server, collector))
    return collector.services


def _options(settings: ServerSettings) -> list[tuple[str, Any]]:
    return [
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # A peer that vanished without a word holds its streams until a ping stays unanswered.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


def _why_not(address: Address) -> str:
    """Why an address cannot be listened on, found out by trying: gRPC keeps the reason to itself."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{address} is in use by another process; stop it, or choose another port."
        return f"cannot listen on {address}: {error.strerror}."
    return f"cannot listen on {address}."
