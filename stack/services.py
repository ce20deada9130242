"""Owns the table of the suite's processes, and what each is told when it is started."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack import ports
from stack.nats import NatsAccess
from stack.permissions import SERVICES
from stack.ports import LOOPBACK, Ports
from stack.processes import Program, RunningProgram, spawn
from stack.provision import SuiteDatabase
from stack.state import CHECKOUT
from stack.tokens import AUDIENCE, ISSUER

_STOP_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 1.0
# What a process needs from the shell it was started in, and settings that a developer may add there. Everything else
# stays out: a service must not see the administrator's login.
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "BROADCAST_FAILPOINTS", "LOG_FORMAT")
_PASSED_ON_PREFIXES = (
    "LC_",
    "PYTHON",
    "COVERAGE_",
    "GRPC_",
    *(f"{service.upper()}_" for service in SERVICES),
)


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """One process of a service; `port` is the name of the port it listens on, which several may share."""

    name: str
    service: str
    port: str
    settings: Mapping[str, str] = field(default_factory=dict)
    niceness: int = 0
    module: str = "services.{service}.main"

    def choose_ports(self, ports: Ports) -> tuple[int, int]:
        """The ports that it serves on and shows its figures on. Raises PortInUseError for a fixed one that is taken."""
        return ports.choose(self.port), ports.choose(f"{self.name}-metrics")


def groups(inbox_processes: int) -> Sequence[Sequence[ServiceProcess]]:
    """The table, in the order of start: each group stops after those below it.

    The lanes that may wait run in a process of their own, which gets what the urgent ones leave. Processes of the
    inbox share one port, and the kernel spreads the streams over them.
    """
    shared = {"INBOX_REUSE_PORT": "1"} if inbox_processes > 1 else {}
    more = (ServiceProcess(f"inbox-{n}", "inbox", "inbox", shared) for n in range(2, inbox_processes + 1))
    return (
        (ServiceProcess("preferences", "preferences", "preferences"),),
        (ServiceProcess("inbox", "inbox", "inbox", shared), *more),
        (
            ServiceProcess("sender", "sender", "sender"),
            ServiceProcess("dispatcher", "dispatcher", "dispatcher", {"DISPATCHER_LANES": "critical,high"}),
            ServiceProcess(
                "dispatcher-bulk",
                "dispatcher",
                "dispatcher-bulk",
                {"DISPATCHER_LANES": "normal,low"},
                niceness=10,
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all processes share: the servers, the keys, the addresses."""

    database: SuiteDatabase
    nats: NatsAccess
    redis_url: str
    jwks: Path
    tokens: Path
    logs: Path
    ports: Ports

    def addresses(self) -> dict[str, str]:
        """Where each service is called: `SENDER_ADDR` and so on."""
        return {f"{service.upper()}_ADDR": f"{LOOPBACK}:{self.ports.choose(service)}" for service in SERVICES}

    def environment(self, process: ServiceProcess) -> dict[str, str]:
        """Every variable that a process is started with."""
        name = process.service.upper()
        port, metrics_port = process.choose_ports(self.ports)
        return {
            **_passed_on(),
            **self.addresses(),
            **self.database.environment(process.service),
            **self._nats(process.service),
            "REDIS_URL": self.redis_url,
            "AUTH_JWKS": str(self.jwks),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            f"{name}_SERVICE_TOKEN_FILE": str(self.tokens / f"{process.service}.jwt"),
            f"{name}_LISTEN": f"{LOOPBACK}:{port}",
            f"{name}_METRICS_LISTEN": f"{LOOPBACK}:{metrics_port}",
            # Nobody but this machine calls, so there is nobody to wait for when it ends.
            f"{name}_DRAIN_PAUSE_S": "0.1",
            f"{name}_DRAIN_FINISH_S": "3",
            "PYTHONUNBUFFERED": "1",
            **process.settings,
        }

    def _nats(self, service: str) -> dict[str, str]:
        login = {}
        if service in self.nats.passwords:
            name = service.upper()
            login = {f"{name}_NATS_USER": service, f"{name}_NATS_PASSWORD": self.nats.passwords[service]}
        return {"NATS_URL": self.nats.url, **login}


class ServiceServer:
    """A process of the table, started with its surroundings."""

    def __init__(self, process: ServiceProcess, surroundings: Surroundings) -> None:
        self.name = process.name
        environment = surroundings.environment(process)
        self._address = environment[f"{process.service.upper()}_LISTEN"]
        self._metrics = environment[f"{process.service.upper()}_METRICS_LISTEN"]
        self._program = Program(
            name=process.name,
            command=(sys.executable, "-m", process.module.format(service=process.service)),
            environment=environment,
            folder=CHECKOUT,
            log=surroundings.logs / f"{process.name}.log",
            niceness=process.niceness,
            stop_timeout_s=_STOP_TIMEOUT_S,
        )

    def spawn(self) -> RunningProgram:
        """Start the process."""
        return spawn(self._program)

    def is_ready(self) -> bool:
        """Whether its health service says that it can serve.

        Of processes that share a port any may answer, so each must also have opened its own port for metrics.
        """
        if ports.is_free(int(self._metrics.rpartition(":")[2])):
            return False
        with grpc.insecure_channel(self._address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=_PROBE_TIMEOUT_S
                )
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _passed_on() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
