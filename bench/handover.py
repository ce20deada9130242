"""Owns what measuring processes share: how they start, ask and answer by lines, and how a request is made new."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

# A line tells of every call of an offer.
_LONGEST_LINE: Final = 64 << 20
# Field 1 of every request that changes something: its request_id, a string of 36 characters.
_REQUEST_ID: Final = b"\x0a\x24"


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


def with_request_id(request: bytes) -> bytes:
    """A serialised request that has no request_id yet, with one."""
    return _REQUEST_ID + str(uuid4()).encode() + request
