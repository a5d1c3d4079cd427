"""The Triton kernel computes what plain torch computes; here under Triton's interpreter, on a GPU where one is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMPARE = """
import sys, torch
from stapo_core.token_stats import torch_fold, triton_fold

device, num_rows, vocabulary, spread = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
source = torch.Generator().manual_seed(0)
logits = (spread * torch.randn(num_rows, vocabulary, generator=source)).sort(dim=1).values.to(device)
targets = torch.randint(0, vocabulary, (num_rows,), generator=source).to(device)
plain = torch.empty(5, 2 * num_rows, device=device)[:, ::2]
kernel = torch.empty(5, 2 * num_rows, device=device)[:, num_rows:]
untouched = logits.clone()
triton_fold.fold(logits, targets, kernel)
assert torch.equal(logits, untouched)
torch_fold.fold(logits.double().float(), targets, plain)
torch.testing.assert_close(kernel, plain, rtol=2e-5, atol=5e-6)
print("equal")
"""


def compare(device: str, *sizes: object, interpret: bool) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMPARE, device, *map(str, sizes)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("vocabulary", "spread"), [(3000, 5.0), (1024, 30.0), (7, 0.0)])
def test_the_kernel_agrees_with_torch_on_rising_logits_and_odd_vocabularies(vocabulary: int, spread: float) -> None:
    assert compare("cpu", 3, vocabulary, spread, interpret=True) == "equal\n"
