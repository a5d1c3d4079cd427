"""The API against its own document: schemathesis, every check, as two tenants, over a real Postgres and Valkey.

What is not found by the usual number of cases: `STAPO_CONTRACT_CASES=50000 pytest -s tests/api/test_contract.py`.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.settings import Settings
from api.store import keys
from tests.api.conftest import Service
from tests.api.population import QuickWorker

NUM_CASES = int(os.environ.get("STAPO_CONTRACT_CASES", "2000"))
NUM_OPERATIONS = 50
NUM_COVERED = 2000
"""Cases at least that the document alone gives: every boundary of every field, every unknown method."""
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without limits on how often one may ask: what is asked for here is asked at once."""
    return settings.model_copy(update={"rate_limit": "", "refused_limit": ""})


@pytest.fixture
def peers(service: Service, tmp_path: Path) -> Iterator[Path]:
    """The keys of two tenants that each have a finished job, while a worker goes on ending the jobs that are made."""
    worker = QuickWorker(service.database, service.settings)
    entries = []
    for tenant, client in (("ours", service.client), ("theirs", service.stranger)):
        with service.database.transaction() as session:
            key = keys.create_key(session, tenant=tenant, name="contract")
        entries.append({"name": tenant, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]})
        Service(client, client, service.database, service.settings).create_job()
    worker.end_jobs()
    path = tmp_path / "peers.json"
    path.write_text(json.dumps({"auth": entries}))
    with worker.working():
        yield path


@pytest.mark.timeout(600 + NUM_CASES)
def test_no_generated_request_is_answered_otherwise_than_the_document_says(
    server: str, peers: Path, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**31)
    examples = max(3, (NUM_CASES - NUM_COVERED) // NUM_OPERATIONS)
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIG), "run", f"{server}/openapi.json"]
    command += ["--phases", "coverage,fuzzing,stateful", "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--no-color", "--generation-database", "none"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"STAPO_PEERS": str(peers)}, capture_output=True, text=True
    )
    num_cases = int((re.search(r"(\d+) generated", ran.stdout) or ["", "0"])[1])
    sys.stdout.write(f"seed {seed}: {num_cases} cases\n")
    assert ran.returncode == 0, f"seed {seed}\n{ran.stdout}{ran.stderr}"
    assert num_cases >= NUM_CASES
