"""Finds where the services are and who is calling: options first, then the environment, then the stack's own file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cli.exits import ExitCode, Failure
from cli.identities import token_for_person
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

    def address(self, service: str) -> str:
        """The host:port of a service such as "sender"."""
        return self._value(f"{service.upper()}_ADDR")

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


def _stack_values() -> dict[str, str]:
    try:
        return read_environment(StateFolder(DEFAULT).env)
    except StackError:
        return {}
