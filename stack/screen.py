"""What a person sees while the stack starts, runs and stops."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack.errors import StackError

_FIRST_COMMANDS = (
    ("demo", "the main story in a minute"),
    ("--as photographer inbox list", "what one of them received"),
    ("--help", "everything else"),
)


class Screen:
    """Writes progress for people: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        """`console` is standard output unless a test listens in."""
        self._console = console or Console(highlight=False)

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show what is being done, then that it is done and how long it took; called, it shows how far it is."""
        started, shown = time.monotonic(), text
        with self._console.status(text) as status:

            def tell(how_far: str) -> None:
                nonlocal shown
                shown = f"{text}: {how_far}"
                status.update(shown)

            yield tell
        self._console.print(f"[green]✓[/green] {shown} [dim]{time.monotonic() - started:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """One line of news."""
        self._console.print(escape(text))

    def restarting(self, name: str, code: int, pause_s: float) -> None:
        """A process has ended by itself."""
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self._console.print(f"[yellow]![/yellow] {name} {ended}; starting it again in {pause_s:.1f} s")

    def failed(self, error: StackError) -> None:
        """What went wrong, and what to do."""
        self._console.print(f"[red]✗[/red] {escape(error.problem)}", soft_wrap=True)
        self._console.print(error.remedy, markup=False, soft_wrap=True)

    def ready(self, addresses: Mapping[str, str], env: Path, logs: Path) -> None:
        """Where everything is, and what to type first."""
        command = _from_here(Path(sys.executable).with_name("broadcast"))
        places = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in {**addresses, "logs": _from_here(logs)}.items():
            places.add_row(name, value)
        hints = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        hints.add_column(no_wrap=True)
        for arguments, meaning in _FIRST_COMMANDS:
            hints.add_row(f"[bold]{command} {arguments}[/bold]", f"[dim]{meaning}[/dim]")
        self._console.print()
        self._console.print(places)
        self._console.print(f"\nIn another terminal: [bold]source {_from_here(env)}[/bold], then")
        self._console.print(hints)
        self._console.print("\nCtrl-C stops everything.")


def _from_here(path: Path) -> str:
    """A path as one would type it in this folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
