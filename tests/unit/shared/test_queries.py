"""The file of queries: what it gives, and which mistakes it refuses."""

from pathlib import Path

import pytest

from shared.queries import BadQueries, Queries, load

GOOD = """-- Statements of the test.

-- name: find_broadcast
-- The page of one broadcast; hidden ones too,
-- since its sender may look.
SELECT id, title -- the caller wants both
FROM {schema}.broadcasts
WHERE id = $1 AND title <> 'SELECT *';

-- name: count_broadcasts
-- The total of the list.
SELECT count(*) AS total, 2 * 3 AS six FROM {schema}.broadcasts;
"""


def read(folder: Path, text: str, schema: str | None = None) -> Queries:
    """The queries of a file with this text."""
    path = folder / "queries.sql"
    path.write_text(text, encoding="utf-8")
    return load(path, schema=schema)


def test_queries_are_found_by_name(tmp_path: Path) -> None:
    """A query is its SQL, without the comment above it and with the schema in its place."""
    queries = read(tmp_path, GOOD, schema="sender")
    assert dict(queries) == {
        "find_broadcast": (
            "SELECT id, title -- the caller wants both\nFROM sender.broadcasts\nWHERE id = $1 AND title <> 'SELECT *'"
        ),
        "count_broadcasts": "SELECT count(*) AS total, 2 * 3 AS six FROM sender.broadcasts",
    }


def test_a_query_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    """A misspelt name says where it was looked for."""
    with pytest.raises(KeyError, match=r"queries\.sql has no query named find_brodcast"):
        read(tmp_path, GOOD)["find_brodcast"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SELECT 1;", r":1: SQL without a `-- name:`"),
        ("-- name: Find-It\n-- Why.\nSELECT 1", r":1: 'Find-It' is not a name"),
        ("-- name:\n-- Why.\nSELECT 1", r":1: '' is not a name"),
        ("-- name: a\n-- Why.\nSELECT 1;\n-- name: a\n-- Why.\nSELECT 1", r":4: a is there twice"),
        ("-- name: a\nSELECT 1", r":1: a has no line of why"),
        ("-- name: a\n--\nSELECT 1", r":1: a has no line of why"),
        ("-- name: a\n-- Why.\n", r":1: a has no SQL"),
        ("-- name: a\n-- Why.\nSELECT * FROM b", r":1: a must list its columns"),
        ("-- name: a\n-- Why.\nSELECT c, b.*\nFROM b", r":1: a must list its columns"),
        ("-- name: a\n-- Why.\nDELETE FROM b RETURNING *", r":1: a must list its columns"),
        ("-- name: a\n-- Why.\nSET app.recipient = '1'", r":1: a leaves something behind"),
        ("-- name: a\n-- Why.\nSELECT set_config('a', $1, false)", r":1: a leaves something behind"),
        ("-- name: a\n-- Why.\nSELECT pg_advisory_lock(1)", r":1: a leaves something behind"),
    ],
)
def test_mistakes_are_errors_at_load(tmp_path: Path, text: str, complaint: str) -> None:
    """Each rule of the file, when broken, stops the service from starting, with the line."""
    with pytest.raises(BadQueries, match=complaint):
        read(tmp_path, text)


def test_settings_of_one_transaction_are_allowed(tmp_path: Path) -> None:
    """What ends with the transaction is no danger to the next caller."""
    text = "-- name: a\n-- Why.\nSELECT set_config('a', $1, true), pg_advisory_xact_lock(1)"
    assert list(read(tmp_path, text)) == ["a"]


def test_a_schema_must_be_a_plain_name(tmp_path: Path) -> None:
    """Nothing but a name gets into the text of a statement."""
    with pytest.raises(BadQueries, match="not the name of a schema"):
        read(tmp_path, GOOD, schema="a; drop")
