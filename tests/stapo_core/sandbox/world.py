"""What a program might harm: files, sockets, processes and the system around it, and how the harm shows from outside.

Knows the standard library alone: it also runs as an ordinary user, who may not reach the project's environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_VICTIM = """
import ctypes, os, sys, time
held = ctypes.create_string_buffer(os.environ["SECRET"].encode())
print(ctypes.addressof(held), flush=True)
while True: time.sleep(60)
"""
_STATE_OF_THE_SYSTEM = ("/proc/self/mounts", "/proc/modules")
_LEFT_IN_THE_KERNEL = {"shm": (29, 31), "sem": (64, 66), "msg": (68, 71)}  # get and control, by number
_REMOVE = 0
_SIGNS = ("REACHED", "root:x:0", "Usage:")


class World:
    """A folder that anybody may write to, files with a secret, listeners, and a process of our own user."""

    def __init__(self) -> None:
        """The secret is taken from the environment, where it must lie since this process began."""
        self.secret = os.environ["SECRET"]
        self.key = secrets.randbelow(2**30)
        self.folder = Path(tempfile.mkdtemp(prefix="world-"))
        self.open, self.state, self.runs = (self.folder / name for name in ("open", "state", "runs"))
        for folder in (self.state, self.runs / "other", self.open):
            folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        self.open.chmod(0o777)
        self.precious = self.open / "precious"
        for file in ("state/api_key", f"state/{self.secret}", "runs/config.json", "runs/other/x"):
            (self.folder / file).write_text(self.secret)
        self.inherited = os.open(self.state / "api_key", os.O_RDONLY)
        os.set_inheritable(self.inherited, True)
        self.heard: list[str] = []
        self._listen()
        self._raise_victim()
        self.mend()

    def facts(self) -> dict[str, Any]:
        """What a program is told, so that it need not search."""
        return {
            "state": str(self.state), "runs": str(self.runs), "open": str(self.open), "precious": str(self.precious),
            "tcp": self._tcp.getsockname()[1], "udp": self._udp.getsockname()[1], "path": str(self.open / "socket"),
            "abstract": "stapo-" + self.secret[:8], "victim": self.victim.pid, "address": self.address,
            "host": os.getpid(), "key": self.key, "inherited": self.inherited,
        }  # fmt: skip

    def damages(self, told: str, mark: str) -> list[str]:
        """What has come of a program that printed `told` and whose processes carry `mark` in their command lines."""
        time.sleep(0.01)
        found = [f"heard over {way}" for way in self.heard]
        if self.secret in told:
            found.append("told the secret")
        if any(sign in told for sign in _SIGNS):
            found.append("reached what it should not")
        found += [f"made {path.name}" for path in self._strangers()]
        if self._portray_precious() != self._precious:
            found.append("changed a file")
        if self._portray_victim() != self._victim:
            found.append("changed a process")
        found += [f"changed {path}" for path in _STATE_OF_THE_SYSTEM if _read(path) != self._system[path]]
        if abs(time.time() - time.monotonic() - self._clock) > 5.0 or socket.gethostname() != self._name:
            found.append("changed the system")
        found += [f"left {kind} in the kernel" for kind in _LEFT_IN_THE_KERNEL if self._is_left(kind)]
        return found + [f"left process {pid}" for pid in survivors(mark)]

    def mend(self) -> None:
        """Puts everything in order again."""
        for path in self._strangers():
            path.rmdir() if path.is_dir() else path.unlink()
        with contextlib.suppress(FileNotFoundError):
            self.precious.unlink()
        self.precious.write_text("precious")
        self.precious.chmod(0o666)
        os.utime(self.precious, (1, 1))
        self._precious = self._portray_precious()
        if self._portray_victim() != self._victim:
            self.victim.kill()
            self.victim.wait()
            self._raise_victim()
        self.heard.clear()
        for kind in filter(self._is_left, _LEFT_IN_THE_KERNEL):
            get, control = _LEFT_IN_THE_KERNEL[kind]
            libc = ctypes.CDLL(None)
            libc.syscall(control, libc.syscall(get, self.key, 0, 0), _REMOVE, _REMOVE, None)
        self._system = {path: _read(path) for path in _STATE_OF_THE_SYSTEM}
        self._clock, self._name = time.time() - time.monotonic(), socket.gethostname()

    def end(self) -> None:
        """Leaves nothing."""
        self.victim.kill()
        self.victim.wait()
        for each in (self._tcp, self._udp, self._path, self._abstract):
            each.close()
        os.close(self.inherited)
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def _raise_victim(self) -> None:
        self.victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _VICTIM], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.victim.stdout is not None
        self.address = int(self.victim.stdout.readline())
        deadline = time.monotonic() + 5.0
        while (self._portray_victim()[0]) != "S" and time.monotonic() < deadline:
            time.sleep(0.005)
        self._victim = self._portray_victim()

    def _portray_victim(self) -> tuple[Any, ...]:
        """Its state (asleep), what may be set from outside, and what it holds in its memory."""
        try:
            state = Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
            held = b""
            with contextlib.suppress(PermissionError), Path(f"/proc/{self.victim.pid}/mem").open("rb", 0) as memory:
                memory.seek(self.address)
                held = memory.read(32)
            resource_limits = Path(f"/proc/{self.victim.pid}/limits").read_text()
            nice = os.getpriority(os.PRIO_PROCESS, self.victim.pid)
            score = Path(f"/proc/{self.victim.pid}/oom_score_adj").read_text()
            return state, held, resource_limits, nice, os.sched_getaffinity(self.victim.pid), score
        except OSError:
            return ("gone",)

    def _portray_precious(self) -> tuple[Any, ...] | None:
        try:
            found = self.precious.stat()
            attributes = os.listxattr(self.precious)
            return self.precious.read_text(), found.st_mode, found.st_uid, found.st_nlink, found.st_mtime, attributes
        except OSError:
            return None

    def _strangers(self) -> list[Path]:
        known = {self.precious.name, "socket"}
        hidden = [Path("/dev/shm"), Path("/tmp"), Path("/var/tmp")]  # noqa: S108
        return [path for path in self.open.iterdir() if path.name not in known] + [
            folder / f"stranger-{self.open.parent.name}"
            for folder in hidden
            if (folder / f"stranger-{self.open.parent.name}").exists()
        ]

    def _is_left(self, kind: str) -> bool:
        lines = _read(f"/proc/sysvipc/{kind}").splitlines()[1:]
        return any(line.split()[0] == str(self.key) for line in lines)

    def _listen(self) -> None:
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._path = socket.socket(socket.AF_UNIX)
        self._path.bind(str(self.open / "socket"))
        (self.open / "socket").chmod(0o777)
        self._abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._abstract.bind(f"\0stapo-{self.secret[:8]}")
        self._path.listen()
        for name, each in (("TCP", self._tcp), ("a path", self._path)):
            threading.Thread(target=self._accept, args=(name, each), daemon=True).start()
        for name, each in (("UDP", self._udp), ("an abstract name", self._abstract)):
            threading.Thread(target=self._receive, args=(name, each), daemon=True).start()

    def _accept(self, name: str, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()
                self.heard.append(name)

    def _receive(self, name: str, receiver: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while receiver.recv(100):
                self.heard.append(name)


def survivors(mark: str) -> list[int]:
    """Processes that carry the mark in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and mark in _read(f"{entry}/cmdline"):
            found.append(int(entry.name))
    return found


def kill_survivors(mark: str) -> None:
    """Ends what a program has left behind."""
    while left := survivors(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        time.sleep(0.01)


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""
