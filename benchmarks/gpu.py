"""What wants a GPU: the Triton fold beside the torch fold, and twenty bfloat16 steps of half a billion parameters.

Knows the two measurements and their sizes. `--device cpu --small` runs the same code at toy sizes, the kernel under
Triton's interpreter: it shows that the code works, and its times mean nothing.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from rich.console import Console

EXIT_NO_GPU = 2


def main(device_name: str, *, small: bool, num_steps: int | None, num_rounds: int | None, threads: int) -> int:
    """Runs both; 1 when the folds differ by more than rounding or a metric is not finite, 2 without a GPU."""
    if device_name == "cuda" and not torch.cuda.is_available():
        print("no GPU is at hand: nothing was measured (--device cpu --small tries the code out)", file=sys.stderr)
        return EXIT_NO_GPU
    from benchmarks import gpu_fold, gpu_training  # the trainer takes seconds to load

    torch.set_num_threads(threads)
    device, console = torch.device(device_name), Console()
    name = torch.cuda.get_device_name(device) if device_name == "cuda" else "cpu, the kernel under its interpreter"
    console.print(f"{name}; torch {torch.__version__}")
    pass_scale, run_scale = (gpu_fold.SMALL, gpu_training.SMALL) if small else (gpu_fold.FULL, gpu_training.FULL)
    agree = gpu_fold.compare_folds(replace(pass_scale, num_rounds=num_rounds or pass_scale.num_rounds), device, console)
    trained = gpu_training.train_in_bfloat16(replace(run_scale, num_steps=num_steps or run_scale.num_steps), device)
    is_fine = gpu_training.print_trained(trained, console)
    return 0 if agree and is_fine else 1
