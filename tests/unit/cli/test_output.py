"""How texts come to a terminal, above all those that other people wrote."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text
from wedsync.broadcast.v1.inbox_pb2 import InboxEvent, InboxItem, InboxSnapshot, ItemAdded

from cli import inbox, output
from cli.exits import ExitCode, Failure

CLI = Path(output.__file__).parent
HARMLESS = [
    "[draft] Seating",
    "menu [/vegan] closes",
    "at :bell: [red]now[/red]",
    "[link=https://x.example]here[/]",
]
ORDERS = {
    "\x1b[31mred\x1b[0m": "␛[31mred␛[0m",
    "\x1b]0;title\x07": "␛]0;title",
    "\x9b31mred": "�31mred",
    "back\x08\x7f": "back",
}


def _table(text: str) -> None:
    output.table(("what",), [(text,)])


def _styled(text: str) -> None:
    output.table(("what",), [(Text(text, style="bold"),)])


def _facts(text: str) -> None:
    output.facts([("title", text)])


def _sentence(text: str) -> None:
    output.console.print(f"Of {text}.", style="dim")


def _list(text: str) -> None:
    inbox.print_event(InboxEvent(snapshot=InboxSnapshot(items=[InboxItem(title=text)])))


def _watch(text: str) -> None:
    inbox.print_event(InboxEvent(added=ItemAdded(item=InboxItem(title=text))))


WAYS = pytest.mark.parametrize("show", [_table, _styled, _facts, _sentence, _list, _watch])


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for all of it on one line."""
    for terminal in (output.console, output.errors):
        monkeypatch.setattr(terminal, "width", 200)


@WAYS
@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_is_shown_as_it_was_written(
    capsys: pytest.CaptureFixture[str], show: Callable[[str], None], text: str
) -> None:
    """What looks like a style or an emoji is none."""
    show(text)
    assert text in capsys.readouterr().out


@WAYS
@pytest.mark.parametrize("text", ORDERS)
def test_an_order_to_the_terminal_is_never_given(
    capsys: pytest.CaptureFixture[str], show: Callable[[str], None], text: str
) -> None:
    """It is shown as a picture, or not at all; the rest of the text stays."""
    show(text)
    shown = capsys.readouterr().out
    assert ORDERS[text] in shown
    assert not [each for each in shown if not each.isprintable() and each != "\n"]


def test_lines_of_a_message_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A newline is no order to the terminal, nor is a tab."""
    output.facts([("message", "one\ttwo\nthree")])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["message", "one", "two"],
        ["three"],
    ]


def test_an_order_in_a_failure_is_never_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in its sentence nor in a rule."""
    output.print_failure(Failure("\x1b[2J [b]", ExitCode.INVALID, (("title", "\x9b2J [i]"),)), as_json=False)
    assert capsys.readouterr().err == "␛[2J [b]\n  title: �2J [i]\n"


@pytest.mark.parametrize("text", [*HARMLESS, *ORDERS])
def test_a_script_reads_the_very_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """One object a line; nothing that a terminal would obey is in it unescaped."""
    output.print_json(InboxItem(title=text))
    output.print_failure(Failure(text, ExitCode.INVALID), as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["title"] == text
    assert json.loads(said.err) == {"error": text, "exit_code": 3, "fields": []}
    for stream in said:
        assert stream.count("\n") == 1
        assert stream[:-1].isprintable()


def test_nothing_is_said_but_by_the_two_terminals() -> None:
    """They alone know what may be shown, and what to do when nobody listens."""
    bare = [
        f"{file.name}:{node.lineno}"
        for file in sorted(CLI.glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [place.partition(":")[0] for place in bare] == ["output.py"]
