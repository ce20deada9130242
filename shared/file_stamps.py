"""Tells whether a file was replaced or written: keys, tokens and certificates are renewed under a process that runs."""

from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int]
"""What is another one after a file was replaced or written."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now, or of what a link leads to; OSError when there is none."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
