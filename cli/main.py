"""Puts the `broadcast` command together: global options, command groups, and one place where failures end."""

import sys
from typing import Annotated

import typer

from cli import (
    admin,
    arranging,
    audit,
    broadcasts,
    demo,
    directory,
    inbox,
    output,
    preferences,
    privacy,
    quotas,
    receipts,
    reports,
    segments,
    tokens,
)
from cli.exits import ExitCode, Failure
from cli.settings import load

app = typer.Typer(
    help="Send broadcasts, read inboxes, set preferences. Starts from `.stack/env` or the environment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
broadcasts.register(app)
reports.register(app)
app.command("quota")(quotas.quota)
app.command("receipts")(receipts.receipts)
arranging.register(inbox.app)
app.add_typer(inbox.app, name="inbox")
app.add_typer(preferences.app, name="prefs")
app.add_typer(directory.app, name="directory")
app.add_typer(segments.app, name="segments")
app.add_typer(privacy.app, name="privacy")
app.add_typer(audit.app, name="audit")
app.add_typer(admin.app, name="admin")
app.command("token")(tokens.token)
app.command("demo")(demo.demo)


@app.callback()
def root(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of tables.")] = False,
    token: Annotated[
        str | None,
        typer.Option(help="Call with this token, whatever BROADCAST_CALLER_TOKEN or BROADCAST_TOKEN is."),
    ] = None,
    acts_as: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Call as this person of the demo (admin, photographer, …) or user id, instead of with a token.",
        ),
    ] = None,
) -> None:
    """Global options come before the command."""
    context.obj = load(json, token, acts_as)


def main() -> None:
    """The console script: exit codes are those of cli.exits."""
    try:
        app()
    except Failure as failure:
        output.print_failure(failure, as_json="--json" in sys.argv[1:])
        sys.exit(failure.code)
    except SystemExit as end:
        if _is_unread_help(end):
            sys.exit(ExitCode.OK)
        raise


def _is_unread_help(end: SystemExit) -> bool:
    """Whether typer ends so because nobody reads what it prints by itself, and has nothing to complain of."""
    broken = end.__context__
    return isinstance(broken, BrokenPipeError) and broken.__context__ is None


if __name__ == "__main__":
    main()
