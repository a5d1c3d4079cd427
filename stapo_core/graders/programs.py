"""Runs foreign programs for rewards. Knows where a program stands in a response; running it is the children's part."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stapo_core.config.graders.programs import CodeGrader, PythonGrader
from stapo_core.graders.children import ChildPool
from stapo_core.graders.score import Pair, Score

# What a child needs beyond the program's own time: starting a broken sandbox anew.
_SPARE_S = 120.0
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*$", re.MULTILINE)


class CodeScorer:
    """Judges programs by unit tests; equal programs with equal tests are judged once."""

    def __init__(self, config: CodeGrader) -> None:
        settings = {"reward": config.reward, "timeout_s": config.timeout_s}
        self._children = ChildPool("stapo_core.graders.code_child", config.timeout_s + _SPARE_S, settings)
        self._takes_block = config.program == "last_block"

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """All or the share of the tests; a response without a program gets 0."""
        asked = [Pair(self._program(pair.text), pair.reference) for pair in pairs]
        scores = {pair: Score(0.0) for pair in asked if not pair.text.strip()}
        scores |= self._children.judge([pair for pair in dict.fromkeys(asked) if pair not in scores])
        return [scores[pair] for pair in asked]

    def close(self) -> None:
        """Kills the children, and with them what they run."""
        self._children.close()

    def _program(self, text: str) -> str:
        return last_block(text) if self._takes_block else text


class PythonScorer:
    """Asks the user's own function."""

    def __init__(self, config: PythonGrader) -> None:
        settings = {"source": config.source, "timeout_s": config.timeout_s}
        self._children = ChildPool("stapo_core.graders.python_child", config.timeout_s + _SPARE_S, settings)

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """What it returns; equal pairs are asked once."""
        scores = self._children.judge(list(dict.fromkeys(pairs)))
        return [scores[pair] for pair in pairs]

    def close(self) -> None:
        """Kills the children, and with them what they run."""
        self._children.close()


def last_block(text: str) -> str:
    """What the last fenced block holds, also where the response was cut before its end; empty without one."""
    found = ""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and fence[0].strip() == fence[1]:
            found, opened = text[opened.end() + 1 : fence.start()], None
    return found if opened is None else text[opened.end() + 1 :]
