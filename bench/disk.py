"""Waits for the disk to be calm before anything is measured, and says how long it takes to make a write durable."""

import asyncio
import os
import tempfile
from pathlib import Path
from time import perf_counter, sleep
from typing import Final

from bench.report import Summary, summarize

_PAGE: Final = bytes(8192)
_WRITES: Final = 200
_EVERY_S: Final = 0.005
_CALM_P99_MS: Final = 20.0
_PATIENCE_S: Final = 60.0


async def calm(folder: Path) -> Summary:
    """Return once nearly all small writes are on disk within 20 ms, or after a minute; what the last ones took.

    What was loaded before a measurement is written for a good while after it, and a write that waits behind that is
    not what is measured.
    """
    deadline = perf_counter() + _PATIENCE_S
    while True:
        found = await asyncio.to_thread(_probe, folder)
        if found.p99 <= _CALM_P99_MS or perf_counter() > deadline:
            return found
        await asyncio.sleep(1.0)


def _probe(folder: Path) -> Summary:
    """Milliseconds of writes of a page, each made durable, one after the other."""
    took_ms = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(_PAGE)
        os.fsync(file.fileno())
        for _ in range(_WRITES):
            started = perf_counter()
            os.pwrite(file.fileno(), _PAGE, 0)
            os.fdatasync(file.fileno())
            took_ms.append((perf_counter() - started) * 1e3)
            sleep(_EVERY_S)
    return summarize(took_ms)
