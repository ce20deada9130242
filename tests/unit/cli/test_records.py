"""What a directory file may hold, and how the place of a mistake is named."""

from pathlib import Path

import pytest
from wedsync.broadcast.v1.directory_pb2 import Recipient, UserType

from cli.exits import ExitCode, Failure
from cli.records import read_recipients, read_weddings

HEADING = "user_id,display_name,role,user_type,tier,email,phone,time_zone"
PERSON = "6f1c2b1e-0a35-4d39-9d61-2f8f5f0f0b11,Petra Novak,photographer,supplier,professional,,,Europe/Vienna"


def _write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_csv_rows_become_recipients(tmp_path: Path) -> None:
    """A heading names the columns; a byte order mark, as spreadsheets write, does no harm."""
    file = _write(tmp_path, "people.csv", f"\ufeff{HEADING}\n{PERSON}\n")
    expected = Recipient(
        user_id="6f1c2b1e-0a35-4d39-9d61-2f8f5f0f0b11",
        display_name="Petra Novak",
        role="photographer",
        user_type=UserType.USER_TYPE_SUPPLIER,
        tier="professional",
        time_zone="Europe/Vienna",
    )
    assert [expected] == read_recipients(file)


def test_json_objects_become_weddings(tmp_path: Path) -> None:
    """A list of objects has the same names as a CSV's heading."""
    text = (
        '[{"wedding_id": "w", "couple_name": "A & B", "wedding_date": "2027-06-12", "status": "confirmed"}]'
    )
    (wedding,) = read_weddings(_write(tmp_path, "weddings.json", text))
    assert (wedding.wedding_date.year, wedding.wedding_date.month, wedding.wedding_date.day) == (2027, 6, 12)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.csv", f"{HEADING}\n{PERSON.replace('supplier', 'guest')}\n", "a.csv:2: user_type must be one of"),
        ("a.csv", f"{HEADING}\n{PERSON},too many\n", "a.csv:2: has another number of columns"),
        ("a.csv", f"{HEADING},shoe_size\n{PERSON},42\n", "a.csv:2: unknown column 'shoe_size'"),
        ("a.csv", f"{HEADING}\n", "a.csv: has no records"),
        ("a.json", '{"user_id": "x"}', "a.json: must be a list of objects"),
        ("a.json", "[", "a.json: is not JSON"),
        ("a.json", '[{"user_id": 7}]', "a.json[0].user_id: must be a text"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    """The message names the file, the line or index, and the rule."""
    with pytest.raises(Failure) as refused:
        read_recipients(_write(tmp_path, name, text))
    assert complaint in refused.value.message
    assert refused.value.code is ExitCode.INVALID
