"""What a person sees while the stack starts, runs and stops."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stack.errors import StackError


class Screen:
    """Writes progress for people: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show what is being done, then that it is done and how long it took; called, it shows how far it is."""
        started = time.monotonic()
        with self._console.status(text) as status:
            yield lambda how_far: status.update(f"{text}: {how_far}")
        self._console.print(f"[green]✓[/green] {text} [dim]{time.monotonic() - started:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """One line of news."""
        self._console.print(text)

    def restarting(self, name: str, code: int, pause_s: float) -> None:
        """A process has ended by itself."""
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self._console.print(f"[yellow]![/yellow] {name} {ended}; starting it again in {pause_s:.1f} s")

    def failed(self, error: StackError) -> None:
        """What went wrong, and what to do."""
        self._console.print(f"[red]✗[/red] {error.problem}", markup=True, soft_wrap=True)
        self._console.print(error.remedy, markup=False, soft_wrap=True)

    def ready(self, addresses: Mapping[str, str], env: Path, logs: Path) -> None:
        """Where everything is, and what to type first."""
        table = Table(show_header=False, box=None, padding=(0, 2))
        for name, value in addresses.items():
            table.add_row(name, value)
        table.add_row("logs", str(logs))
        self._console.print(table)
        self._console.print(f"\nIn another terminal: [bold]source {env}[/bold], then")
        for command, meaning in _FIRST_COMMANDS:
            self._console.print(f"  [bold]{command}[/bold]  [dim]{meaning}[/dim]")
        self._console.print("\nCtrl-C stops everything.")


_FIRST_COMMANDS = (
    ("broadcast demo", "the main story in a minute, with three inboxes filling live"),
    ("broadcast inbox list", "what the demo admin has received"),
    ("broadcast --help", "everything else"),
)
