"""What `make run`, `make reset` and `make migrate` call: the whole suite on this machine, from the command line."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from stack.environment import read_environment
from stack.errors import NoSpaceError, StackError, is_disk_full
from stack.provision import migrate_services
from stack.run import Stack
from stack.screen import Screen
from stack.services import groups
from stack.state import DEFAULT, StateFolder
from stack.world import MINIMUM_RECIPIENTS

app = typer.Typer(
    help="The whole suite on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
StateDir = Annotated[Path, typer.Option(help="Where data, logs and keys are kept.")]
Recipients = Annotated[int, typer.Option(min=0, help="How many people a new demo world has; 0 for none.")]
InboxProcesses = Annotated[
    int, typer.Option(envvar="STACK_INBOX_PROCESSES", min=1, max=64, help="Processes of the inbox.")
]


@app.command()
def run(
    state_dir: StateDir = DEFAULT, recipients: Recipients = 2000, inbox_processes: InboxProcesses = 1
) -> None:
    """Start everything and stay in the foreground; Ctrl-C stops all of it."""
    state, screen = StateFolder(state_dir.absolute()), Screen()
    with _told(screen, state.path), state.held():
        state.require_space()
        state.set_logs_aside()
        if 0 < recipients < MINIMUM_RECIPIENTS:
            raise StackError(
                f"{recipients} people make no demo world.",
                f"Ask for at least {MINIMUM_RECIPIENTS}, or for 0 for none.",
            )
        asyncio.run(Stack(state, screen, groups(inbox_processes), recipients).run())


@app.command()
def reset(state_dir: StateDir = DEFAULT) -> None:
    """Forget everything that a stack has kept in its folder; servers from outside keep what they have."""
    screen = Screen()
    with _told(screen, state_dir):
        StateFolder(state_dir.absolute()).clear()
        screen.say(f"Nothing is kept in {state_dir} any more.")


@app.command()
def env(state_dir: StateDir = DEFAULT) -> None:
    """Print the lines for a shell: addresses and the demo admin's token."""
    with _told(Screen(), state_dir):
        state = StateFolder(state_dir.absolute())
        read_environment(state.env)
        sys.stdout.write(state.env.read_text())


@app.command()
def migrate(state_dir: StateDir = DEFAULT) -> None:
    """Apply missing migrations to the running stack's database, or to DATABASE_URL."""
    screen = Screen()
    with _told(screen, state_dir):
        url = os.environ.get("DATABASE_URL") or read_environment(StateFolder(state_dir).env)["DATABASE_URL"]
        applied = asyncio.run(migrate_services(url))
        for service, names in applied.items():
            screen.say(f"{service}: {', '.join(names) if names else 'nothing to do'}")


@contextmanager
def _told(screen: Screen, folder: Path) -> Iterator[None]:
    """Tell a person what went wrong and what to do, instead of showing a trace."""
    try:
        yield
    except StackError as error:
        screen.failed(error)
        raise typer.Exit(1) from error
    except OSError as error:
        screen.failed(_explained(error, folder))
        raise typer.Exit(1) from error


def _explained(error: OSError, folder: Path) -> StackError:
    """What the operating system refused, and what to do. Raises the error itself when there is nothing to say."""
    if is_disk_full(error):
        return NoSpaceError(folder)
    if isinstance(error, PermissionError):
        return StackError(
            f"{error.filename} belongs to somebody else, or is closed to you.",
            "Run as the user who has started the stack here before, or choose another folder with --state-dir.",
        )
    raise error


if __name__ == "__main__":
    app(prog_name="stack")
