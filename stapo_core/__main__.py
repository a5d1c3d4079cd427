"""The trainer as a process: `python -m stapo_core RUN_DIR [--die-with-parent]`, or several under `torchrun -m`.

Knows signals, the lock, the parent and exit codes; everything it learns about the run goes into events.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from stapo_core.config import RunConfig
from stapo_core.config.faults import find_faults
from stapo_core.estimate import estimate_run
from stapo_core.events import (
    EXIT_BAD_CONFIG,
    EXIT_DONE,
    EXIT_FENCED,
    EXIT_HALTED,
    EXIT_STOPPED,
    Failed,
    Finished,
    Halted,
    Stage,
)
from stapo_core.spool import Spool, is_storage_full

EXIT_CRASHED = 1
_PR_SET_PDEATHSIG = 1


class StopFlag:
    """Set by a signal, read between two pieces of work."""

    def __init__(self) -> None:
        self._is_set = False

    def __call__(self) -> bool:
        """Whether the run was asked to stop."""
        return self._is_set

    def listen(self) -> None:
        """Lets SIGTERM and SIGINT set the flag, and do nothing else."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)

    def _set(self, _number: int, _frame: FrameType | None) -> None:
        self._is_set = True


def main(arguments: list[str] | None = None) -> int:
    """Runs the trainer in a run directory; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stapo_core", description="Trains from RUN_DIR/config.json.")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")
    parser.add_argument("--estimate", action="store_true", help="print what the run will take, and start nothing")
    options = parser.parse_args(arguments)
    if options.estimate:
        return print_estimate(options.run_dir)
    if options.die_with_parent:
        die_with_parent()
    should_stop = StopFlag()
    should_stop.listen()
    if not options.run_dir.is_dir():
        print(f"{options.run_dir} is not a folder", file=sys.stderr)  # noqa: T201  # there is no spool to write to
        return EXIT_BAD_CONFIG
    try:
        return _hold(options.run_dir, should_stop)
    except OSError as error:
        if not is_storage_full(error):
            raise
        traceback.print_exc()  # into the log, if that has room: the spool had none
        return EXIT_HALTED


def _hold(run_dir: Path, should_stop: StopFlag) -> int:
    """Runs while it holds the run directory, alone."""
    rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    mark = "" if rank == 0 else f"-{rank}"  # events and lock are rank 0's; what the others say is for their eyes alone
    lock = take_lock(run_dir / f"lock{mark}")
    if lock is None:
        print(f"another trainer holds {run_dir}", file=sys.stderr)  # noqa: T201  # the spool is the other's
        return EXIT_FENCED
    spool = Spool(run_dir / f"events{mark}.jsonl")
    try:
        return _run(run_dir, spool, should_stop, rank, size)
    finally:
        spool.sync()
        spool.close()
        os.close(lock)


def _run(run_dir: Path, spool: Spool, should_stop: StopFlag, rank: int, size: int) -> int:
    try:
        config = RunConfig.model_validate_json((run_dir / "config.json").read_bytes())
    except FileNotFoundError:
        return _refuse(spool, "config_missing", f"{run_dir} holds no config.json", None)
    except ValidationError as error:
        first = find_faults(error, RunConfig)[0]
        return _refuse(spool, "invalid_config", str(first), first.param or None)

    # Imported only now: a config that cannot be read is refused without the seconds that torch takes to load.
    from stapo_core.build import BadInput, build
    from stapo_core.distributed import connect, disconnect
    from stapo_core.grading import OneScore
    from stapo_core.learner import Diverged
    from stapo_core.rollout import Mismatch
    from stapo_core.train import train

    stage: Stage = "loading"
    run = None
    try:
        ranks = connect(rank, size)
        run = build(
            config,
            run_dir.absolute(),
            spool=spool,
            should_stop=should_stop,
            ranks=ranks,
            allows_user_code=os.environ.get("STAPO_USER_CODE") == "sandboxed",
        )
        outcome = train(run)
        disconnect(ranks)
    except BadInput as error:
        return _refuse(spool, error.code, str(error), error.param)
    except OneScore as error:
        return _refuse(spool, error.code, str(error), error.param, stage="grading")
    except Exception as error:  # the process ends here: the supervisor reads the event, the log has the trace
        traceback.print_exc()
        stage = run.report.stage if run else stage
        if is_storage_full(error):
            spool.emit(Halted, stage=stage, reason="storage_full", message=_describe(error))
            return EXIT_HALTED
        hopeless = {Diverged: "not_finite", Mismatch: "sampler_mismatch"}  # another attempt ends the same
        code = next((code for kind, code in hopeless.items() if isinstance(error, kind)), "crashed")
        spool.emit(Failed, stage=stage, code=code, message=_describe(error), retryable=code == "crashed")
        return EXIT_CRASHED
    finally:
        if run is not None:
            run.grading.close()
            run.sampler.close()
    if outcome.reason == "grader_errors":
        spool.emit(Halted, stage="grading", reason=outcome.reason, message=outcome.message)
        return EXIT_HALTED
    spool.emit(Finished, step=outcome.step, reason=outcome.reason)
    return EXIT_DONE if outcome.reason == "num_steps_reached" else EXIT_STOPPED


def print_estimate(run_dir: Path) -> int:
    """Prints the memory and work that the run will take on this machine; no model is loaded and nothing is written."""
    try:
        config = RunConfig.model_validate_json((run_dir / "config.json").read_bytes())
        found = estimate_run(config)
    except (OSError, ValueError, KeyError) as error:
        print(f"no estimate: {_describe(error)}", file=sys.stderr)  # noqa: T201  # asked for on a terminal
        return EXIT_BAD_CONFIG
    print("\n".join(found.lines()))  # noqa: T201  # asked for on a terminal
    return EXIT_DONE


def _refuse(spool: Spool, code: str, message: str, param: str | None, stage: Stage = "loading") -> int:
    spool.emit(Failed, stage=stage, code=code, message=message, param=param, retryable=False)
    return EXIT_BAD_CONFIG


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def take_lock(path: Path) -> int | None:
    """Locks the file and writes this process's id into it; None when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def die_with_parent() -> None:
    """Has the kernel kill this process with its parent, and watches stdin, which the parent holds open."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(EXIT_CRASHED)
    threading.Thread(target=_wait_for_end_of_stdin, name="lifeline", daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(EXIT_CRASHED)


if __name__ == "__main__":
    sys.exit(main())
