"""Owns the reading of `queries.sql`: every statement under a name that says its intent, with why it is there."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_NAME_LINE: Final = re.compile(r"--\s*name:(?P<name>.*)")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_SCHEMA: Final = re.compile(r"[a-z][a-z0-9_]*")
_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_STAR_COLUMN: Final = re.compile(r"(?:\b(?:select|returning|distinct|all)\s+|,\s*|\.\s*)\*", re.IGNORECASE)

# Connections go back to the pool as they are (shared/database.py): what outlives a transaction meets the next caller.
_SESSION_STATE: Final = re.compile(
    r"\A\s*(?:set(?!\s+(?:local|constraints)\b)|listen|prepare|discard|reset)\b"
    r"|\bset_config\s*\([^()]*,\s*false\s*\)|\bpg_(?:try_)?advisory_lock",
    re.IGNORECASE,
)


class BadQueries(ValueError):
    """A file of queries breaks one of its rules; the message gives file, line and rule."""


class Queries(Mapping[str, str]):
    """The statements of one file by name: `QUERIES["claim_due_broadcasts"]`."""

    def __init__(self, statements: Mapping[str, str], source: str) -> None:
        self._statements = dict(statements)
        self._source = source

    def __getitem__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"{self._source} has no query named {name}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load(path: Path, *, schema: str | None = None) -> Queries:
    """Read a file of queries; with `schema`, `{schema}` in it becomes that name. Raises BadQueries.

    A query is `-- name: intent`, at least one line of `--` that says why, then its SQL, which lists its columns.
    """
    text = path.read_text(encoding="utf-8")
    if schema is not None:
        if not _SCHEMA.fullmatch(schema):
            raise BadQueries(f"{schema!r} is not the name of a schema")
        text = text.replace("{schema}", schema)
    statements: dict[str, str] = {}
    for line, name, body in _sections(path, text):
        if name in statements:
            raise BadQueries(f"{path}:{line}: {name} is there twice")
        statements[name] = _statement(f"{path}:{line}: {name}", body)
    return Queries(statements, str(path))


def _sections(path: Path, text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Each query's line, name and the lines below its name."""
    started, name, body = 0, "", list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        match = _NAME_LINE.match(line.strip())
        if match is None:
            if not name and line.strip() and not line.lstrip().startswith("--"):
                raise BadQueries(f"{path}:{number}: SQL without a `-- name:` above it")
            body.append(line)
            continue
        if name:
            yield started, name, body
        started, name, body = number, match["name"].strip(), []
        if not _NAME.fullmatch(name):
            raise BadQueries(f"{path}:{number}: {name!r} is not a name in snake_case")
    if name:
        yield started, name, body


def _statement(where: str, body: list[str]) -> str:
    lines = [line for line in body if line.strip()]
    if not lines or not re.match(r"\s*--\s*\S", lines[0]):
        raise BadQueries(f"{where} has no line of why under its name")
    statement = "\n".join(lines[_comment_lines(lines) :]).strip().removesuffix(";").rstrip()
    code = _COMMENT.sub(" ", _QUOTED.sub("''", statement))
    if not code.strip():
        raise BadQueries(f"{where} has no SQL")
    if _STAR_COLUMN.search(code):
        raise BadQueries(f"{where} must list its columns instead of *")
    if _SESSION_STATE.search(code):
        raise BadQueries(f"{where} leaves something behind on the connection")
    return statement


def _comment_lines(lines: list[str]) -> int:
    """How many lines the comment at the top takes."""
    for position, line in enumerate(lines):
        if not line.lstrip().startswith("--"):
            return position
    return len(lines)
