"""Prints answers: tables and sentences for people, one JSON object a line for scripts."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from wedsync.broadcast.v1.common_pb2 import (
    BroadcastState,
    Channel,
    DeliveryState,
    LedgerEntry,
    Priority,
    SuppressionReason,
)

from cli.exits import ExitCode, Failure

# Columns with ids, which must stay whole on one line, to be copied.
_WHOLE: Final = frozenset({"id", "what"})
# What a terminal obeys instead of showing it, newline and tab apart: each by its picture, or what stands for none.
_ORDERS: Final = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
_PICTURES: Final = {
    code: chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}" for code in _ORDERS
}
_ESCAPES: Final = {code: f"\\u{code:04x}" for code in _ORDERS}

_PRIORITY_STYLES = {"critical": "bold red", "high": "yellow", "normal": "", "low": "dim"}


class Terminal(Console):
    """Shows texts as they are, whoever wrote them: nothing in them is a style, an emoji or an order to the terminal.

    When nobody reads standard output any more the command is over, and well; complaints may go unread.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All that is shown comes through here, piece by piece."""
        return super().render(
            _shown(renderable) if isinstance(renderable, str | Text) else renderable, options
        )

    def on_broken_pipe(self) -> None:
        """Say nothing more; what Python flushes at its end goes nowhere, too. Raises SystemExit on standard output."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)
        if not self.stderr:
            raise SystemExit(ExitCode.OK)

    def print_plain(self, text: str) -> None:
        """A text for scripts: neither wrapped nor styled, and out at once."""
        if self.quiet:
            return
        try:
            print(text, file=self.file, flush=True)
        except BrokenPipeError:
            self.on_broken_pipe()

    def print_document(self, document: Mapping[str, object], indent: int | None = None) -> None:
        """JSON, on one line unless it is indented."""
        written = json.dumps(document, ensure_ascii=False, indent=indent)
        # JSON itself lets some of what a terminal obeys stand as it is.
        self.print_plain(written.translate(_ESCAPES))


def _shown(value: str | Text) -> Text:
    """A text with pictures in the place of orders, so that it is measured as it will be shown."""
    text = Text(value.translate(_PICTURES)) if isinstance(value, str) else value.copy()
    text.plain = text.plain.translate(_PICTURES)
    text.expand_tabs()
    return text


console = Terminal()
errors = Terminal(stderr=True)


def print_json(message: Message) -> None:
    """One answer as one line of JSON with the contract's field names."""
    fields = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    console.print_document(fields)


def print_failure(failure: Failure, as_json: bool) -> None:
    """A refused command on standard error: the sentence, then each broken field with its rule."""
    if as_json:
        fields = [{"field": field, "description": rule} for field, rule in failure.fields]
        errors.print_document({"error": failure.message, "exit_code": int(failure.code), "fields": fields})
        return
    errors.print(Text(failure.message, style="red"))
    for field, rule in failure.fields:
        errors.print(Text.assemble("  ", (field or "request", "bold"), ": ", rule))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Rows under headings; nothing when there are none."""
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    for row in rows:
        grid.add_row(*map(_shown, row))
    if grid.row_count:
        console.print(grid)


def more(next_page_token: str) -> None:
    """How to get the next page, if there is one; on one line, to be copied."""
    if next_page_token:
        console.print(f"More: --page-token {next_page_token}", soft_wrap=True)


def facts(pairs: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values, a line each."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        grid.add_row(Text(name, style="bold"), _shown(value))
    console.print(grid)


def ledger(entries: Iterable[LedgerEntry]) -> None:
    """A broadcast's ledger by channel."""
    rows = sorted(entries, key=lambda entry: (entry.channel, entry.state, entry.reason))
    table(
        ("channel", "state", "people", "why"),
        (
            (
                word(Channel.Name(entry.channel)),
                word(DeliveryState.Name(entry.state)),
                f"{entry.count:,}",
                word(SuppressionReason.Name(entry.reason)) if entry.reason else "",
            )
            for entry in rows
        ),
    )


def priority(value: "Priority.ValueType") -> Text:
    """A priority in its colour."""
    name = word(Priority.Name(value))
    return Text(name, style=_PRIORITY_STYLES.get(name, ""))


def state(value: "BroadcastState.ValueType") -> str:
    """A broadcast's state in lower case."""
    return word(BroadcastState.Name(value))


def word(enum_name: str) -> str:
    """The last part of an enum's name in lower case: CHANNEL_IN_APP becomes in_app."""
    for prefix in (
        "BROADCAST_STATE_",
        "DELIVERY_STATE_",
        "SUPPRESSION_REASON_",
        "CHANNEL_",
        "PRIORITY_",
        "CATEGORY_",
        "AUDIT_ACTION_",
        "USER_TYPE_",
        "WEDDING_STATUS_",
    ):
        if enum_name.startswith(prefix):
            return enum_name.removeprefix(prefix).lower()
    return enum_name.lower()


def moment(value: Timestamp) -> str:
    """A time in the terminal's own zone, to the second; empty when it is not set."""
    if not value.ByteSize():
        return ""
    return value.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(value: Duration) -> str:
    """How long something took, in its two largest units."""
    seconds = value.ToTimedelta().total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def short_moment(value: Timestamp) -> str:
    """A time in the terminal's own zone: the time of day if it is today, else the day."""
    if not value.ByteSize():
        return ""
    moment = value.ToDatetime(UTC).astimezone()
    is_today = moment.date() == datetime.now(UTC).astimezone().date()
    return moment.strftime("%H:%M:%S" if is_today else "%Y-%m-%d")
