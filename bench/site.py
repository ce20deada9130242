"""Owns where a scenario is measured: a stack of its own, and the ways in of an administrator and of services."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from stack.background import BackgroundStack
from stack.tokens import USER_TOKEN_LIFETIME_S, TokenMint

Metadata = tuple[tuple[str, str], ...]
READY_TIMEOUT_S: Final = 300.0
_NAME: Final = "bench"
_SETTINGS: Final = {
    # Limits hold for a benchmark too, so it is an account that may send as much as it measures.
    "SENDER_SERVICE_QUOTAS": f"{_NAME}:*=1000000,1000000",
    # What is measured is how broadcasts go out, to a million people too, and not how long somebody thinks about it.
    "SENDER_APPROVAL_THRESHOLD": "1000000000",
}


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
        settings=_SETTINGS | dict(settings or {}),
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
    mint = TokenMint.existing(stack.state.keys)
    return _bearer(mint.mint_service_token(_NAME, list(scopes), USER_TOKEN_LIFETIME_S))


def mailer(stack: BackgroundStack) -> Metadata:
    """The metadata of an account that may send broadcasts, and many of them."""
    return service(stack, ["broadcast.send"])


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
