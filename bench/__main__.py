"""`python -m bench [scenario …]`: measures, prints tables, and keeps them in bench/results. FULL=1 runs longer.

Ends with 1 when a promise was not kept.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from rich.console import Console

from bench import (
    audience,
    create,
    delivery,
    inbox,
    isolation,
    live,
    memory,
    overload,
    policies,
    reconnect,
    release,
    schedule,
    stalled,
)
from bench.report import Result, show, write

Scenario = Callable[[bool, Console], Awaitable[Result]]
SCENARIOS: Final[Mapping[str, Scenario]] = {
    "delivery": delivery.run,
    "live": live.run,
    "inbox": inbox.run,
    "create": create.run,
    "isolation": isolation.run,
    "memory": memory.run,
    "audience": audience.run,
    "policies": policies.run,
    "overload": overload.run,
    "reconnect": reconnect.run,
    "stalled": stalled.run,
    "schedule": schedule.run,
    "release": release.run,
}

_WIDTH: Final = 200


def main() -> int:
    """Runs the scenarios named, or all; the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(SCENARIOS)}; all when none is named")
    chosen = parser.parse_args().scenario or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"there is no scenario {', '.join(unknown)}: name any of {', '.join(SCENARIOS)}")
    # In a file a table has all the room that it needs.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    full = os.environ.get("FULL") == "1"
    results = [_run(SCENARIOS[name], full, console) for name in chosen]
    broken = [bound for result in results for bound in result.bounds if not bound.is_met]
    if broken:
        console.print(f"{len(broken)} promises were not kept:")
    for bound in broken:
        console.print(f"  {bound}")
    return int(bool(broken))


def _run(scenario: Scenario, full: bool, console: Console) -> Result:
    async def measured() -> Result:
        return await scenario(full, console)

    result = asyncio.run(measured())
    show(result, console)
    console.print(f"kept in {write(result).name}\n")
    return result


if __name__ == "__main__":
    sys.exit(main())
