"""Owns starting a measuring process of its own, asked by lines on its stdin and answering by lines on its stdout."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

# A line tells of every call of an offer.
_LONGEST_LINE: Final = 64 << 20


async def start(module: str, plan: Mapping[str, object], folder: Path) -> asyncio.subprocess.Process:
    """Runs `python -m module PLAN`: a file in `folder`, for its own eyes, because a plan may hold tokens."""
    path = folder / f"{module}-{uuid4()}.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(plan))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
