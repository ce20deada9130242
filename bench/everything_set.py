"""Has people of a loaded world set whatever they can, by window, role and wedding, beside what they had set."""

from pathlib import Path
from typing import Final

import asyncpg

from shared.queries import load

WINDOWED, BY_ROLE, BY_WEDDING = 100_000, 100_000, 20_000
WINDOWS: Final = 500
TIMEOUT_S: Final = 120.0
ZONES: Final = (
    "Europe/Vienna",
    "Europe/London",
    "Europe/Athens",
    "America/New_York",
    "America/Chicago",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Australia/Sydney",
    "Africa/Lagos",
    "Pacific/Auckland",
)
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))


async def set_everything(connection: asyncpg.Connection, muted_type: str) -> dict[str, int]:
    """Some have muted `muted_type` in their role. How much is set of each kind then, for the record."""
    async with connection.transaction():
        await connection.execute(_QUERIES["set_windows"], list(ZONES), WINDOWED, timeout=TIMEOUT_S)
        await connection.execute(_QUERIES["set_roles"], muted_type, BY_ROLE, timeout=TIMEOUT_S)
        await connection.execute(_QUERIES["set_weddings"], BY_WEDDING, timeout=TIMEOUT_S)
        await connection.execute(_QUERIES["tell_everything"])
    # Nobody rewrites a hundred thousand settings in a moment otherwise, and it is not the cleaning up that is measured.
    await connection.execute("VACUUM (ANALYZE)", timeout=TIMEOUT_S)
    row = await connection.fetchrow(_QUERIES["count_everything"], timeout=TIMEOUT_S)
    counts: dict[str, int] = dict(row or {})
    expected = {"quiet_windows": WINDOWS, "role_settings": BY_ROLE, "wedding_filters": BY_WEDDING}
    if any(counts[name] < least for name, least in expected.items()):
        raise RuntimeError(f"less is set than is to be measured: {counts}")
    return counts
