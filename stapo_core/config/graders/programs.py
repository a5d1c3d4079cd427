"""Graders that run foreign programs. They are refused unless the operator has enabled user code."""

from __future__ import annotations

import ast
import warnings
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from stapo_core.config.strict import Strict

MAX_SOURCE_BYTES = 256_000

Seconds = Annotated[float, Field(gt=0.0, le=120.0)]


def _defines_grade(source: str) -> str:
    size = len(source.encode("utf-8", "replace"))
    if size > MAX_SOURCE_BYTES:
        raise ValueError(f"the source has {size} bytes; at most {MAX_SOURCE_BYTES} are taken")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes and comparisons: not ours to print
            module = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is no Python ({error.msg}); mend it") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"it cannot be read as Python ({error})") from error
    if not any(isinstance(each, ast.FunctionDef) and each.name == "grade" for each in module.body):
        raise ValueError("it defines no function `grade`; write `def grade(sample, item): ...` at the left margin")
    return source


def _no_image(tag: str | None) -> str | None:
    if tag is not None:
        raise ValueError(f"there is no image '{tag}': sources run on the platform's own Python; leave image_tag out")
    return tag


class PythonGrader(Strict):
    """What the user's own `grade(sample, item)` returns; only where the operator has enabled user code."""

    input: ClassVar[str] = "{{sample.output_text}}"
    reference: ClassVar[str] = "{{item}}"

    type: Literal["python"]
    name: str = "python"
    """A label for this grader in events and metrics."""
    source: Annotated[str, AfterValidator(_defines_grade)]
    """Python that defines `grade(sample, item)`, which returns a number; at most 256 kB, the standard library alone."""
    image_tag: Annotated[str | None, AfterValidator(_no_image)] = None
    """The dialect's choice of an image; there are none here, so that every tag is refused."""
    timeout_s: Seconds = 10.0
    """Seconds that one call may take, the source's own start included; then it counts as an error."""


class CodeGrader(Strict):
    """The model's program passes the row's unit tests; only where the operator has enabled user code."""

    type: Literal["code"]
    name: str = "code"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that holds the program; the same variables are filled in as elsewhere."""
    program: Literal["last_block", "whole_text"] = "last_block"
    """Where the program stands: in the last fenced block (without one the response gets 0), or it is the whole text."""
    reference: str = "{{item.tests}}"
    """The tests: lines `assert f(2) == 3`, or a list of such and of `{"input": ..., "output": ...}` for a whole run."""
    reward: Literal["all", "share"] = "all"
    """`all` gives 1 where every test passes, else 0; `share` gives the share of tests that pass."""
    timeout_s: Seconds = 10.0
    """Seconds that all tests of one program may take together; then it gets 0, counted as `grader/notes/timeout`."""


USER_CODE = (PythonGrader, CodeGrader)
"""What runs foreign programs."""
