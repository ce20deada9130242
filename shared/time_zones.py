"""Which names are time zones: those of the pinned zone database and no others."""

from functools import lru_cache
from importlib.resources import files
from typing import Final

NO_TIME_ZONE: Final = "must be a time zone of the IANA database, such as Europe/Vienna"
"""The rule that a name breaks which is none, for a field violation."""


def is_time_zone(name: str) -> bool:
    """Whether the zone database has a zone of exactly this name."""
    return name in _names()


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """The names in the pinned database; the system's own folder also has files that are no zones."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())
