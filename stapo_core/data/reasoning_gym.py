"""The one door to reasoning-gym, opened in child processes alone: it makes a task's problems and holds its scorer.

Two packages that it wants are not installed with it, since one needs a compiler and the other draws pictures: the
three tasks that use them say so.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_OPTIONAL = ("pycosat", "cellpylib")


class UnusableTask(Exception):
    """A task that cannot be made as asked, in words for the user."""


def make_task(task: str, config: dict[str, Any]) -> Any:
    """The task's problems by index, and its `score_answer`. Raises UnusableTask, and whatever the task raises."""
    for name in _OPTIONAL:
        if name not in sys.modules and find_spec(name) is None:
            sys.modules[name] = _Missing(name)
    import reasoning_gym  # it loads a hundred modules
    from reasoning_gym.factory import DATASETS

    known = [field.name for field in fields(DATASETS[task][1])]
    for name in config:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known)}"
            raise UnusableTask(f"the task '{task}' has no setting '{name}'; {hint}")
    return reasoning_gym.create_dataset(task, **config)


class _Missing(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnusableTask(f"this task needs the package {self.__name__}; install it beside the trainer and the API")
