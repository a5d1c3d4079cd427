"""The trainer as a child process: started, watched, stopped. Knows no database and no job.

It lives in a session of its own and dies with us: the kernel kills it when the thread that started it ends, and it
leaves by itself when its standard input closes.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from api.errors import Fenced
from stapo_core.config import RunConfig
from stapo_core.failpoints import failpoint
from stapo_core.folders import make_durably, sync
from stapo_core.graders.judges import JUDGES_FILE, asks_judges

TRAINER: tuple[str, ...] = (sys.executable, "-m", "stapo_core")
LOG_NAME = "trainer.log"
EVICTION_S = 10.0
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|XDG_CACHE_HOME|LD_LIBRARY_PATH|VIRTUAL_ENV"
    r"|(CUDA|NVIDIA|NCCL|TORCH|TRITON|OMP|MKL|OPENBLAS|VLLM)_?.*|FAILPOINTS|STAPO_USER_CODE"
)


@dataclass
class Trainer:
    """A running trainer."""

    run_dir: Path
    process: subprocess.Popen[bytes]
    is_stalled: bool = False
    """It was killed because it had been silent for too long."""
    was_asked: bool = False
    """It was asked to save and leave."""
    _kill_at: float | None = field(default=None)
    _spool_bytes: int = field(default=0)
    _heard_at: float = field(default_factory=time.monotonic)

    def exit_code(self) -> int | None:
        """The exit code, or None while it runs; minus the signal's number when one ended it."""
        return self.process.poll()

    def wait(self, timeout_s: float) -> None:
        """Waits for the end, at most so long."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return

    def stop(self, *, grace_s: float) -> None:
        """Asks it to save and leave; call again while it lives: it is killed once `grace_s` seconds have passed.

        When the calls differ in their grace, the earliest end that any of them gave it holds.
        """
        latest = time.monotonic() + grace_s
        if self._kill_at is None:
            self._kill_at, self.was_asked = latest, True
            self.process.send_signal(signal.SIGTERM)
        self._kill_at = min(self._kill_at, latest)
        if time.monotonic() > self._kill_at:
            self.kill()

    def kill_if_stalled(self, stall_s: float) -> None:
        """Ends it when its spool has not grown for `stall_s` seconds, as seen by calls of this function."""
        try:
            size = (self.run_dir / "events.jsonl").stat().st_size
        except FileNotFoundError:
            size = 0
        if size != self._spool_bytes:
            self._spool_bytes, self._heard_at = size, time.monotonic()
        elif time.monotonic() - self._heard_at > stall_s:
            self.is_stalled = True
            self.kill()

    def kill(self) -> None:
        """Ends it and every process of its session at once; returns when it is gone."""
        _kill_group(self.process.pid)
        self.process.wait()

    def close(self) -> None:
        """Leaves nothing behind: neither the trainer, nor a child of its own, nor the lifeline."""
        self.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()


def start_trainer(
    run_dir: Path, config: RunConfig, *, fence: int, environment: Mapping[str, str] | None = None
) -> Trainer:
    """Writes the config and starts a trainer in the run directory; one that an earlier attempt left is ended first.

    `environment` is added to what every child may see.

    Raises Fenced when a later attempt has been here, and OSError when the disk is full.
    """
    make_durably(run_dir.parent)
    run_dir.mkdir(mode=0o700, exist_ok=True)
    sync(run_dir.parent)
    _enter(run_dir, fence)
    _evict(run_dir)
    (run_dir / "config.json").write_text(config.model_dump_json(indent=2))
    failpoint("spawning")
    with (run_dir / LOG_NAME).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            [*TRAINER, str(run_dir), "--die-with-parent"],
            cwd=run_dir,
            env=child_environment() | _way_to_judges(config) | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Trainer(run_dir, process)


def tail_log(run_dir: Path, *, num_lines: int = 20) -> list[str]:
    """The last lines of the trainer's log."""
    try:
        with (run_dir / LOG_NAME).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64 * 1024))
            return log.read().decode(errors="replace").replace("\0", "\ufffd").splitlines()[-num_lines:]
    except FileNotFoundError:
        return []


def child_environment() -> dict[str, str]:
    """What a child may see: paths and accelerator settings, none of the service's addresses and secrets."""
    passed = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    return passed | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _way_to_judges(config: RunConfig) -> dict[str, str]:
    """Where the list of judges is, for a trainer whose grader asks one: a path, no key."""
    path = os.environ.get(JUDGES_FILE)
    return {JUDGES_FILE: path} if path and asks_judges(config.grader) else {}


def _enter(run_dir: Path, fence: int) -> None:
    """A worker that was suspended before it came here must not end the trainer of the attempt that took its place."""
    path = run_dir / "fence"
    newest = path.read_text() if path.exists() else ""
    if newest.isdigit() and int(newest) > fence:
        raise Fenced(f"attempt {newest} has been in {run_dir}, and this is attempt {fence}")
    path.write_text(str(fence))


def _evict(run_dir: Path) -> None:
    """Kills a trainer that still holds the run directory: its worker has lost the job."""
    try:
        lock = (run_dir / "lock").open("r+")
    except FileNotFoundError:
        return
    deadline = time.monotonic() + EVICTION_S
    with lock:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _kill_holder(lock.read(), run_dir)
                lock.seek(0)
                time.sleep(0.1)
            else:
                return


def _kill_holder(pid: str, run_dir: Path) -> None:
    if not pid.strip().isdigit():
        return
    try:
        arguments = Path(f"/proc/{pid.strip()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return
    if str(run_dir).encode() in arguments:  # a pid may have become somebody else's
        _kill_group(int(pid))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
