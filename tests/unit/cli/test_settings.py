"""Who a command calls as."""

import pytest
from typer.testing import CliRunner

from cli import main, settings
from cli.exits import ExitCode, Failure
from cli.settings import Settings, load

MINTED = "minted for "


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that somebody has exported, the stack's, and a mint that says for whom it was asked."""
    monkeypatch.setenv("BROADCAST_CALLER_TOKEN", "exported")
    monkeypatch.setenv("BROADCAST_TOKEN", "the demo admin's")
    monkeypatch.setattr(settings, "token_for_person", lambda name: MINTED + name)


def _typed(monkeypatch: pytest.MonkeyPatch, *options: str) -> Settings:
    """The settings of a command that was typed with these options. Raises what it ends with, if there are none."""
    loaded = []

    def loads(json: bool, token: str | None, acts_as: str | None) -> Settings:
        loaded.append(load(json, token, acts_as))
        return loaded[0]

    monkeypatch.setattr(main, "load", loads)
    result = CliRunner().invoke(main.app, [*options, "prefs", "set"])
    if not loaded:
        assert result.exception is not None
        raise result.exception
    return loaded[0]


@pytest.mark.parametrize(
    ("options", "bearer"),
    [
        (("--token", "given"), "given"),
        (("--as", "photographer"), f"{MINTED}photographer"),
        ((), "exported"),
    ],
)
def test_an_option_wins_over_what_is_exported(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], bearer: str
) -> None:
    """So that nobody is erased who was not meant."""
    assert _typed(monkeypatch, *options).bearer() == bearer


@pytest.mark.parametrize("exported", [None, ""])
def test_the_token_of_the_stack_is_the_last_resort(
    monkeypatch: pytest.MonkeyPatch, exported: str | None
) -> None:
    """A variable that is empty is as good as none."""
    monkeypatch.delenv("BROADCAST_CALLER_TOKEN")
    if exported is not None:
        monkeypatch.setenv("BROADCAST_CALLER_TOKEN", exported)
    assert _typed(monkeypatch).bearer() == "the demo admin's"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--token", "given", "--as", "photographer"), "Either --token or --as may be given, not both"),
        (("--token", ""), "--token must not be empty"),
        (("--as", ""), "--as must not be empty"),
    ],
)
def test_options_that_do_not_say_who_calls_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], rule: str
) -> None:
    """Before anything is called, by the rule that they break."""
    with pytest.raises(Failure) as refused:
        _typed(monkeypatch, *options)
    assert refused.value.code == ExitCode.USAGE
    assert refused.value.message.startswith(rule)
