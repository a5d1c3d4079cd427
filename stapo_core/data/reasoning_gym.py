"""The one door to reasoning-gym, opened in child processes alone: it makes a task's problems and holds its scorer.

Two packages that it wants are not installed with it, since one needs a compiler and the other draws pictures: the
three tasks that use them say so.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_OPTIONAL = ("pycosat", "cellpylib")


class MissingPackage(Exception):
    """A task needs a package that is not installed."""


def make_task(task: str, config: dict[str, Any]) -> Any:
    """The task's problems by index, and its `score_answer`. Raises whatever it finds wrong with its settings."""
    for name in _OPTIONAL:
        if name not in sys.modules and find_spec(name) is None:
            sys.modules[name] = _Missing(name)
    import reasoning_gym  # it loads a hundred modules

    return reasoning_gym.create_dataset(task, **config)


class _Missing(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise MissingPackage(f"this task needs the package {self.__name__}; install it beside the trainer and the API")
