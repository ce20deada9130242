"""Mints development tokens with the stack's own key."""

from typing import Annotated

import typer

from cli import output
from cli.exits import ExitCode, Failure
from cli.identities import token_for_person, token_for_service


def token(
    user: Annotated[str | None, typer.Option(help="A user id, or a name of the demo.")] = None,
    service: Annotated[str | None, typer.Option(help="The name of a service account.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="A scope of the service account. Repeatable.")
    ] = None,
) -> None:
    """Print a development token for a person or a service account."""
    if (user is None) == (service is None) or (scope and not service):
        raise Failure("Give --user UUID, or --service NAME with --scope S.", ExitCode.USAGE)
    output.console.print_plain(
        token_for_person(user) if user else token_for_service(service or "", scope or [])
    )
