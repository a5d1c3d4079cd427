"""How soon a step is seen, and how soon a long run opens: viewers beside many points a second, then a million steps."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import time

import httpx2
import uvloop

from benchmarks.live_service import (
    METRIC_KEYS,
    LiveService,
    cpu_s,
    fill_metrics,
    live_service,
    load_average,
    spike_step,
)
from benchmarks.load import CHARTED, client_of, create_jobs, quantile, writing
from benchmarks.load_generator import head

NUM_RUNS = 10
NUM_VIEWERS = 50
POINTS_PER_S = 20_000
SEEN_S = 2.0
OPENED_S = 1.0
NUM_ASKED = 5


def main(*, seconds: int, num_steps: int) -> int:
    """Prints both; 1 when a promise is broken."""
    print(f"load average before: {load_average()}")
    with live_service(rate_limit="") as service:
        seen = _watch(service, seconds)
        opened = _open(service, num_steps)
    kept = seen < SEEN_S and opened < OPENED_S
    print("promises kept" if kept else f"PROMISE BROKEN: seen within {SEEN_S} s (p95), opened within {OPENED_S} s")
    return 0 if kept else 1


def _watch(service: LiveService, seconds: int) -> float:
    """The 95th percentile of the seconds from a trainer's word to a viewer's eye."""
    steps_per_s = POINTS_PER_S / len(METRIC_KEYS)
    job_ids = create_jobs(service, NUM_RUNS)
    before = service.cpu_s()
    with writing(service, job_ids, steps_per_s=steps_per_s) as writer:
        command = [sys.executable, "-m", "benchmarks.watch", str(service.port), service.key, str(seconds), *job_ids]
        told = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        after = service.cpu_s()
        used = {name: after[name] - before[name] for name in before} | {"worker": cpu_s([writer.pid])}
    delays, num_seen = json.loads(told)["delays"], json.loads(told)["num_seen"]
    if not delays:
        print(f"no step was seen in {seconds} s")
        return math.inf
    figures = [quantile(sorted(delays), share) for share in (0.5, 0.95, 0.99)]
    print(
        f"{NUM_VIEWERS} viewers of {NUM_RUNS} runs, {steps_per_s:.0f} steps/s of {len(METRIC_KEYS)} figures each, "
        f"{seconds} s: a step is seen after "
        + ", ".join(f"{figure:.2f} s ({name})" for figure, name in zip(figures, ("p50", "p95", "p99"), strict=True))
    )
    expected = steps_per_s * seconds * NUM_VIEWERS / NUM_RUNS
    print(f"steps seen: {num_seen} of about {expected:.0f}; CPU-seconds: ", end="")
    print(", ".join(f"{name} {seconds:.1f}" for name, seconds in used.items()))
    return figures[1]


def _open(service: LiveService, num_steps: int) -> float:
    """The longest that one of several ways to open a long run takes, each the median of NUM_ASKED."""
    (job_id,) = create_jobs(service, 1)
    started = time.monotonic()
    fill_metrics(service.database, job_id, num_steps)
    print(f"a run of {num_steps:,} steps of {len(METRIC_KEYS)} figures, made in {time.monotonic() - started:.0f} s:")
    path, last = f"/v1/fine_tuning/jobs/{job_id}/metrics", num_steps
    asked: dict[str, dict[str, str | int] | None] = {
        "six curves, 1,000 points": {"keys": CHARTED, "max_points": 1000},
        "one curve, 1,000 points": {"keys": "reward/mean", "max_points": 1000},
        "all curves, 1,000 points": {"max_points": 1000},
        "a tenth of it, six curves": {
            "keys": CHARTED,
            "max_points": 1000,
            "from_step": last // 2 + 77,
            "to_step": last // 2 + last // 10,
        },
        "the job itself": None,
    }
    slowest = 0.0
    with client_of(service) as client:
        for name, query in asked.items():
            url = path if query is not None else path.removesuffix("/metrics")
            before = service.cpu_s()
            took, answer = _median(client, url, query)
            after = service.cpu_s()
            slowest = max(slowest, took)
            found = "" if query is None else _describe(answer, num_steps)
            cpu = ", ".join(f"{each} {1000 * (after[each] - before[each]) / NUM_ASKED:.0f} ms" for each in before)
            print(f"  {name:28}{1000 * took:>7.0f} ms{len(answer.content) / 1000:>9.0f} kB, CPU {cpu}{found}")
    return slowest


def _describe(answer: httpx2.Response, num_steps: int) -> str:
    points = answer.json()["data"]
    spike = any(point["step"] == spike_step(num_steps) for point in points)
    return f", {len(points)} points{', the spike among them' if spike else ''}"


def _median(client: httpx2.Client, path: str, query: dict[str, str | int] | None) -> tuple[float, httpx2.Response]:
    times = []
    for number in range(NUM_ASKED):
        fresh = query and query | {"max_points": 1000 - number}  # an answer that was given before is kept
        started = time.monotonic()
        answer = client.get(path, params=fresh).raise_for_status()
        times.append(time.monotonic() - started)
    return sorted(times)[NUM_ASKED // 2], answer


# --- the viewers, a process of their own ---------------------------------------------------------------------------

_SAID = re.compile(rb'"created_at":([0-9.]+)')


async def _view(port: int, key: str, path: str, delays: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    writer.write(head("GET", path, key).encode())
    try:
        while received := await reader.read(2**18):
            now = time.time()
            delays += [now - float(said) for said in _SAID.findall(received)]
    finally:
        writer.close()


async def _view_all(port: int, key: str, seconds: int, job_ids: list[str]) -> list[float]:
    delays: list[float] = []
    paths = [f"/v1/fine_tuning/jobs/{job_ids[n % len(job_ids)]}/metrics/stream?after=0" for n in range(NUM_VIEWERS)]
    viewers = [asyncio.create_task(_view(port, key, path, delays)) for path in paths]
    await asyncio.sleep(2.0)
    delays.clear()  # what was said before they came is replayed, late by nature
    await asyncio.sleep(seconds)
    if ended := [viewer for viewer in viewers if viewer.done()]:
        sys.stderr.write(f"{len(ended)} viewers ended early: {ended[0].exception()!r}\n")
    for viewer in viewers:
        viewer.cancel()
    await asyncio.gather(*viewers, return_exceptions=True)
    return delays


if __name__ == "__main__":
    found = uvloop.run(_view_all(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
    print(json.dumps({"delays": sorted(found)[:: max(1, len(found) // 20_000)], "num_seen": len(found)}))
