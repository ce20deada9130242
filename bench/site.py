"""Owns where a scenario is measured: a stack of its own, and an administrator's and a service's way in."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from stack.background import BackgroundStack
from stack.tokens import TokenMint

Metadata = tuple[tuple[str, str], ...]
READY_TIMEOUT_S: Final = 300.0
# What is measured is how broadcasts go out, to a million people too, and not how long somebody thinks about it.
_SETTINGS: Final = {"SENDER_APPROVAL_THRESHOLD": "1000000000"}


@contextmanager
def started(
    recipients: int,
    console: Console,
    *,
    settings: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[BackgroundStack]:
    """A stack with so many people that is gone afterwards.

    `settings` are variables for all its processes, `arguments` go to `stack run`, such as `--inbox-processes 2`.
    """
    stack = BackgroundStack(
        recipients,
        settings={**_SETTINGS, **(settings or {})},
        arguments=arguments,
        ready_timeout_s=READY_TIMEOUT_S,
    )
    with console.status(f"starting a stack with {recipients:,} recipients"):
        stack.__enter__()
        # What the scenario before has left for the kernel to write would be written in the middle of this one, while
        # somebody's commit waits.
        os.sync()
    try:
        yield stack
    finally:
        stack.stop()


def administrator(stack: BackgroundStack) -> Metadata:
    """The metadata of the demo administrator's calls."""
    return _bearer(stack.environment["BROADCAST_TOKEN"])


def service(stack: BackgroundStack, scopes: Sequence[str]) -> Metadata:
    """The metadata of a service account named `bench` with these scopes."""
    return _bearer(TokenMint.existing(stack.state.keys).mint_service_token("bench", list(scopes)))


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
