"""The Triton kernel computes what plain torch computes; here under Triton's interpreter, on a GPU where one is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMPARE = """
import sys, torch
from stapo_core.token_stats import running_sums, torch_fold, triton_fold

device, num_rows, vocabulary, spread = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
source = torch.Generator().manual_seed(0)
logits = (spread * torch.randn(num_rows, vocabulary, generator=source)).sort(dim=1).values.to(device)
plain = running_sums.start(2 * num_rows, logits.device)[:, ::2]
kernel = running_sums.start(2 * num_rows, logits.device)[:, num_rows:]
untouched = logits.clone()
for words in logits.split(vocabulary // 2 + 1, dim=1):
    triton_fold.fold(words, kernel)
    torch_fold.fold(words.clone(), plain)
assert torch.equal(logits, untouched)
chosen = logits[:, 0]
torch.testing.assert_close(
    running_sums.finish(kernel, chosen), running_sums.finish(plain, chosen), rtol=2e-5, atol=5e-6
)
print("equal")
"""


def compare(device: str, *sizes: object, interpret: bool) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMPARE, device, *map(str, sizes)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("vocabulary", "spread"), [(3000, 5.0), (1024, 30.0), (7, 0.0)])
def test_the_kernel_agrees_with_torch_on_rising_logits_and_odd_vocabularies(vocabulary: int, spread: float) -> None:
    assert compare("cpu", 3, vocabulary, spread, interpret=True) == "equal\n"
