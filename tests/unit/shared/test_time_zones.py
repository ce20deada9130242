"""Which names are time zones."""

import pytest

from shared.time_zones import is_time_zone


@pytest.mark.parametrize("name", ["Europe/Vienna", "America/Port-au-Prince", "Etc/GMT+5", "UTC"])
def test_zones_of_the_database_are_zones(name: str) -> None:
    """Names that a simple pattern would refuse are zones too."""
    assert is_time_zone(name)


@pytest.mark.parametrize(
    "name", ["", "europe/vienna", "Mars/Olympus", "localtime", "../etc/passwd", "+02:00", "CEST"]
)
def test_anything_else_is_no_zone(name: str) -> None:
    """A zone is exactly what the database calls it."""
    assert not is_time_zone(name)
