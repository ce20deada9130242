"""Finds the highest rate of calls that is sustained, beside a bare echo that the same process calls in the same run."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench import echo
from bench.generator import Generator, Load, Probe

ECHO: Final = "echo"
TRIES: Final = 3
_GROWTH: Final = 1.25
_HALVINGS: Final = 2


@asynccontextmanager
async def generator_beside_echo(loads: Mapping[str, Load]) -> AsyncIterator[Generator]:
    """The process that calls, with the echo's among the loads."""
    peer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.echo", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    if peer.stdin is None or peer.stdout is None:
        raise RuntimeError("the echo was started without pipes")
    port = int(await peer.stdout.readline())
    with tempfile.TemporaryDirectory(prefix="wedsync-bench-") as folder:
        whole = {ECHO: Load(f"127.0.0.1:{port}", echo.METHOD, [("", b"")]), **loads}
        generator = await Generator.start(whole, Path(folder))
        try:
            yield generator
        finally:
            await generator.stop()
            peer.stdin.close()
            await peer.wait()


async def climb(generator: Generator, name: str, rate: float, seconds: float, limit_ms: float) -> Probe:
    """The highest rate with p99 ≤ `limit_ms`: up by a quarter until one is not, then halving what is between."""
    while (best := await hold(generator, name, rate, seconds, limit_ms)).p99_ms > limit_ms:
        rate /= _GROWTH**2
    while (probe := await hold(generator, name, best.rate * _GROWTH, seconds, limit_ms)).p99_ms <= limit_ms:
        best = probe
    too_much = probe.rate
    for _ in range(_HALVINGS):
        probe = await hold(generator, name, (best.rate + too_much) / 2, seconds, limit_ms)
        if probe.p99_ms <= limit_ms:
            best = probe
        else:
            too_much = probe.rate
    return best


async def hold(generator: Generator, name: str, rate: float, seconds: float, limit_ms: float) -> Probe:
    """A rate, again if it was not sustained: a disk that stops for a moment says nothing about the rate."""
    probe = await generator.probe(name, rate, seconds)
    for _ in range(TRIES - 1):
        if probe.p99_ms <= limit_ms:
            break
        probe = await generator.probe(name, rate, seconds)
    return probe
