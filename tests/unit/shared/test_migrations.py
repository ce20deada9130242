"""Which files of migrations are accepted, before any database is asked."""

from pathlib import Path

import pytest

from shared.migrations import MigrationError, read


def test_files_are_read_in_order(tmp_path: Path) -> None:
    """The number in the name is the order, and the text is what will run."""
    (tmp_path / "0002_add_b.sql").write_text("-- B is needed.\nSELECT 2;\n", encoding="utf-8")
    (tmp_path / "0001_add_a.sql").write_text("-- A is needed.\nSELECT 1;\n", encoding="utf-8")
    assert [(each.number, each.name, each.sql) for each in read(tmp_path)] == [
        (1, "0001_add_a.sql", "-- A is needed.\nSELECT 1;\n"),
        (2, "0002_add_b.sql", "-- B is needed.\nSELECT 2;\n"),
    ]


def test_the_bodies_of_functions_may_begin_and_end(tmp_path: Path) -> None:
    """`BEGIN ATOMIC … END;` and plpgsql's `BEGIN … END;` are no transactions."""
    body = "-- Why.\nCREATE FUNCTION f() RETURNS int LANGUAGE sql\nBEGIN ATOMIC\n    SELECT 1;\nEND;\n"
    (tmp_path / "0001_a.sql").write_text(body, encoding="utf-8")
    assert [each.sql for each in read(tmp_path)] == [body]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "has no migrations"),
        ({"1_a.sql": "-- Why.\n"}, "must be like 0001"),
        ({"0001_A.sql": "-- Why.\n"}, "must be like 0001"),
        ({"0002_a.sql": "-- Why.\n"}, "the next number is 0001"),
        ({"0001_a.sql": "-- Why.\n", "0003_b.sql": "-- Why.\n"}, "the next number is 0002"),
        ({"0001_a.sql": "-- Why.\n", "0001_b.sql": "-- Why.\n"}, "the next number is 0002"),
        ({"0001_a.sql": "SELECT 1;\n"}, r"0001_a\.sql:1: a migration opens with a comment"),
        ({"0001_a.sql": "-- Why.\nSELECT 1;\n COMMIT;\n"}, r"0001_a\.sql:3: each file is one transaction"),
    ],
)
def test_what_breaks_a_rule_is_refused(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    """Names, gaps, files without a reason and files that end their own transaction are told with file and line."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(MigrationError, match=complaint):
        read(tmp_path)
