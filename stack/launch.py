"""The last step before a program: drops to its user, ties its life to its parent's, then becomes it.

Runs by path in an isolated interpreter, in the process that the program then takes over, because doing this in
a forked copy of a process with threads (gRPC, progress bars) is unsafe.
Arguments: parent pid, death signal, niceness, uid (-1 keeps the caller's), gid, then the command.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def _drop_to(uid: int, gid: int) -> None:
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _die_with(parent: int, death_signal: int) -> None:
    # After the drop: a change of user clears the setting. Before the check: the parent may already be gone.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this one has ended")


def main() -> None:
    """Become the command of the arguments, or end with a sentence on standard error."""
    parent, death_signal, niceness, uid, gid = (int(value) for value in sys.argv[1:6])
    command = sys.argv[6:]
    os.nice(niceness)
    try:
        _drop_to(uid, gid)
        _die_with(parent, death_signal)
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")


if __name__ == "__main__":
    main()
