"""Whole services behind certificates made on the spot, by nothing but their settings: who is heard, and who is not."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from wedsync.broadcast.v1 import common_pb2, directory_pb2, sender_pb2
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from shared.channels import ServiceChannel, open_channel
from shared.errors import DependencyUnavailable
from shared.health import check_serving
from shared.settings import Address
from shared.tls import Transport
from stack.nats import NatsAccess
from stack.ports import Ports
from stack.processes import Program, RunningProgram, spawn
from stack.provision import provision_streams
from stack.services import ServiceProcess, Surroundings
from stack.state import CHECKOUT
from stack.tokens import TokenMint
from tests.conftest import MakeSuite
from tests.integration.shared.certificates import Authority, variables
from tests.integration.shared.polling import until_equal

MISCONFIGURED = 78
SEND = sender_pb2.SendBroadcastRequest(
    type="feature.released", title="t", message="m", targeting=common_pb2.Targeting(everyone=True)
)


@dataclass(slots=True)
class Site:
    """Sender and preferences as processes, each with a certificate of its own by one authority."""

    folder: Path
    authority: Authority
    mint: TokenMint
    surroundings: Surroundings
    running: list[RunningProgram] = field(default_factory=list)

    def address(self, service: str) -> Address:
        """Where a service is called."""
        return Address.parse(self.surroundings.addresses()[f"{service.upper()}_ADDR"])

    def environment(self, service: str, transport: Transport | None = None) -> dict[str, str]:
        """What a service is started with; these files instead of its own."""
        shown = variables(transport or self.authority.transport(service))
        return self.surroundings.environment(ServiceProcess(service, service, service)) | shown

    def start(self, service: str, environment: Mapping[str, str]) -> RunningProgram:
        """Start a service; it is ended with the test."""
        command = (sys.executable, "-m", f"services.{service}.main")
        process = spawn(Program(service, command, environment, CHECKOUT, self.folder / f"{service}.log"))
        self.running.append(process)
        return process

    def call(self, service: str, transport: Transport) -> ServiceChannel:
        """A channel of a service account that may send and write the directory."""
        token = self.mint.mint_service_token(
            "billing", ["broadcast.send", "directory.write", "directory.read"]
        )
        return open_channel(service, self.address(service), transport, lambda: token, speaks_for_user=True)

    async def serves(self, service: str, transport: Transport) -> bool:
        """Whether a service says to somebody with these files that it serves."""
        async with self.call(service, transport) as channel:
            return await _answers(channel)


async def _answers(channel: ServiceChannel) -> bool:
    try:
        await check_serving(channel)
    except DependencyUnavailable:
        return False
    return True


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_suite: MakeSuite,
    nats_server: NatsAccess,
    valkey_server: str,
) -> AsyncIterator[Site]:
    """Both services, running, with one person in the directory."""
    folder = tmp_path_factory.mktemp("mtls")
    await provision_streams(nats_server)
    mint = TokenMint(folder)
    for service in ("sender", "preferences"):
        mint.write_service_token(service, ["internal"], folder)
    surroundings = Surroundings(
        database=await make_suite(),
        nats=nats_server,
        redis_url=valkey_server,
        jwks=mint.jwks,
        tokens=folder,
        logs=folder,
        ports=Ports(folder / "ports.json"),
    )
    site = Site(folder, Authority(folder), mint, surroundings)
    for service in ("preferences", "sender"):
        site.start(service, site.environment(service))
    caller = site.authority.transport("caller")
    for service in ("preferences", "sender"):
        await until_equal(True, lambda service=service: site.serves(service, caller))
    async with site.call("preferences", caller) as channel:
        somebody = directory_pb2.Recipient(
            user_id=str(uuid4()),
            display_name="Ada",
            role="venue",
            user_type=directory_pb2.USER_TYPE_SUPPLIER,
            tier="free",
            time_zone="UTC",
        )
        request = directory_pb2.UpsertRecipientsRequest(recipients=[somebody])
        await DirectoryServiceStub(channel).UpsertRecipients(request)
    yield site
    for process in site.running:
        process.kill()


async def test_services_reach_each_other_by_the_certificates_of_their_settings(site: Site) -> None:
    """A send is counted by the directory before it is accepted, so the sender has called it as the caller has both."""
    async with site.call("sender", site.authority.transport("caller")) as channel:
        assert (await SenderServiceStub(channel).SendBroadcast(SEND)).targeted_users == 1


@pytest.mark.parametrize("service", ["sender", "preferences"])
async def test_nobody_else_gets_as_far_as_a_token(site: Site, tmp_path: Path, service: str) -> None:
    """Not in the clear, not without a certificate, not with one of another authority, and not if it is not ours."""
    another = Authority(tmp_path)
    foreign = another.transport("caller")
    ours = site.authority.path
    assert await site.serves(service, site.authority.transport("caller"))
    for transport in (
        Transport(),
        Transport(authority=ours),
        Transport(certificate=foreign.certificate, key=foreign.key, authority=ours),
        foreign,
    ):
        assert not await site.serves(service, transport)


async def test_a_service_of_another_authority_is_a_stranger_to_the_others(site: Site, tmp_path: Path) -> None:
    """It runs and is called, but the directory does not hear it, so nothing can be sent through it."""
    foreign = Authority(tmp_path).transport("sender")
    # It trusts ours, who do not trust it.
    shown = Transport(foreign.certificate, foreign.key, site.authority.path)
    address = Address("127.0.0.1", site.surroundings.ports.choose("foreign-sender"))
    changes = {"SENDER_LISTEN": str(address), "SENDER_METRICS_LISTEN": ""}
    site.start("sender", site.environment("sender", shown) | changes)
    caller = site.authority.transport("caller")
    token = site.mint.mint_service_token("billing", ["broadcast.send"])
    trusting = Transport(caller.certificate, caller.key, tmp_path / "authority.pem")
    async with open_channel("sender", address, trusting, lambda: token, speaks_for_user=True) as channel:
        await until_equal(True, lambda: _answers(channel))
        with pytest.raises(DependencyUnavailable):
            await SenderServiceStub(channel).SendBroadcast(SEND)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"SENDER_LISTEN": "0.0.0.0:5001"}, "SENDER_LISTEN: 0.0.0.0:5001 is not a loopback address"),
        (
            {"PREFERENCES_ADDR": "preferences:5002"},
            "PREFERENCES_ADDR: preferences:5002 is not a loopback address",
        ),
        ({"TLS_CA_FILE": "/nowhere.pem"}, "TLS_CA_FILE must be a file that can be read"),
    ],
)
async def test_nothing_crosses_a_network_in_the_clear_by_mistake(
    site: Site, changes: Mapping[str, str], named: str
) -> None:
    """A service without certificates that would listen on a network, or call over one, does not start and says why."""
    environment = site.environment("sender", Transport()) | changes
    process = site.start("sender", environment)
    async with asyncio.timeout(20):
        assert await process.exited() == MISCONFIGURED
    assert named in process.log_tail()


async def test_a_container_finds_out_how_its_own_service_is(site: Site, tmp_path: Path) -> None:
    """Whatever host its certificate is for, by the same settings; a stranger is told nothing."""
    own = site.environment("sender", site.authority.transport("probe", host="sender.example"))
    port = site.surroundings.ports.choose("probed-sender")
    named = {"SENDER_LISTEN": f"127.0.0.1:{port}", "SENDER_METRICS_LISTEN": ""}
    site.start("sender", own | named)

    async def probe(environment: Mapping[str, str]) -> int:
        command = (sys.executable, "-m", "shared.health_probe", "SENDER_LISTEN")
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(environment), cwd=CHECKOUT, stdout=DEVNULL, stderr=DEVNULL
        )
        return await process.wait()

    await until_equal(0, lambda: probe(own | named))
    assert await probe(own | named | variables(Authority(tmp_path).transport("probe"))) == 1


async def test_the_command_line_shows_its_certificate(site: Site) -> None:
    """By the settings that services have; without them it is not heard."""

    async def code(settings: Mapping[str, str]) -> int:
        environment = {
            "PATH": os.environ["PATH"],
            **site.surroundings.addresses(),
            "BROADCAST_TOKEN": site.mint.mint_service_token("billing", ["directory.read"]),
            **settings,
        }
        command = (sys.executable, "-m", "cli.main", "directory", "show", str(uuid4()))
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=CHECKOUT, stdout=DEVNULL, stderr=DEVNULL
        )
        return await process.wait()

    # Nobody is known by that id, which only who is heard is told.
    assert await code(variables(site.authority.transport("caller"))) == 5
    assert await code({}) == 8
    assert await code({"PREFERENCES_ADDR": "preferences.example:5002"}) == 2
