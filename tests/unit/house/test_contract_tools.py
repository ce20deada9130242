"""Whether protovalidate's exported rules are its own, and whether a change that breaks callers is noticed."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import protovalidate
import pytest
from export_validate import TARGET, rules_descriptor, source_of
from generate import PROTOS, build_image, protoc
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

SCRATCH = """
syntax = "proto3";
package scratch.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
message Scratch {
  option (buf.validate.message).cel = {id: "names_differ", message: "differ", expression: "this.name != this.id"};
  string name = 1 [(buf.validate.field).string = {min_len: 1, max_len: 3}];
  string id = 2 [(buf.validate.field).string.uuid = true];
  repeated string ids = 3 [(buf.validate.field).repeated = {max_items: 2, unique: true, items: {string: {uuid: true}}}];
  Color color = 4 [(buf.validate.field).enum = {defined_only: true, not_in: [0]}];
  google.protobuf.Timestamp at = 5 [(buf.validate.field).required = true, (buf.validate.field).timestamp.gt_now = true];
  oneof pick {
    option (buf.validate.oneof).required = true;
    string left = 6 [(buf.validate.field).cel = {id: "lower", message: "low", expression: "this == this.lowerAscii()"}];
    int32 right = 7 [(buf.validate.field).int32 = {gte: 1, lte: 9}];
  }
}
"""
UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
FUTURE = {"seconds": 32_503_680_000}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Message]:
    """Makes messages with rules, compiled like the contract."""
    folder = tmp_path_factory.mktemp("scratch")
    shutil.copytree(PROTOS / "buf", folder / "buf")
    (folder / "scratch.proto").write_text(SCRATCH)
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(build_image(folder)).file:
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("scratch.v1.Scratch"))


def broken_rules(message: Message) -> set[str]:
    """The ids of the rules that a message breaks."""
    return {violation.proto.rule_id for violation in protovalidate.collect_violations(message)}


def test_the_engine_applies_rules_compiled_against_the_exported_source(
    scratch: Callable[..., Message],
) -> None:
    """A message that breaks every rule has every violation reported at once, and lengths count code points."""
    good = scratch(name="äöü", id=UUID, ids=[UUID], color=1, at=FUTURE, left="a")
    bad = scratch(name="abcd", id="x", ids=["x", "x", "y"], color=7, at={"seconds": 1}, left="A")
    empty = scratch()
    assert broken_rules(good) == set()
    assert broken_rules(bad) == {
        "string.max_len",
        "string.uuid",
        "repeated.max_items",
        "repeated.unique",
        "enum.defined_only",
        "timestamp.gt_now",
        "lower",
    }
    assert broken_rules(empty) == {
        "names_differ",
        "string.min_len",
        "string.uuid_empty",
        "enum.not_in",
        "required",
    }


def without_options(file: FileDescriptorProto) -> FileDescriptorProto:
    """The shape of a file: what decides which bytes a rule is written as."""
    shape = FileDescriptorProto()
    shape.CopyFrom(file)
    for container in [shape, *shape.message_type, *shape.enum_type]:
        container.ClearField("options")
    for message in shape.message_type:
        message.field.sort(key=lambda field: field.number)
        _clear_field_options(message)
    for extension in shape.extension:
        extension.ClearField("json_name")
    shape.ClearField("source_code_info")
    shape.ClearField("syntax")
    return shape


def _clear_field_options(message: DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("options")
        field.ClearField("json_name")


def test_the_exported_rules_are_those_of_the_installed_engine(tmp_path: Path) -> None:
    """protovalidate's pin and the committed source belong together: compiled again, it is the wheel's descriptor."""
    assert TARGET.read_text() == source_of(rules_descriptor())
    image = tmp_path / "rules.binpb"
    protoc(PROTOS, ["buf/validate/validate.proto"], [f"--descriptor_set_out={image}"])
    (compiled,) = FileDescriptorSet.FromString(image.read_bytes()).file
    assert without_options(compiled) == without_options(rules_descriptor())


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A repository of its own with this contract committed in it."""
    shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROTOS.parent / "buf.yaml", tmp_path)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "Declare the contract")
    return tmp_path


def git(repository: Path, *arguments: str) -> None:
    """Runs git there as somebody."""
    somebody = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", "-C", str(repository), *somebody, *arguments], check=True, capture_output=True)


def commit(repository: Path, message: str) -> None:
    """Commits all that is there."""
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", f"--message={message}")


def check(repository: Path) -> tuple[int, str]:
    """The exit status of the contract's check there, and what it says."""
    done = subprocess.run(
        [sys.executable, "protos/check.py"], cwd=repository, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def renumber_a_field(repository: Path) -> None:
    """Changes what callers send: the label of an action gets another number."""
    source = repository / "protos/wedsync/broadcast/v1/common.proto"
    changed = source.read_text().replace("string label = 1", "string label = 91", 1)
    assert changed != source.read_text()
    source.write_text(changed)


def test_a_change_that_breaks_callers_is_refused_before_and_after_its_commit(contract: Path) -> None:
    """The check compares with the contract that callers know, also when the tree is clean."""
    assert check(contract)[0] == 0
    renumber_a_field(contract)
    before = check(contract)
    commit(contract, "Number the label of an action anew")
    after = check(contract)
    for status, said in (before, after):
        assert status != 0
        assert '"label" on message "Action" was deleted' in said


def test_a_break_on_purpose_says_so_in_its_commit(contract: Path) -> None:
    """What nobody calls yet may change, when the commit says why."""
    renumber_a_field(contract)
    commit(contract, "Number the label of an action anew\n\nBreaks-contract: nobody calls it yet")
    assert check(contract) == (
        0,
        "buf breaking: the last change breaks callers on purpose: nobody calls it yet\n",
    )
