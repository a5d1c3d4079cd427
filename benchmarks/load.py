"""The API under load: mixed requests at a fixed rate beside open streams, on a real Postgres, Valkey and uvicorn."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import text

from benchmarks.live_service import LiveService, cpu_s, fill_metrics, live_service, load_average, rss_mb
from benchmarks.load_generator import Connections, head
from benchmarks.timeline import Timeline

NUM_JOBS = 40
NUM_LIVE = 10
NUM_FILES = 10
STEPS_BEFORE = 5_000
NUM_ASKED = 100
P99_MS = 250.0
CHARTED = "reward/mean,policy/entropy,policy/loss,policy/grad_norm,mask/ppm,response/length_mean"


def main(*, rate: int, num_streams: int, seconds: int, warm_up_s: int = 10) -> int:
    """Prints the latencies; 1 when the promise is broken."""
    before = load_average()
    with live_service(rate_limit="") as service:
        job_ids = _fill(service)
        with writing(service, job_ids[:NUM_LIVE], steps_per_s=NUM_LIVE) as writer:
            plan = _plan(service, job_ids, rate=rate, num_streams=num_streams, seconds=seconds, warm_up_s=warm_up_s)
            costs = asyncio.run(_costs(service, plan))
            measured = _run(service, plan, writer) | {"costs": costs}
    print(f"{rate} requests/s and {num_streams} streams for {seconds} s; load average before {before}")
    return _report(measured, seconds=seconds)


@contextmanager
def writing(service: LiveService, job_ids: Sequence[str], *, steps_per_s: float) -> Iterator[subprocess.Popen[str]]:
    """A process that lets the oldest jobs run meanwhile."""
    command = [sys.executable, "-m", "benchmarks.load_writer", str(steps_per_s), *job_ids]
    writer = subprocess.Popen(command, env=service.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "ready\n"
        yield writer
    finally:
        writer.stdin.close()
        writer.wait()


def create_jobs(service: LiveService, count: int) -> list[str]:
    """Queues some jobs over the wire; their ids, oldest first."""
    with client_of(service) as client:
        file_id = _upload(client)
        bodies = [_job_body(file_id) | {"suffix": f"bench{number}"} for number in range(count)]
        answers = [client.post("/v1/fine_tuning/jobs", json=body) for body in bodies]
    return [answer.raise_for_status().json()["id"] for answer in answers]


def client_of(service: LiveService) -> httpx2.Client:
    """A client that holds the tenant's key."""
    return httpx2.Client(base_url=service.url, headers={"Authorization": f"Bearer {service.key}"}, timeout=60.0)


def _fill(service: LiveService) -> list[str]:
    job_ids = create_jobs(service, NUM_JOBS)
    with client_of(service) as client:
        for _ in range(NUM_FILES):
            _upload(client)
    for job_id in job_ids[:NUM_LIVE]:
        fill_metrics(service.database, job_id, STEPS_BEFORE)
    rollouts = (
        "INSERT INTO rollouts (id, job_id, step, place, first_token, prompt_index, sample_index, reward, advantage, "
        "length, finish, num_candidates, num_masked, num_clipped, min_p, mean_entropy, prompt, preview) "
        "SELECT 'rollout-' || md5(:job || n::text), :job, n / 32 + 1, n % 32, 0, n, 0, random(), random(), 100, "
        "'stop', 3, 1, 0, 0.01, 0.5, repeat('what is 1+1? ', 10), repeat('it is 2. ', 20) "
        "FROM generate_series(0, 319) AS n"
    )
    with service.database.transaction() as session:
        for job_id in job_ids[:NUM_LIVE]:
            session.execute(text(rollouts), {"job": job_id})
    return job_ids


def _plan(service: LiveService, job_ids: list[str], **sizes: Any) -> dict[str, Any]:
    key, live, root = service.key, job_ids[:NUM_LIVE], "/v1/fine_tuning/jobs"
    with client_of(service) as client:
        etags = {job_id: client.get(f"{root}/{job_id}").headers["etag"] for job_id in job_ids}
        body = json.dumps(_job_body(_upload(client)))

    def get(path: str, **fields: str) -> str:
        return head("GET", path, key, **fields)

    mix = {
        "get a job": (20, [get(f"{root}/{job_id}") for job_id in live]),
        "get a job, If-None-Match": (
            10,
            [get(f"{root}/{job_id}", **{"If-None-Match": etags[job_id]}) for job_id in job_ids[NUM_LIVE:]],
        ),
        "list jobs": (15, [get(f"{root}?limit=20")]),
        "metrics, 6 keys, 500 points": (
            20,
            [get(f"{root}/{job_id}/metrics?keys={CHARTED}&max_points=500&kind=train") for job_id in live],
        ),
        "events": (12, [get(f"{root}/{job_id}/events?limit=20") for job_id in job_ids]),
        "rollouts": (10, [get(f"{root}/{job_id}/rollouts?limit=20") for job_id in live]),
        "list files": (10, [get("/v1/files?limit=20")]),
        "dry run of a job": (3, [head("POST", f"{root}?dry_run=true", key, body)]),
    }
    return {
        "host": "127.0.0.1",
        "port": service.port,
        "key": key,
        "seed": 0,
        "rate": sizes["rate"],
        "seconds": sizes["seconds"],
        "warm_up_s": sizes["warm_up_s"],
        "streams": [
            f"{root}/{live[number % NUM_LIVE]}/metrics/stream?after={STEPS_BEFORE + 1000}"
            for number in range(sizes["num_streams"])
        ],
        "mix": {name: {"weight": weight, "requests": requests} for name, (weight, requests) in mix.items()},
    }


