"""The most memory that a process has had at once, as the kernel noted it."""

from pathlib import Path


def forget_peak(pid: int) -> None:
    """From now on the high-water mark is that of now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The high-water mark of resident memory."""
    return _status_mib(pid, "VmHWM:")


def resident_mib(pid: int) -> float:
    """What is resident now."""
    return _status_mib(pid, "VmRSS:")


def _status_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} tells nothing of {name}")
