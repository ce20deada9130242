"""The client as internal services install it: a wheel that needs three packages, has types, and is the contract."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import grpc
import pytest
from google.protobuf import __version__ as protobuf_version
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from packaging.requirements import Requirement
from wedsync.broadcast.v1 import (
    common_pb2,
    directory_pb2,
    dispatcher_pb2,
    error_reason_pb2,
    inbox_pb2,
    preferences_pb2,
    sender_pb2,
)

from tests.unit.client.suite import started

ROOT = Path(__file__).resolve().parents[3]
CONTRACT = (
    common_pb2, directory_pb2, dispatcher_pb2, error_reason_pb2, inbox_pb2, preferences_pb2, sender_pb2,
)  # fmt: skip
NEEDED = ("grpcio", "protobuf", "googleapis-common-protos")
# What a caller who checks types has besides.
TYPES = ("types-grpcio", "types-protobuf")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` builds, without asking an index."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", *options, str(ROOT / "client"))
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An environment in which nothing of the suite is installed but the wheel."""

    folder: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def site_packages(self) -> Path:
        """Where packages are."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, program: str, **variables: str) -> str:
        """What a program prints, which must succeed."""
        return _run(self.python, "-I", "-c", program, **variables)

    def link(self, package: Distribution) -> None:
        """Install a package that is installed here."""
        for file in package.files or ():
            # Several packages are below `google`.
            parts = file.parts[: 2 if file.parts[0] == "google" else 1]
            place = self.site_packages.joinpath(*parts)
            if parts[0] != ".." and not place.exists():
                place.parent.mkdir(exist_ok=True)
                place.symlink_to(Path(str(package.locate_file("/".join(parts)))))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """The wheel, the three packages, and what they need themselves."""
    environment = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment.folder))
    for package in _with_needs(NEEDED):
        environment.link(package)
    with ZipFile(wheel) as packed:
        packed.extractall(environment.site_packages)
    return environment


def _with_needs(names: tuple[str, ...]) -> Iterator[Distribution]:
    for name in names:
        package = distribution(name)
        yield package
        needs = [Requirement(line) for line in package.requires or ()]
        yield from _with_needs(tuple(need.name for need in needs if need.marker is None))


def _run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as packed:
        (name,) = (each for each in packed.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(packed.read(name).decode())


def test_it_asks_for_three_packages(wheel: Path) -> None:
    """From the versions that its stubs were made with, which refuse older ones."""
    needs = {need.name: need for need in map(Requirement, _metadata(wheel).get_all("Requires-Dist", []))}
    assert needs.keys() == set(NEEDED)
    with ZipFile(wheel) as packed:
        stub = packed.read("wedsync/broadcast/v1/sender_pb2.py").decode()
        services = packed.read("wedsync/broadcast/v1/sender_pb2_grpc.py").decode()
    made_with = {
        "protobuf": re.findall(r"Protobuf Python Version: (\S+)", stub),
        "grpcio": re.findall(r"GRPC_GENERATED_VERSION = '(\S+)'", services),
    }
    for name, (version,) in made_with.items():
        assert f">={version}" in str(needs[name].specifier).split(",")
    assert protobuf_version in needs["protobuf"].specifier
    assert grpc.__version__ in needs["grpcio"].specifier


def test_it_has_the_client_and_the_stubs_alone(wheel: Path) -> None:
    """With markers for type checkers, and nothing that another package might have as well."""
    with ZipFile(wheel) as packed:
        names = packed.namelist()
    folders = {str(Path(name).parent) for name in names if ".dist-info" not in name}
    assert folders == {"wedsync/broadcast/client", "wedsync/broadcast/v1"}
    assert {f"{folder}/py.typed" for folder in folders} <= set(names)
    sources = {path.name for path in (ROOT / "client/wedsync/broadcast/client").glob("*.py")}
    assert {f"wedsync/broadcast/client/{source}" for source in sources} <= set(names)


def test_its_messages_are_those_of_the_contract(elsewhere: Elsewhere) -> None:
    """Every file, message, field, enum and method, but for options, which say how servers check them."""
    modules = [each.__name__ for each in CONTRACT]
    program = f"""
import importlib
for name in {modules}:
    print(importlib.import_module(name).DESCRIPTOR.serialized_pb.hex())
"""
    theirs = [FileDescriptorProto.FromString(bytes.fromhex(line)) for line in elsewhere.run(program).split()]
    ours = [FileDescriptorProto.FromString(each.DESCRIPTOR.serialized_pb) for each in CONTRACT]
    assert [_bare(file) for file in theirs] == [_bare(file) for file in ours]
    assert not any("buf/validate/validate.proto" in file.dependency for file in theirs)


def _bare(file: FileDescriptorProto) -> FileDescriptorProto:
    del file.dependency[:]
    for message in file.message_type:
        _bare_message(message)
    return file


def _bare_message(message: DescriptorProto) -> None:
    message.ClearField("options")
    for part in (*message.field, *message.oneof_decl):
        part.ClearField("options")
    for field in message.field:
        field.ClearField("json_name")  # which is what it is anyway, said or not
    for nested in message.nested_type:
        _bare_message(nested)


SEND = """
import asyncio, importlib.util, os
from google.protobuf import descriptor_pb2, descriptor_pool

# Whoever has protovalidate has this, in whatever version.
rules = descriptor_pb2.FileDescriptorProto(name="buf/validate/validate.proto", package="buf.validate")
descriptor_pool.Default().AddSerializedFile(rules.SerializeToString())

from wedsync.broadcast.client import Addresses, BroadcastClient, everyone, insecure

async def main():
    addresses = Addresses(sender=os.environ["SENDER_ADDR"])
    async with BroadcastClient(addresses, token="t", security=insecure()) as client:
        sent = await client.send(type="feature.released", title="News", message="Look.", to=everyone())
        print(sent.broadcast.title, sent.targeted_users)
    print([name for name in ("shared", "protovalidate", "buf") if importlib.util.find_spec(name)])

asyncio.run(main())
"""


async def test_it_calls(elsewhere: Elsewhere) -> None:
    """A send goes through where nothing else of the suite is, also beside other stubs of protovalidate's."""
    async with started() as suite:
        output = await asyncio.to_thread(elsewhere.run, SEND, SENDER_ADDR=suite.address)
    assert output.splitlines() == ["News 6", "[]"]


def test_examples_are_typed(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """What its README shows passes a strict check against the installed wheel."""
    for package in map(distribution, TYPES):
        elsewhere.link(package)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "client" / "README.md").read_text(), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"example_{number}.py").write_text(block)
    files = [str(path) for path in sorted(tmp_path.glob("*.py"))]
    _run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", elsewhere.python),
        *("--cache-dir", str(tmp_path / "cache"), "--config-file", os.devnull, *files),
    )
