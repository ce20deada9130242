"""Finds where the services are and who is calling: options first, then the environment, then the stack's own file."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from wedsync.broadcast.client import Addresses, Security, insecure

from cli.exits import ExitCode, Failure
from cli.identities import token_for_person
from shared.settings import Address, Environment, SettingsError
from shared.tls import Transport
from stack.environment import read_environment
from stack.errors import StackError
from stack.state import DEFAULT, StateFolder

SERVERS = ("sender", "inbox", "preferences", "dispatcher")


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command needs to know; with `acts_as`, a person whom the stack's own key may speak for, no `token`."""

    values: Mapping[str, str]
    json: bool
    token: str | None
    acts_as: str | None

    def addresses(self) -> Addresses:
        """Where the services are called, those that are known."""
        with _told():
            return Addresses(**{service: str(address) for service, address in self._addresses()})

    def security(self) -> Security:
        """What channels trust and show by the TLS_… files of services; plaintext only where those may have it."""
        with _told():
            transport = Transport.read(Environment(self.values))
            for service, address in self._addresses():
                credentials = transport.channel_credentials(_variable(service), address)
                if credentials is not None:
                    return credentials
        return insecure(mesh=transport.plaintext_allowed)

    def _addresses(self) -> Iterator[tuple[str, Address]]:
        environment = Environment(self.values)
        for service in SERVERS:
            address = environment.optional_address(_variable(service))
            if address is not None:
                yield service, address

    def bearer(self) -> str:
        """The token to call with: --token, or one made for --as; else BROADCAST_CALLER_TOKEN, else BROADCAST_TOKEN."""
        if self.token is not None:
            return self.token
        if self.acts_as is not None:
            return token_for_person(self.acts_as)
        return self.values.get("BROADCAST_CALLER_TOKEN") or self._value("BROADCAST_TOKEN")

    def _value(self, name: str) -> str:
        if not self.values.get(name):
            raise Failure(
                f"{name} is not set. Start the suite with `make run` in this folder, or export {name}.",
                ExitCode.USAGE,
            )
        return self.values[name]


def load(json: bool, token: str | None, acts_as: str | None) -> Settings:
    """The settings of this call; what the environment has wins over `.stack/env`, and an option over both.

    Raises Failure when the options do not say who is calling, so that nobody acts as somebody else unawares.
    """
    if token is not None and acts_as is not None:
        raise Failure(
            "Either --token or --as may be given, not both: each says who is calling.", ExitCode.USAGE
        )
    for option, value in (("--token", token), ("--as", acts_as)):
        if value == "":
            raise Failure(
                f"{option} must not be empty: leave it out to call as the environment says.", ExitCode.USAGE
            )
    return Settings({**_stack_values(), **os.environ}, json, token, acts_as)


def _variable(service: str) -> str:
    return f"{service.upper()}_ADDR"


@contextmanager
def _told() -> Iterator[None]:
    """A setting that breaks its rule is a command that is not whole."""
    try:
        yield
    except SettingsError as error:
        raise Failure(str(error), ExitCode.USAGE) from error


def _stack_values() -> dict[str, str]:
    try:
        return read_environment(StateFolder(DEFAULT).env)
    except StackError:
        return {}
