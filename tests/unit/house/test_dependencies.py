"""Whether code asks pyproject.toml for what it imports, so that an image has it and not only this environment."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
OUR_OWN = {"bench", "buf", "cli", "deploy", "services", "shared", "stack", "tests", "wedsync"}
# Several wheels put their modules under `google`.
GOOGLE = {"google.protobuf": "protobuf", "google.rpc": "googleapis-common-protos"}
GOOGLE |= {"google.api": "googleapis-common-protos", "google.type": "googleapis-common-protos"}


def imported(room: str) -> dict[str, str]:
    """What the modules of a folder import from outside: the distribution, and one module that needs it."""
    providers = packages_distributions()
    found: dict[str, str] = {}
    for path in (ROOT / room).rglob("*.py"):
        for name in _names(ast.parse(path.read_text())):
            top = name.partition(".")[0]
            if top not in OUR_OWN and top not in sys.stdlib_module_names:
                google = GOOGLE.get(".".join(name.split(".")[:2]))
                found[canonicalize_name(google or providers[top][0])] = str(path.relative_to(ROOT))
    return found


def _names(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("room", "extras"),
    [
        ("services", ()),
        ("shared", ()),
        ("deploy", ()),
        ("cli", ()),
        ("stack", ("stack",)),
        ("protos/wedsync", ()),
        ("client/wedsync", ()),
    ],
)
def test_a_folder_imports_only_what_the_project_asks_for(room: str, extras: tuple[str, ...]) -> None:
    """Services run in an image that has the runtime packages alone; nothing relies on who else brings a package."""
    lines = [
        *PROJECT["dependencies"],
        *(each for extra in extras for each in PROJECT["optional-dependencies"][extra]),
    ]
    asked_for = {canonicalize_name(Requirement(line).name) for line in lines}
    assert {name: where for name, where in imported(room).items() if name not in asked_for} == {}


def test_the_client_imports_what_its_own_wheel_asks_for() -> None:
    """Three packages, which whoever calls gRPC has anyway."""
    asked_for = {canonicalize_name(Requirement(line).name) for line in CLIENT["dependencies"]}
    assert asked_for == {"grpcio", "protobuf", "googleapis-common-protos"}
    assert imported("client/wedsync").keys() == asked_for


IN_AN_IMAGE = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
for name in {modules!r}:
    importlib.import_module(name)
"""


def test_what_an_image_runs_starts_without_the_workshop() -> None:
    """Services, the one-shot, the probe and the command line find everything in the runtime packages."""
    locked = {
        line.partition("==")[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    absent = {
        top
        for top, providers in packages_distributions().items()
        if not {canonicalize_name(provider) for provider in providers} & locked
    }
    services = [f"services.{path.parent.name}.main" for path in (ROOT / "services").glob("*/main.py")]
    modules = [*services, "shared.health_probe", "cli.main"]
    program = IN_AN_IMAGE.format(absent=absent - OUR_OWN, modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
