"""Our sampler beside `model.generate` of transformers: one process, the same weights and prompts, alternating order.

Knows the sampler and its peer. What is compared is response tokens per CPU-second, each counted up to its own end
token; ours gives log-probs and entropies with them, the peer gives tokens alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.stopwatch import cpu_seconds, spread
from benchmarks.workloads import GROUP_SIZE, NUM_PROMPTS, SIZES, WORKLOADS, Workload, prepare
from stapo_core.batch import Prompt
from stapo_core.data import read_rows
from stapo_core.rollout import Draw
from stapo_core.rollout.prompts import encode_prompts
from stapo_core.rollout.transformers_sampler import TransformersSampler


class Contest:
    """Both ways to draw the same number of responses to the same prompts."""

    def __init__(self, folder: Path, workload: Workload) -> None:
        """`folder` is one of `workloads.prepare`."""
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
        rows = list(read_rows(folder / "train.jsonl"))[:NUM_PROMPTS]
        self._prompts: list[Prompt] = encode_prompts(rows, tokenizer, workload.prompt_tokens)
        self._num_tokens = workload.response_tokens
        self._end: int = tokenizer.eos_token_id
        self._pad: int = tokenizer.pad_token_id
        self._sampler = TransformersSampler(self._model, tokenizer, max_response_tokens=workload.response_tokens)
        self._step = 0

    def ours(self) -> int:
        """Draws anew at every call and gives the number of tokens."""
        self._step += 1
        groups = self._sampler.sample(self._prompts, Draw(0, self._step, num_samples=GROUP_SIZE, temperature=1.0))
        return sum(len(response.token_ids) for group in groups for response in group.responses)

    def generate(self) -> int:
        """The same by the peer."""
        prompts = torch.tensor([prompt.token_ids for prompt in self._prompts]).repeat_interleave(GROUP_SIZE, dim=0)
        with torch.no_grad():
            drawn: Tensor = self._model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self._num_tokens,
                eos_token_id=self._end,
                pad_token_id=self._pad,
            )[:, prompts.shape[1] :]
        ended_before = (drawn == self._end).cumsum(dim=1) - (drawn == self._end).long()
        return int((ended_before == 0).sum())


def main(sizes: list[str], workloads: list[str], *, num_rounds: int, threads: int) -> None:
    """Prints one block of rows per size and workload."""
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    title = f"{NUM_PROMPTS} prompts x {GROUP_SIZE} responses, float32, {threads} thread(s); median [least, most]"
    table = Table(title=title)
    for column in ("size", "workload", "way", "CPU-s", "tokens per CPU-s", "ratio"):
        table.add_column(column, justify="right" if column in ("CPU-s", "tokens per CPU-s", "ratio") else "left")
    for size in sizes:
        for workload in workloads:
            with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
                prepare(Path(scratch), SIZES[size], WORKLOADS[workload])
                _add_rows(table, size, workload, _alternate(Contest(Path(scratch), WORKLOADS[workload]), num_rounds))
    console = Console()
    console.print(table)
    console.print(f"load of the machine at the end: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def _alternate(contest: Contest, num_rounds: int) -> dict[str, list[tuple[float, int]]]:
    """CPU-seconds and tokens of every round, after one of each that is not counted."""
    ways = {"generate": contest.generate, "ours": contest.ours}
    measured: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
    for number in range(num_rounds + 1):
        for way in list(ways) if number % 2 else reversed(ways):
            tokens: list[int] = []
            seconds = cpu_seconds(lambda way=way, tokens=tokens: tokens.append(ways[way]()))  # type: ignore[misc]
            if number > 0:
                measured[way].append((seconds, tokens[0]))
    return measured


def _add_rows(table: Table, size: str, workload: str, measured: dict[str, list[tuple[float, int]]]) -> None:
    rates = {way: [tokens / seconds for seconds, tokens in laps] for way, laps in measured.items()}
    for way, laps in measured.items():
        table.add_row(size, workload, way, spread([seconds for seconds, _ in laps]), spread(rates[way], digits=0), "")
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["generate"])
    table.add_row("", "", "ours / generate", "", "", f"{ratio:.2f} x", style="bold", end_section=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), help="one size alone")
    parser.add_argument("--workload", choices=tuple(WORKLOADS), help="one workload alone")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each way")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more than one needs an idle machine")
    asked = parser.parse_args()
    main(
        [asked.size] if asked.size else list(SIZES),
        [asked.workload] if asked.workload else list(WORKLOADS),
        num_rounds=asked.rounds,
        threads=asked.threads,
    )
