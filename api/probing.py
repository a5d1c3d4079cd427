"""What a grader makes of a few responses of a model, in figures: whether it tells them apart, how fast, how surely.

Pure but for `choose_rows`, which reads a file of problems.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from api.schemas import GraderProbe, GraderProbed, ProbeExample, ProbeFigures
from stapo_core.config import GradingConfig, MultiGrader
from stapo_core.data import iter_rows, prompt_text, take
from stapo_core.graders.score import Sample, Score, Verdicts

NUM_EXAMPLES = 6
MAX_CHARACTERS = 1000
MAX_ERROR_SHARE = GradingConfig().max_error_share

Row = dict[str, Any]
Verdict = Literal["usable", "one_score", "errors"]


def choose_rows(path: Path, *, num_rows: int, wanted: int, seed: int) -> list[Row]:
    """So many rows of a file, by the seed."""
    places = set(take(num_rows, seed, 0, min(wanted, num_rows)))
    rows = (row for place, (_, row) in enumerate(iter_rows(path)) if place in places)
    return list(islice(rows, len(places)))


def prompt_of(row: Mapping[str, Any]) -> Row:
    """What a model is asked of a row."""
    return {name: row[name] for name in ("prompt", "messages") if name in row}


def describe(asked: GraderProbe, rows: Sequence[Row], texts: Sequence[str], verdicts: Verdicts) -> GraderProbed:
    """The answer to a probe; `texts` are row by row, as many of each, and `verdicts` are in their order."""
    num_samples = len(texts) // len(rows)
    samples = [
        Sample(row, texts[place * num_samples + n]) for place, row in enumerate(rows) for n in range(num_samples)
    ]
    total = _figures(asked.grader.name, asked.grader.type, verdicts.total, num_samples)
    parts = asked.grader.graders if isinstance(asked.grader, MultiGrader) else {}
    verdict, reason = _judge(total)
    return GraderProbed(
        model=asked.model,
        num_prompts=len(rows),
        num_samples=num_samples,
        verdict=verdict,
        reason=reason,
        total=total,
        parts=[_figures(name, part.type, verdicts.parts[name], num_samples) for name, part in parts.items()],
        examples=list(islice(_examples(samples, verdicts), NUM_EXAMPLES)),
    )


def _figures(name: str, kind: str, scores: Sequence[Score], num_samples: int) -> ProbeFigures:
    groups = [scores[start : start + num_samples] for start in range(0, len(scores), num_samples)]
    judged = [[score.value for score in group if score.error is None] for group in groups]
    values = [value for group in judged for value in group]
    errors = Counter(score.error for score in scores if score.error is not None)
    seconds = sorted(score.seconds for score in scores)
    return ProbeFigures(
        name=name,
        type=kind,
        num_judged=len(values),
        num_distinct=len(set(values)),
        mean=statistics.fmean(values) if values else None,
        std=statistics.pstdev(values) if values else None,
        minimum=min(values, default=None),
        maximum=max(values, default=None),
        share_all_zero=_share(judged, lambda group: set(group) == {0.0}),
        share_all_one=_share(judged, lambda group: set(group) == {1.0}),
        share_equal=_share(judged, lambda group: len(set(group)) == 1),
        errors=dict(errors),
        error_share=errors.total() / len(scores),
        notes=dict(Counter(score.note for score in scores if score.note is not None)),
        latency_p50_s=_quantile(seconds, 0.5),
        latency_p95_s=_quantile(seconds, 0.95),
    )


def _share(groups: Sequence[Sequence[float]], claim: Any) -> float:
    return statistics.fmean(bool(claim(group)) for group in groups)


def _quantile(ascending: Sequence[float], share: float) -> float:
    """The least value that at least this share of them does not exceed."""
    return ascending[min(len(ascending) - 1, max(0, -int(-share * len(ascending) // 1) - 1))]


def _judge(total: ProbeFigures) -> tuple[Verdict, str]:
    if total.error_share > MAX_ERROR_SHARE:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(total.errors.items()))
        return "errors", f"{total.error_share:.0%} of the responses could not be judged ({kinds}); a run would pause."
    if total.num_distinct == 1:
        score = f"Every response got the score {total.minimum:g}"
        return "one_score", f"{score}; if that goes on, a run learns nothing and ends with grader_gives_one_score."
    share = 1.0 - total.share_equal
    if not share:
        return "usable", "No prompt got responses of different scores, so a step would learn nothing from any of these."
    return "usable", f"{share:.0%} of the prompts got responses of different scores: those are what a step learns from."


def _examples(samples: Sequence[Sample], verdicts: Verdicts) -> Iterator[ProbeExample]:
    """One of each score and each trouble first, then the others as they come."""
    kinds = [(score.error, score.value) for score in verdicts.total]
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    for place in dict.fromkeys([*firsts, *range(len(samples))]):
        score = verdicts.total[place]
        yield ProbeExample(
            prompt=prompt_text(samples[place].item)[:MAX_CHARACTERS],
            response=samples[place].text[:MAX_CHARACTERS],
            score=score.value,
            error=score.error,
            note=score.note,
            parts={name: scores[place].value for name, scores in verdicts.parts.items()},
        )
