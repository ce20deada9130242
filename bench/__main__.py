"""`python -m bench [scenario …]`: measures, prints tables, and keeps them in bench/results. FULL=1 runs longer."""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable

from rich.console import Console

from bench import delivery

SCENARIOS: dict[str, Callable[[bool, Console], Awaitable[None]]] = {delivery.SCENARIO: delivery.run}


def main() -> None:
    """Runs the scenarios named, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help=", ".join(SCENARIOS))
    chosen = parser.parse_args().scenario or list(SCENARIOS)
    console = Console(highlight=False)
    for name in chosen:
        asyncio.run(_run(SCENARIOS[name], console))


async def _run(scenario: Callable[[bool, Console], Awaitable[None]], console: Console) -> None:
    await scenario(os.environ.get("FULL") == "1", console)


if __name__ == "__main__":
    main()
