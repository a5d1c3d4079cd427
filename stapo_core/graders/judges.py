"""The models that score_model graders may ask: the operator's list, by name.

Knows the list's file. A key stands in a file of its own and is read by the process that asks, no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from stapo_core.config import Grader, MultiGrader, ScoreModelGrader, Strict

JUDGES_FILE = "STAPO_JUDGES_FILE"
"""The environment variable that names the list; it is passed on to trainers whose grader asks a model."""


class JudgesError(ValueError):
    """The list cannot be read, or has no such model; the text says what to do."""


class Judge(Strict):
    """Where a model answers, and how it is asked."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
    """The address before `/chat/completions`, such as `https://api.example.com/v1`."""
    model: str | None = None
    """The model's name there; by default its name in the list."""
    api_key_file: Path | None = None
    """A file that holds the key, by a path relative to the list; none is sent when omitted."""
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the endpoint is told to answer in JSON; with none the messages alone ask for it."""
    max_parallel: Annotated[int, Field(ge=1, le=64)] = 8
    """Requests of one run that are under way at a time."""


def find_judge(name: str) -> Judge:
    """The judge of that name in the list of this process. Raises JudgesError."""
    known = list_judges(os.environ.get(JUDGES_FILE))
    if name not in known:
        listed = ", ".join(sorted(known)) or f"none; the operator names a list of them by {JUDGES_FILE}"
        raise JudgesError(f"no model '{name}' may be asked for scores here; there are: {listed}")
    return known[name]


def asks_judges(grader: Grader) -> bool:
    """Whether the grader, or one of its parts, asks a model for scores."""
    return any(True for _ in _judges_of(grader))


def check_judges(grader: Grader) -> None:
    """Raises JudgesError when the grader, or one of its parts, asks a model that is not in this process's list."""
    for part in _judges_of(grader):
        find_judge(part.model)


def list_judges(file: str | os.PathLike[str] | None) -> dict[str, Judge]:
    """All judges by name; none without a file. Raises JudgesError for a list that cannot be read."""
    return {} if file is None else _read(Path(file))


def _judges_of(grader: Grader) -> Iterator[ScoreModelGrader]:
    parts = grader.graders.values() if isinstance(grader, MultiGrader) else [grader]
    return (part for part in parts if isinstance(part, ScoreModelGrader))


@cache
def _adapter() -> TypeAdapter[dict[str, Judge]]:
    return TypeAdapter(dict[str, Judge])


def _read(path: Path) -> dict[str, Judge]:
    try:
        listed = _adapter().validate_json(path.read_bytes())
    except OSError as error:
        raise JudgesError(f"the list of judges {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the whole"
        raise JudgesError(f"the list of judges {path} is refused at {where}: {fault['msg']}") from error
    return {
        name: judge.model_copy(
            update={
                "model": judge.model or name,
                "api_key_file": judge.api_key_file and (path.parent / judge.api_key_file).absolute(),
            }
        )
        for name, judge in listed.items()
    }
