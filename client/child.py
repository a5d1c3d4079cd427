"""The first breath of every child: die with the parent, become the right user, then exec the real program.

Runs as a bare file (`python -I -S child.py PARENT SIGNAL USER FOLDER PROGRAM ARGUMENT…`), so it imports nothing of
ours and little of Python's. A `preexec_fn` would run between fork and exec of a threaded parent; this does not.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_NOT_STARTED = 127


def main(parent: str, signal: str, user: str, folder: str, *command: str) -> None:
    """Never returns: `user` is `uid:gid` or `-` to stay who we are; `folder` is the working directory."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o077)
    if user != "-":
        uid, gid = (int(part) for part in user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.chdir(folder)
    # After the change of user, which clears the setting; before the look at the parent, which may die in between.
    if libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):
        raise SystemExit(EXIT_NOT_STARTED)
    os.execv(command[0], command)  # noqa: S606  # the whole purpose: no shell is involved


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"{sys.argv[5]} could not be started: {error}\n")
        raise SystemExit(EXIT_NOT_STARTED) from error
