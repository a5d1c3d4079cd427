"""The child that makes problems with reasoning-gym: writes each as a row, a line of JSON."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Any

from stapo_core.data.child import Refused, serve
from stapo_core.data.reasoning_gym import UnusableTask, make_task


def write_rows(asked: dict[str, Any]) -> None:
    """The problems of `asked["task"]` under `asked["config"]`. Raises Refused."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # some tasks print
        try:
            problems = make_task(asked["task"], asked["config"])
            for index in range(asked["config"]["size"]):
                out.write(json.dumps(_row(asked, index, problems[index]), ensure_ascii=False) + "\n")
        except (BrokenPipeError, MemoryError):
            raise
        except UnusableTask as error:
            raise Refused(str(error)) from error
        except Exception as error:  # a hundred authors raise what they like
            words = str(error) or type(error).__name__
            raise Refused(f"the task {asked['task']!r} refuses its config: {words[:300]}; mend 'config'") from error


def _row(asked: dict[str, Any], index: int, problem: dict[str, Any]) -> dict[str, Any]:
    answer = problem["answer"]
    answered = {} if answer is None else {"answer": str(answer)}
    where = {"task": asked["task"], "config": asked["config"], "index": index}
    return {"prompt": problem["question"], **answered, "reasoning_gym": where}


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    serve(write_rows)