async def _costs(service: LiveService, plan: dict[str, Any]) -> dict[str, str]:
    """CPU of the API and of Postgres for a request of each kind, one after another and with no stream open."""
    connections, costs = Connections(plan["host"], plan["port"]), {}
    for name, kind in plan["mix"].items():
        before = service.cpu_s()
        for number in range(NUM_ASKED):
            await connections.request(kind["requests"][number % len(kind["requests"])].encode())
        after = service.cpu_s()
        costs[name] = "".join(f"{1000 * (after[each] - before[each]) / NUM_ASKED:>9.2f}" for each in before)
    return costs


def _run(service: LiveService, plan: dict[str, Any], writer: subprocess.Popen[str]) -> dict[str, Any]:
    home = Path(service.settings.home)
    (home / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "benchmarks.load_generator", str(home / "plan.json"), str(home / "measured.json")]
    generator = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert generator.stderr is not None
    while (line := generator.stderr.readline()) != "load\n":
        if not line:
            raise RuntimeError("the load generator died")
        if line != "warm-up\n":
            print(line, end="")
    pids = {"writer": writer.pid, "generator": generator.pid}
    timeline = Timeline(service, pids)
    timeline.start()
    used = service.cpu_s() | {name: cpu_s([pid]) for name, pid in pids.items()}
    memory, started = [service.rss_mb()], time.monotonic()
    while time.monotonic() - started < plan["seconds"]:
        time.sleep(1.0)
        memory.append(rss_mb(service.api.pid))
    now = service.cpu_s() | {name: cpu_s([pid]) for name, pid in pids.items()}
    elapsed = time.monotonic() - started
    complaints = generator.stderr.read()
    timeline.stop()
    if generator.wait():
        raise RuntimeError(f"the load generator died: {complaints}")
    measured: dict[str, Any] = json.loads((home / "measured.json").read_text())
    answered = [pair for pairs in measured["latencies"].values() for pair in pairs]
    measured["timeline"] = timeline.rows(measured["started"], answered, measured["lags"])
    return measured | {"memory_mb": memory, "cores": {name: (now[name] - used[name]) / elapsed for name in used}}


def _report(measured: dict[str, Any], *, seconds: int) -> int:
    print(measured["timeline"])
    heads = ("requests", "p50 ms", "p95 ms", "p99 ms", "max ms", "CPU API", "CPU PG")
    print(f"{'':32}" + "".join(f"{each:>9}" for each in heads))
    found = {name: [latency for _, latency in each] for name, each in measured["latencies"].items()}
    everything = sorted(latency for each in found.values() for latency in each)
    for name, latencies in [*found.items(), ("all", everything)]:
        figures = [1000 * quantile(sorted(latencies), share) for share in (0.5, 0.95, 0.99, 1.0)]
        told = "".join(f"{figure:>9.1f}" for figure in figures)
        print(f"{name:32}{len(latencies):>9}{told}{measured['costs'].get(name, '')}")
    memory = measured["memory_mb"]
    third = len(memory) // 3
    early, at_last = max(memory[:third]), max(memory[-third:])
    print(f"errors: {measured['errors'] or 'none'}; events streamed: {measured['num_events']}")
    ends = f"{memory[0]:.0f} MB at first, {memory[-1]:.0f} MB at last"
    print(f"memory of the API: {ends}; most in the first third {early:.0f}, in the last {at_last:.0f}")
    print("cores used: " + ", ".join(f"{name} {share:.2f}" for name, share in measured["cores"].items()))
    late = 1000 * quantile(sorted(lag for _, lag in measured["lags"]), 0.99)
    print(f"the generator sent 99 % of its requests within {late:.1f} ms of their time")
    kept = 1000 * quantile(everything, 0.99) < P99_MS and not measured["errors"] and at_last < 1.1 * early + 5
    print("promise kept" if kept else f"PROMISE BROKEN: p99 below {P99_MS:.0f} ms, no error, memory flat")
    return 0 if kept else 1


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _upload(client: httpx2.Client) -> str:
    rows = "".join(json.dumps({"prompt": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(200))
    files = {"file": ("sums.jsonl", rows.encode())}
    answer = client.post("/v1/files", files=files, data={"purpose": "fine-tune"})
    return str(answer.raise_for_status().json()["id"])


def _job_body(file_id: str) -> dict[str, Any]:
    grader = {"type": "numeric", "reference": "{{item.answer}}"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "config": {"batch": {"num_prompts": 2}}}}
    return {"model": "tiny", "training_file": file_id, "method": method}
