"""Tries every probe in the cage, and those that are safe without it too: `python -m tests.stapo_core.sandbox.escape`.

It writes what came of each as JSON. The second try is the control: a probe that does harm where nothing holds it can
fail. It knows the standard library and the sandbox alone, and runs as whoever starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from stapo_core.sandbox.host import Program, Sandbox
from tests.stapo_core.sandbox import files, kernels, processes
from tests.stapo_core.sandbox.bombs import BOMBS
from tests.stapo_core.sandbox.prelude import PRELUDE
from tests.stapo_core.sandbox.world import World, kill_survivors

PROBES: dict[str, str] = files.PROBES | processes.PROBES | kernels.PROBES
DEPENDS_ON_THE_KERNEL = frozenset(kernels.PROBES) | {
    "read_by_openat2", "read_by_handle", "set_attribute", "make_device", "watch_everything", "socket_raw",
    "socket_packet", "clone3_by_number", "kill_by_descriptor", "trace_victim", "seize_victim", "ask_to_be_traced",
    "read_victims_memory", "write_victims_memory", "read_victims_memory_file", "write_victims_memory_file",
    "steal_a_descriptor", "compare_with_victim", "move_victim",
}  # fmt: skip
"""Without the cage these may fail all the same: older kernels, containers and settings for safety refuse them."""


def is_harmful(name: str, user: str) -> bool:
    """Whether the probe does harm without the cage, wherever the kernel can do such a thing."""
    return PROBES[name].split("\n")[0] in ("#! both", f"#! {user}")


def main(user: str) -> None:
    """`user` is root or ordinary."""
    world = World()
    sandbox = Sandbox()
    report: dict[str, dict[str, list[str]]] = {}
    try:
        for name, probe in PROBES.items():
            source = f"{PRELUDE}\nW = {world.facts()!r}\n{probe}\n"
            outcome = sandbox.run(Program(source, timeout_s=5.0, name="__main__"))
            caged = world.damages(outcome.stdout, mark="nothing bears this mark")
            caged += [outcome.ended] if outcome.ended != "by_itself" else []
            world.mend()
            free: list[str] = []
            if is_harmful(name, user):
                free = _run_free(world, source)
                world.mend()
            report[name] = {"caged": caged, "free": free}
        for name, (endings, bomb) in BOMBS.items():
            timeout_s = 0.7 if "timeout" in endings else 60.0
            outcome = sandbox.run(Program(PRELUDE + bomb, timeout_s, name="__main__"))
            harm = world.damages(outcome.stdout, mark="nothing bears this mark")
            harm += [] if outcome.ended in endings else [outcome.ended]
            harm += ["took too much memory"] if outcome.memory_bytes > 2 * 2**30 else []
            left = sandbox.run(Program("import os\nprint(os.listdir())", timeout_s=5.0)).stdout
            report[name] = {"caged": harm + ([] if left == "[]\n" else [left]), "free": []}
    finally:
        world.end()
        sandbox.close()
    json.dump(report, sys.stdout)


def _run_free(world: World, source: str) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="free-") as folder:
        file, told = Path(folder) / f"{os.urandom(8).hex()}.py", Path(folder) / "told"
        file.write_text(source)
        with told.open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(file)],
                stdout=stdout, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                cwd=folder, close_fds=False, start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3.0)
        found = world.damages(told.read_text(errors="replace"), mark=file.name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        kill_survivors(file.name)
        process.wait()
    return found


if __name__ == "__main__":
    main(sys.argv[1])
