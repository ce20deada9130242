"""Prints protovalidate's rules as `buf/validate/validate.proto`, from the descriptor its wheel carries.

The wheel ships the engine and a descriptor, but no source that protoc could import. The CEL text of each standard
rule (`predefined`) is left out: the engine has its own copy, and our files only name the rules.
Run it once when protovalidate's pin changes: `python protos/export_validate.py`.
"""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from protovalidate._gen.buf.validate import validate_pb

TARGET = Path(__file__).parent / "buf" / "validate" / "validate.proto"
HEADER = """\
// The rules of protovalidate {version}, printed from the descriptor in its wheel. Do not edit: see
// protos/export_validate.py.
//
// Copyright 2023-2026 Buf Technologies, Inc.
// Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with
// the License. A copy is at http://www.apache.org/licenses/LICENSE-2.0. It is distributed on an "AS IS" BASIS, WITHOUT
// WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// Changed from the original: comments, the CEL text of the standard rules and the options for other languages are
// left out.

syntax = "proto2";

package {package};

"""
LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional",
    FieldDescriptorProto.LABEL_REPEATED: "repeated",
    FieldDescriptorProto.LABEL_REQUIRED: "required",
}
FIELD_RANGE_END = 1 << 29
ENUM_RANGE_END = (1 << 31) - 1


def rules_descriptor() -> FileDescriptorProto:
    """The descriptor of buf/validate/validate.proto as the installed wheel carries it."""
    return FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())


def source_of(file: FileDescriptorProto) -> str:
    """A proto2 source that compiles to `file` without its options."""
    blocks = [HEADER.format(version=version("protovalidate"), package=file.package)]
    blocks.append("".join(f'import "{name}";\n' for name in file.dependency) + "\n")
    blocks += [_block(_extension(extension)) for extension in file.extension]
    blocks += [_block(_message(message)) for message in file.message_type]
    blocks += [_block(_enum(enum)) for enum in file.enum_type]
    return "".join(blocks).rstrip("\n") + "\n"


def _block(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n\n"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _extension(field: FieldDescriptorProto) -> Iterator[str]:
    yield f"extend {field.extendee} {{"
    yield f"  {_field(field)}"
    yield "}"


def _message(message: DescriptorProto) -> Iterator[str]:
    yield f"message {message.name} {{"
    for name in _ranges((r.start, r.end - 1) for r in message.reserved_range):
        yield f"  reserved {name};"
    for reserved_name in message.reserved_name:
        yield f'  reserved "{reserved_name}";'
    yield from _indented(_fields(message))
    for nested in message.nested_type:
        yield from _indented(_message(nested))
    for enum in message.enum_type:
        yield from _indented(_enum(enum))
    for name in _ranges(
        (r.start, "max" if r.end == FIELD_RANGE_END else r.end - 1) for r in message.extension_range
    ):
        yield f"  extensions {name};"
    yield "}"


def _fields(message: DescriptorProto) -> Iterator[str]:
    """Fields in the descriptor's order, those of a oneof together inside it, where its first one stands."""
    opened: set[int] = set()
    for field in message.field:
        if not field.HasField("oneof_index"):
            yield _field(field)
        elif field.oneof_index not in opened:
            opened.add(field.oneof_index)
            yield f"oneof {message.oneof_decl[field.oneof_index].name} {{"
            for member in message.field:
                if member.HasField("oneof_index") and member.oneof_index == field.oneof_index:
                    yield f"  {_field(member)}"
            yield "}"


def _field(field: FieldDescriptorProto) -> str:
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    label = "" if field.HasField("oneof_index") else f"{LABELS[field.label]} "
    return f"{label}{kind} {field.name} = {field.number};"


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    for name in _ranges((r.start, "max" if r.end == ENUM_RANGE_END else r.end) for r in enum.reserved_range):
        yield f"  reserved {name};"
    for reserved_name in enum.reserved_name:
        yield f'  reserved "{reserved_name}";'
    for value in enum.value:
        yield f"  {value.name} = {value.number};"
    yield "}"


def _ranges(pairs: Iterator[tuple[int, int | str]]) -> Iterator[str]:
    return (f"{first}" if first == last else f"{first} to {last}" for first, last in pairs)


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(source_of(rules_descriptor()), encoding="utf-8")
