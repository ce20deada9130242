"""What `make chaos` calls: runs the harness and prints what it has found."""

import asyncio
import signal
import sys
import tempfile
from random import SystemRandom
from typing import Annotated

import typer

from tests.chaos.harness import run
from tests.chaos.terms import long, short


def main(
    minutes: Annotated[
        float, typer.Option(min=0, help="How long faults go on; 0 is once through all of them.")
    ] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Repeats a run; any without it.")] = None,
    recipients: Annotated[int, typer.Option(min=1_000, help="How many people a long run has.")] = 5_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Sends a second of a long run.")] = 5.0,
    keep: Annotated[bool, typer.Option(help="Keep the folder of a clean run too.")] = False,
) -> None:
    """Break the suite in every way there is, then look for what was lost, repeated or invented."""
    chosen = seed if seed is not None else SystemRandom().randrange(1_000_000)
    terms = long(chosen, minutes, recipients, rate) if minutes else short(chosen)
    print(f"chaos: seed {chosen}, data and logs below {tempfile.gettempdir()}", flush=True)
    # Whoever ends it early ends all that it has started, also what is paused just then.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    report = asyncio.run(run(terms, keep=keep))
    print("\n".join(report.lines()), flush=True)
    sys.exit(0 if report.is_clean else 1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app(prog_name="tests.chaos")
