"""Writes the stubs that callers are given: the contract without the rules by which servers check it, and no internals.

The rules are options of messages and fields, so the stubs of protovalidate's own file would have to be there. Those
clash with the ones that some versions of protovalidate bring: two sources of one name in one process are an error of
protobuf's. On the wire nothing is different.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from buf.validate import validate_pb2
from generate import PROTOS, build_image, write_stubs
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

RULES: Final = "buf/validate/validate.proto"
# What only the suite itself says and hears.
INTERNAL: Final = frozenset({"audience.proto", "events.proto"})


def write(target: Path) -> None:
    """Writes them below `target`, typed, and says so to type checkers."""
    image = without_rules(FileDescriptorSet.FromString(build_image(PROTOS)))
    names = [file.name for file in image.file if _is_for_callers(file)]
    with TemporaryDirectory() as folder:
        contract = Path(folder) / "contract.binpb"
        contract.write_bytes(image.SerializeToString())
        write_stubs(Path(folder), image, names, target, f"--descriptor_set_in={contract}")
    for place in {(target / name).parent for name in names}:
        (place / "py.typed").touch()


def without_rules(image: FileDescriptorSet) -> FileDescriptorSet:
    """The same contract, with nothing left of the rules."""
    files = [file for file in image.file if file.name != RULES]
    for file in files:
        kept = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(kept)
        for message in file.message_type:
            _strip(message)
    return FileDescriptorSet(file=files)


def _is_for_callers(file: FileDescriptorProto) -> bool:
    return file.package.startswith("wedsync.") and Path(file.name).name not in INTERNAL


def _strip(message: DescriptorProto) -> None:
    message.options.ClearExtension(validate_pb2.message)
    for field in message.field:
        field.options.ClearExtension(validate_pb2.field)
    for oneof in message.oneof_decl:
        oneof.options.ClearExtension(validate_pb2.oneof)
    for nested in message.nested_type:
        _strip(nested)
