"""A grader's child whose library prints, by Python and past it; `python -m` runs it as the pool does."""

from __future__ import annotations

import os

from stapo_core.graders.child import Judge, serve


def make_judge(_: object) -> Judge:
    """Gives each text its length."""
    print("loading")  # noqa: T201  # that is what it is for

    def judge(text: str, reference: str) -> float:
        print("{", flush=True)  # noqa: T201
        os.write(1, b"no JSON\n")
        return float(len(text))

    return judge


if __name__ == "__main__":
    serve(make_judge)
