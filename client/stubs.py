"""Puts the stubs of the contract into the wheel, while it is built in a checkout of the suite."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = Path(__file__).resolve().parents[1] / "protos"


class Stubs(BuildHookInterface[Any]):
    """Makes them anew for each build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs."""
        sys.path.insert(0, str(PROTOS))
        from callers import write

        self._folder = TemporaryDirectory()
        write(Path(self._folder.name))
        build_data["force_include"][f"{self._folder.name}/wedsync"] = "wedsync"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling after it has packed."""
        self._folder.cleanup()
