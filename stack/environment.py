"""Owns the `env` file of a stack: the addresses and the login that a person's shell and the `broadcast` command use."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.credentials import write_private
from stack.errors import StackError

OWN_URLS = "STACK_OWN_URLS"
"""Set by the file itself: the variables in it that name servers which that stack runs, and which end with it."""


def write_environment(path: Path, variables: Mapping[str, str], own_urls: Sequence[str]) -> None:
    """Write the lines for a shell. `own_urls` are of servers that this stack runs itself."""
    everything = {**variables, OWN_URLS: " ".join(own_urls)} if own_urls else dict(variables)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in everything.items()]
    write_private(path, "# Written by `make run`; source it.\n" + "".join(lines))


def read_environment(path: Path) -> dict[str, str]:
    """The variables in the file. Raises StackError when no stack has written one."""
    try:
        words = shlex.split(path.read_text(), comments=True)
    except FileNotFoundError as error:
        raise StackError(f"There is no {path}.", "Start the stack first: `make run`.") from error
    return dict(word.split("=", 1) for word in words if "=" in word)
