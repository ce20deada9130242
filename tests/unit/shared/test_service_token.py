"""A service's own token: read from its file, and again when somebody has renewed it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.clock import FixedClock
from shared.service_token import TokenFile
from shared.settings import Environment, SettingsError

VARIABLE = "SENDER_SERVICE_TOKEN_FILE"


@pytest.fixture
def clock() -> FixedClock:
    """A clock that the test moves."""
    return FixedClock(datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a token."""
    file = tmp_path / "sender.jwt"
    file.write_text("first\n")
    return file


def test_token_is_read_without_the_line_end(path: Path) -> None:
    """Whoever wrote it with an editor did nothing wrong."""
    assert TokenFile.read(Environment({VARIABLE: str(path)}), "SENDER")() == "first"


def test_renewed_token_is_taken(path: Path, clock: FixedClock) -> None:
    """Within a second after the file was replaced."""
    token = TokenFile(VARIABLE, path, clock)
    path.with_suffix(".new").write_text("second")
    path.with_suffix(".new").rename(path)
    clock.move(1)
    assert token() == "second"


@pytest.mark.parametrize("damage", ["", None], ids=["emptied", "removed"])
def test_token_outlives_its_file(path: Path, clock: FixedClock, damage: str | None) -> None:
    """While the file is being renewed the last token is used on."""
    token = TokenFile(VARIABLE, path, clock)
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    clock.move(1)
    assert token() == "first"


def test_start_without_a_token_names_the_setting(path: Path) -> None:
    """An empty file is refused at once, not at the first call."""
    path.write_text(" \n")
    with pytest.raises(SettingsError, match=f"{VARIABLE}: there is no token in {path}"):
        TokenFile(VARIABLE, path)
