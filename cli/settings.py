"""Finds where the services are and who is calling: options first, then the environment, then the stack's own file."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from cli.exits import ExitCode, Failure
from cli.identities import token_for_person
from shared.settings import Address, Environment, SettingsError
from shared.tls import Transport
from stack.environment import read_environment
from stack.errors import StackError
from stack.state import DEFAULT, StateFolder


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command needs to know; `acts_as` is a person whom the stack's own key may speak for."""

    values: Mapping[str, str]
    json: bool
    token: str | None
    acts_as: str | None

    def address(self, service: str) -> Address:
        """Where a service such as "sender" is called."""
        name = f"{service.upper()}_ADDR"
        self._value(name)
        with _told():
            return Environment(self.values).address(name)

    def channel_credentials(self, service: str) -> grpc.ChannelCredentials | None:
        """What a channel to a service trusts and shows by the TLS_… files of services; None for plaintext."""
        with _told():
            transport = Transport.read(Environment(self.values))
            return transport.channel_credentials(f"{service.upper()}_ADDR", self.address(service))

    def bearer(self) -> str:
        """The token to call with: --token, else one made for --as, else BROADCAST_TOKEN."""
        if self.token:
            return self.token
        if self.acts_as:
            return token_for_person(self.acts_as)
        return self._value("BROADCAST_TOKEN")

    def _value(self, name: str) -> str:
        if not self.values.get(name):
            raise Failure(
                f"{name} is not set. Start the suite with `make run` in this folder, or export {name}.",
                ExitCode.USAGE,
            )
        return self.values[name]


def load(json: bool, token: str | None, acts_as: str | None) -> Settings:
    """The settings of this call; what the environment has wins over `.stack/env`."""
    return Settings({**_stack_values(), **os.environ}, json, token, acts_as)


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
