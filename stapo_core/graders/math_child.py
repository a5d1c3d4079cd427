"""The child of the math grader: judges pairs with math-verify. Knows the algebra alone."""

from __future__ import annotations

from typing import Any

from stapo_core.graders.child import Judge, Unjudgeable, serve


def make_judge(_: dict[str, Any]) -> Judge:
    """Imports and warms the algebra."""
    _judge("\\boxed{1}", "\\boxed{1}")
    return _judge


def _judge(text: str, reference: str) -> float:
    from math_verify import verify  # here, so that the limits hold while the algebra loads

    gold = _read(reference)
    if not gold:
        raise Unjudgeable("reference_unreadable")
    return float(verify(gold, _read(text), timeout_seconds=None))


def _read(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    found: list[Any] = parse(
        text,
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()],
        parsing_timeout=None,
    )
    return found


if __name__ == "__main__":
    serve(make_judge)
