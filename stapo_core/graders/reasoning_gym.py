"""Has reasoning-gym's own scorers judge, in child processes under a deadline. Knows where a response's answer stands.

Nine tasks evaluate an answer as Python to compare its value. Such an answer is handed on only if it is plain (numbers,
lists, arithmetic, the usual functions) or inert (capitals and digits alone, as boards are written). Nothing that could
run is.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence

from stapo_core.config import ReasoningGymGrader
from stapo_core.graders.children import ChildPool
from stapo_core.graders.score import Pair, Score

EVALUATED = frozenset(
    (
        *("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication"),
        *("puzzle24", "simple_integration", "spiral_matrix", "string_insertion"),
    )
)
"""Tasks of reasoning-gym 0.1.25 whose scorers call eval or sympy's parse_expr on the answer."""

_WIDEST = 20_000  # characters; a longer answer is no answer
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_WORD = re.compile(r"\w{0,16}")
_INERT = re.compile(r"[A-Z0-9_\s]*")  # small letters could name what the scorer knows, such as the right answer
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "sqrt", "Abs")
)
_PLAIN = (
    ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Load, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop,
    ast.Name, ast.Call,
)  # fmt: skip


class ReasoningGymScorer:
    """Each pair's reference says which problem it is; equal pairs are judged once."""

    def __init__(self, config: ReasoningGymGrader) -> None:
        self._children = ChildPool("stapo_core.graders.reasoning_gym_child", config.timeout_s)

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """The scorer's verdicts, in order."""
        asked = [Pair(answer_of(pair.text), pair.reference) for pair in pairs]
        distinct = list(dict.fromkeys(asked))
        scores = {pair: Score(0.0) for pair in distinct if len(pair.text) > _WIDEST or not _may_be_handed_on(pair)}
        scores |= self._children.judge([pair for pair in distinct if pair not in scores])
        return [scores[pair] for pair in asked]

    def close(self) -> None:
        """Kills the children."""
        self._children.close()


def answer_of(text: str) -> str:
    """What stands in the last pair of answer tags, else the whole text; without the white space around it."""
    tagged = _TAGGED.findall(text)
    return (tagged[-1] if tagged else text).strip()


def is_plain(answer: str) -> bool:
    """Whether evaluating an answer as Python could do no more than arithmetic."""
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return answer.isascii() and all(_is_plain_node(node) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or (len(node.id) == 1 and node.id.isalpha())
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or (
            isinstance(node.value, str) and bool(_WORD.fullmatch(node.value))
        )
    return isinstance(node, _PLAIN)


def _may_be_handed_on(pair: Pair) -> bool:
    try:
        task = json.loads(pair.reference)["task"]
    except (ValueError, TypeError, KeyError):
        return True  # the child says that the reference cannot be read
    return task not in EVALUATED or bool(_INERT.fullmatch(pair.text)) or is_plain(pair.text)
