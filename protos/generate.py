"""Turns the contract's sources into Python stubs beside them, and says when the committed ones differ.

`python protos/generate.py` writes them; with `--check` it compares instead and fails on any difference. The same
sources and the same pinned tools give the same bytes.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import FileDescriptorSet

PROTOS = Path(__file__).resolve().parent
# Only async stubs are typed, because nothing here calls synchronously. They are concrete, so that a servicer may leave
# an RPC that it does not serve yet to the generated answer, UNIMPLEMENTED.
GRPC_STUB_OPTIONS = "quiet,only_async,generate_concrete_servicer_stubs"


class ProtocFailedError(Exception):
    """protoc refused the sources; it has already said why."""


def main(arguments: list[str]) -> int:
    """Runs the command line; 0 when all is well, 1 when a stub differs or a source does not compile."""
    try:
        return _check() if arguments == ["--check"] else _write()
    except ProtocFailedError:
        return 1


def source_names(root: Path) -> list[str]:
    """The contract's sources as paths relative to the import root `root`, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.proto"))


def build_image(root: Path) -> bytes:
    """The contract under `root` with all that it imports, as a descriptor set with comments and positions."""
    with TemporaryDirectory() as folder:
        image = Path(folder) / "contract.binpb"
        options = [f"--descriptor_set_out={image}", "--include_imports", "--include_source_info"]
        protoc(root, source_names(root), options)
        return image.read_bytes()


def protoc(root: Path, names: list[str], options: list[str]) -> None:
    """Runs the pinned protoc on sources relative to `root`, with google/api and google/rpc within reach."""
    tools = Path(sys.executable).parent
    plugins = [f"--plugin={name}={tools / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    includes = [f"-I{root}", f"-I{_googleapis()}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *plugins, *includes, *options, *names]
    if subprocess.run(command, check=False).returncode != 0:
        raise ProtocFailedError


def _googleapis() -> Path:
    spec = find_spec("google.api")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("google/api is missing: install requirements-dev.lock (`make .venv`)")
    return Path(next(iter(spec.submodule_search_locations))).parents[1]


def write_stubs(root: Path, image: FileDescriptorSet, names: list[str], target: Path, *options: str) -> None:
    """Writes the stubs of these sources below `target`; `image` has them, `root` and `options` are for protoc."""
    protoc(root, names, [*options, f"--python_out={target}", f"--mypy_out=quiet:{target}"])
    serving = [file.name for file in image.file if file.service and file.name in names]
    if serving:
        grpc_options = [f"--grpc_python_out={target}", f"--mypy_grpc_out={GRPC_STUB_OPTIONS}:{target}"]
        protoc(root, serving, [*options, *grpc_options])


def _generate(target: Path) -> None:
    image = FileDescriptorSet.FromString(build_image(PROTOS))
    write_stubs(PROTOS, image, source_names(PROTOS), target)


def _stubs(root: Path) -> dict[str, bytes]:
    paths = (path for kind in ("*_pb2*.py", "*_pb2*.pyi") for path in root.rglob(kind))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _write() -> int:
    with TemporaryDirectory() as folder:
        _generate(Path(folder))
        wanted = _stubs(Path(folder))
    for stale in _stubs(PROTOS).keys() - wanted.keys():
        (PROTOS / stale).unlink()
    for name, content in wanted.items():
        (PROTOS / name).write_bytes(content)
    print(f"protos: {len(wanted)} stubs from {len(source_names(PROTOS))} sources")
    return 0


def _check() -> int:
    with TemporaryDirectory() as folder:
        _generate(Path(folder))
        wanted = _stubs(Path(folder))
    present = _stubs(PROTOS)
    differing = sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )
    for name in differing:
        print(
            f"protos/{name} is not what its source gives: run `make protos` and commit the result",
            file=sys.stderr,
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
