"""One example per operation, in an order in which they can be run. The document, docs/api.md and the tests read them.

`$NAME` stands for a value that an earlier example was answered with. The answers lie in examples.json beside this
file, as a service gave them; `python -m tests.api.examples` asks one again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).with_name("examples.json")
GRADER = {"type": "numeric", "reference": "{{item.answer}}"}


@dataclass(frozen=True)
class Example:
    """How one operation is called, with curl and where a client has a method for it, in Python."""

    operation: str
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    file: str | None = None
    """A file to upload in a form, with the purpose `fine-tune`."""
    python: str = ""
    """`client` is the official client, `stapo` is ours."""
    saves: dict[str, str] = field(default_factory=dict)
    """What later examples call `$NAME`: its JSON pointer in the answer."""
    after_the_job: bool = False
    """The job must have ended."""


_JOB = {"job_id": "$JOB"}
_CHECKPOINT = {"checkpoint_id": "$CHECKPOINT"}

EXAMPLES: tuple[Example, ...] = (
    Example("check_health"),
    Example("check_readiness", python="stapo.ready()"),
    Example(
        "create_file",
        file="problems.jsonl",
        headers={"Idempotency-Key": "problems-1"},
        python='problems = client.files.create(file=open("problems.jsonl", "rb"), purpose="fine-tune")',
        saves={"FILE": "/id"},
    ),
    Example("list_files", query={"limit": "2"}, python="client.files.list(limit=2)"),
    Example("retrieve_file", {"file_id": "$FILE"}, python="client.files.retrieve(problems.id)"),
    Example("retrieve_file_content", {"file_id": "$FILE"}, python="client.files.content(problems.id).read()"),
    Example(
        "validate_file",
        {"file_id": "$FILE"},
        {"fields": "answer"},
        python='stapo.validate_file(problems.id, fields=["answer"])',
    ),
    Example("list_models", python="client.models.list()"),
    Example("retrieve_model", {"model": "stapo-demo-base"}, python='client.models.retrieve("stapo-demo-base")'),
    Example(
        "validate_grader",
        body={"grader": GRADER},
        python="grader = {\n"
        '    "type": "string_check",\n'
        '    "name": "right",\n'
        '    "input": "{{sample.output_text}}",\n'
        '    "operation": "eq",\n'
        '    "reference": "{{item.answer}}",\n'
        "}\n"
        "client.fine_tuning.alpha.graders.validate(grader=grader)",
    ),
    Example(
        "run_grader",
        body={"grader": GRADER, "item": {"answer": "3"}, "model_sample": "1+2=3"},
        python='client.fine_tuning.alpha.graders.run(grader=grader, item={"answer": "3"}, model_sample="3")',
    ),
    Example(
        "probe_grader",
        body={
            "grader": GRADER,
            "model": "stapo-demo-base",
            "training_file": "$FILE",
            "num_prompts": 4,
            "num_samples": 4,
            "max_tokens": 8,
        },
        python='stapo.probe_grader({"grader": grader, "model": "stapo-demo-base", "training_file": problems.id})',
    ),
    Example(
        "create_job",
        headers={"Idempotency-Key": "sums-1"},
        body={
            "model": "stapo-demo-base",
            "training_file": "$FILE",
            "suffix": "sums",
            "seed": 1,
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": GRADER,
                    "config": {"algorithm": {"kind": "stapo"}, "num_steps": 20, "batch": {"num_prompts": 4}},
                },
            },
        },
        python='config = {"num_steps": 20, "batch": {"num_prompts": 4}}\n'
        'method = {"type": "reinforcement", "reinforcement": {"grader": grader, "config": config}}\n'
        'job = client.fine_tuning.jobs.create(model="stapo-demo-base", training_file=problems.id, method=method)',
        saves={"JOB": "/id"},
    ),
    Example("retrieve_queue", python="stapo.get_queue()"),
    Example("list_workers"),
    Example("pause_job", _JOB, python="client.fine_tuning.jobs.pause(job.id)"),
    Example("resume_job", _JOB, python="client.fine_tuning.jobs.resume(job.id)"),
    Example(
        "update_job",
        _JOB,
        body={"name": "sums, first try", "priority": 1},
        python='stapo.update_job(job.id, {"name": "sums, first try", "priority": 1})',
    ),
    Example("list_jobs", query={"status": "queued", "limit": "1"}, python="client.fine_tuning.jobs.list(limit=1)"),
    Example("create_stream_ticket", _JOB, python="stapo.create_stream_ticket(job.id)", saves={"TICKET": "/ticket"}),
    Example(
        "stream_job_metrics",
        _JOB,
        {"after": "0"},
        python="for event in stapo.stream_metrics(job.id):\n    print(event.event, event.data)",
        after_the_job=True,
    ),
    Example(
        "stream_job_events",
        _JOB,
        {"after": "0"},
        python="for event in stapo.stream_events(job.id):\n    print(event.event, event.data)",
    ),
    Example(
        "stream_job_log",
        _JOB,
        {"after": "0"},
        python='for event in stapo.stream_log(job.id):\n    print(event.data.get("text", ""))',
    ),
    Example(
        "retrieve_job",
        _JOB,
        python="job = client.fine_tuning.jobs.retrieve(job.id)",
        saves={"MODEL": "/fine_tuned_model"},
    ),
    Example("list_job_events", _JOB, {"limit": "2"}, python="client.fine_tuning.jobs.list_events(job.id, limit=2)"),
    Example(
        "list_job_metrics",
        _JOB,
        {"keys": "reward/mean,mask/ppm", "kind": "train"},
        python='stapo.get_metrics(job.id, keys=["reward/mean", "mask/ppm"], kind="train")',
    ),
    Example("download_job_metrics", _JOB, {"keys": "reward/mean"}),
    Example(
        "compare_metrics",
        query={"jobs": "$JOB", "keys": "reward/mean"},
        python='stapo.compare_metrics([job.id], ["reward/mean"])',
    ),
    Example("read_job_log", _JOB, {"offset": "-4096"}, python="stapo.read_log(job.id, offset=-4096)"),
    Example("retrieve_manifest", _JOB, python="stapo.get_manifest(job.id)"),
    Example(
        "list_rollouts",
        _JOB,
        {"masked": "true", "limit": "1"},
        python='rollouts = stapo.list_rollouts(job.id, masked=True, limit=1)["data"]',
        saves={"ROLLOUT": "/data/0/id"},
    ),
    Example(
        "retrieve_rollout",
        {**_JOB, "rollout_id": "$ROLLOUT"},
        python='stapo.get_rollout(job.id, rollouts[0]["id"])',
    ),
    Example(
        "update_rollout",
        {**_JOB, "rollout_id": "$ROLLOUT"},
        body={"pinned": True},
        python='stapo.pin_rollout(job.id, rollouts[0]["id"], pinned=True)',
    ),
    Example("list_masked_tokens", _JOB, {"limit": "1"}, python="stapo.list_masked_tokens(job.id, limit=1)"),
    Example(
        "simulate_mask",
        _JOB,
        {"tau_p": "0.01", "limit": "1"},
        python="stapo.simulate_mask(job.id, tau_p=0.01, limit=1)",
    ),
    Example("count_quadrants", _JOB),
    Example(
        "list_job_checkpoints",
        _JOB,
        python="checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data",
        saves={"CHECKPOINT": "/data/0/id"},
    ),
    Example("retrieve_checkpoint", _CHECKPOINT, python="stapo.get_checkpoint(checkpoints[0].id)"),
    Example(
        "download_checkpoint_file",
        {**_CHECKPOINT, "path": "config.json"},
        headers={"Range": "bytes=0-"},
        python='stapo.download_checkpoint(checkpoints[0].id, Path("my-model"))  # every file, every sha256',
    ),
    Example("download_checkpoint_archive", _CHECKPOINT),
    Example(
        "create_completion",
        body={"model": "$MODEL", "prompt": "1+1=", "max_tokens": 8},
        python='client.completions.create(model=job.fine_tuned_model, prompt="1+1=", max_tokens=8)',
    ),
    Example(
        "create_chat_completion",
        body={"model": "$MODEL", "messages": [{"role": "user", "content": "1+1="}], "max_completion_tokens": 8},
        python='messages = [{"role": "user", "content": "1+1="}]\n'
        "client.chat.completions.create(model=job.fine_tuned_model, messages=messages, max_completion_tokens=8)",
    ),
    Example(
        "fork_job",
        _JOB,
        body={"checkpoint": "$CHECKPOINT", "config": {"optimizer": {"learning_rate": 1e-5}}, "suffix": "slower"},
        python='fork = stapo.fork_job(job.id, {"config": {"optimizer": {"learning_rate": 1e-5}}, "suffix": "slower"})',
        saves={"FORK": "/id"},
    ),
    Example("cancel_job", {"job_id": "$FORK"}, python='client.fine_tuning.jobs.cancel(fork["id"])'),
    Example("retrieve_usage", query={"created_after": "0"}, python="stapo.get_usage(created_after=0)"),
    Example("scrape_metrics"),
    Example(
        "create_api_key",
        headers={"Idempotency-Key": "ci-1"},
        body={"name": "ci", "scopes": ["jobs:read"], "expires_in_s": 86400},
        python='key = stapo.create_api_key("ci", scopes=["jobs:read"], expires_in_s=86400)',
        saves={"KEY": "/id"},
    ),
    Example("list_api_keys", query={"limit": "1"}, python="stapo.list_api_keys(limit=1)"),
    Example("retrieve_api_key", {"key_id": "$KEY"}, python='stapo.get_api_key(key["id"])'),
    Example("revoke_api_key", {"key_id": "$KEY"}, python='stapo.revoke_api_key(key["id"])'),
    Example(
        "delete_file",
        {"file_id": "$SPARE"},
        python='spare = client.files.create(file=open("problems.jsonl", "rb"), purpose="fine-tune")\n'
        "client.files.delete(spare.id)",
    ),
)


@dataclass(frozen=True)
class Answer:
    """What a service answered to an example, with its ids, times and digests made constant."""

    status: int
    media_type: str
    body: Any


@cache
def read_answers() -> dict[str, Answer]:
    """The answers by operation."""
    return {name: Answer(**answer) for name, answer in json.loads(ANSWERS.read_text()).items()}


@cache
def read_variables() -> dict[str, str]:
    """What each `$NAME` stands for in the kept answers."""
    answers = read_answers()
    found = {"SPARE": answers["delete_file"].body["id"]} if "delete_file" in answers else {}
    for example in EXAMPLES:
        for name, pointer in example.saves.items():
            if example.operation in answers:
                found[name] = look_up(answers[example.operation].body, pointer)
    return found


def look_up(body: Any, pointer: str) -> str:
    """What a JSON pointer (RFC 6901) leads to."""
    for part in pointer.split("/")[1:]:
        body = body[int(part)] if isinstance(body, list) else body[part]
    return str(body)


def fill_in(value: Any, variables: Mapping[str, str]) -> Any:
    """The same, with each `$NAME` replaced by what it stands for."""
    if isinstance(value, dict):
        return {name: fill_in(each, variables) for name, each in value.items()}
    if isinstance(value, list):
        return [fill_in(each, variables) for each in value]
    return variables.get(value[1:], value) if isinstance(value, str) and value.startswith("$") else value
