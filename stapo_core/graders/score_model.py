"""Asks a language model for scores, from child processes: they alone speak HTTP and read the key. Knows no protocol."""

from __future__ import annotations

from collections.abc import Sequence

from stapo_core.config import ScoreModelGrader
from stapo_core.graders.children import ChildPool
from stapo_core.graders.judges import find_judge
from stapo_core.graders.score import Pair, Score

_GRACE_S = 2.0  # a child keeps its deadline itself and is killed only when it cannot, as while a name is looked up


class ScoreModelScorer:
    """One judge for all pairs, whose texts are messages as JSON; equal pairs are asked once."""

    def __init__(self, config: ScoreModelGrader) -> None:
        """Raises JudgesError for a model that the operator's list has not."""
        judge = find_judge(config.model)
        settings = {
            "judge": judge.model_dump(mode="json"),
            "range": config.range,
            "timeout_s": config.timeout_s,
            "sampling": config.sampling_params.model_dump(exclude_none=True),
        }
        self._children = ChildPool(
            "stapo_core.graders.score_model_child",
            config.timeout_s + _GRACE_S,
            settings,
            num_children=judge.max_parallel,
        )

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """The judge's scores; whatever keeps it from giving one is an error."""
        scores = self._children.judge(list(dict.fromkeys(pairs)))
        return [scores[pair] for pair in pairs]

    def close(self) -> None:
        """Kills the children."""
        self._children.close()
