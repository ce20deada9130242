"""Lints the contract with buf, and compares it with the one committed before, so that no caller is broken by accident.

The contract before is HEAD's while the sources differ from it, else the one that the last commit on them replaced. A
commit that means to break callers says so, and why, in its message: `Breaks-contract: …`.
"""

import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from generate import PROTOS, ProtocFailedError, build_image

REPOSITORY = PROTOS.parent
BUF = Path(sys.executable).parent / "buf"
# A checkout that belongs to another user (root in a container) is read all the same.
GIT = ("git", "-C", str(REPOSITORY), "-c", f"safe.directory={REPOSITORY}")
SOURCES = ("protos/*.proto", ":(exclude)protos/buf/*")
TRAILER = "Breaks-contract"


def main() -> int:
    """Runs both checks; 0 when both pass."""
    try:
        image = build_image(PROTOS)
        return _buf("lint", image) or _breaking(image)
    except ProtocFailedError:
        return 1


def _breaking(image: bytes) -> int:
    before, reason = _previous_contract()
    if before is None:
        print(f"buf breaking: {reason}")
        return 0
    with TemporaryDirectory() as folder:
        archive = subprocess.run(
            [*GIT, "archive", "--format=zip", before, "protos"], capture_output=True, check=True
        )
        ZipFile(BytesIO(archive.stdout)).extractall(folder)
        previous = Path(folder) / "previous.binpb"
        previous.write_bytes(build_image(Path(folder) / "protos"))
        return _buf("breaking", image, "--against", str(previous))


def _previous_contract() -> tuple[str | None, str]:
    """The commit to compare with, or None and why there is nothing to compare with."""
    if shutil.which("git") is None or _git("rev-parse", "--git-dir") is None:
        return None, "without git there is nothing to compare with"
    if _git("rev-parse", "--verify", "--quiet", "HEAD") is None:
        return None, "nothing is committed yet"
    if _git("status", "--porcelain", "--", *SOURCES):
        before: str | None = "HEAD"
    else:
        last = _git("log", "-1", "--format=%H", "--", *SOURCES) or "HEAD"
        broken_for = _git("log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)", last)
        if broken_for:
            return None, f"the last change breaks callers on purpose: {broken_for}"
        before = _git("rev-parse", "--verify", "--quiet", f"{last}^")
    if before is None or not _git("ls-tree", "-r", "--name-only", before, "--", "protos/wedsync"):
        return None, "no contract was committed before this one"
    return before, ""


def _git(*arguments: str) -> str | None:
    done = subprocess.run([*GIT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _buf(command: str, image: bytes, *options: str) -> int:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "contract.binpb"
        path.write_bytes(image)
        return subprocess.run(
            [BUF, command, path, "--config", REPOSITORY / "buf.yaml", *options], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
