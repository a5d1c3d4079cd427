from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from dashboard import forms
from stapo_core.config import Algorithm, Grader, TrainConfig


def test_every_algorithm_of_the_config_is_offered_with_its_own_sentences() -> None:
    stapo = {setting.name: setting for setting in forms.algorithms()["stapo"].settings}

    assert "grpo" in forms.algorithms()
    assert "kind" not in stapo
    assert stapo["tau_p"].default == 0.002
    assert stapo["tau_p"].minimum == 0.0
    assert stapo["entropy_scope"].choices == ("candidates", "all_tokens")
    assert stapo["entropy_quantile"].default is None
    assert "quantile of entropy" in stapo["entropy_quantile"].help


def test_settings_stand_in_the_groups_of_the_config() -> None:
    sections = forms.sections()

    assert {setting.name for setting in sections[""].settings} >= {"num_steps", "dtype"}
    assert [setting.kind for setting in sections["batch"].settings][:2] == ["integer", "integer"]
    assert "algorithm" not in {setting.name for setting in sections[""].settings}
    assert [name for name, section in sections.items() if section.is_optional] == ["lora"]


@pytest.mark.parametrize("name", sorted(forms.graders()))
def test_every_grader_is_offered_and_begins_with_fields_that_the_config_takes(name: str) -> None:
    variant = forms.graders()[name]
    values = {setting.name: setting.default for setting in variant.settings}

    assert set(forms.graders()) == set(TypeAdapter(Grader).json_schema()["discriminator"]["mapping"])
    TypeAdapter[Grader](Grader).validate_python({"type": name} | forms.said(values, variant))


def test_a_variant_s_own_fields_stand_before_those_of_all() -> None:
    names = [setting.name for setting in forms.algorithms()["stapo"].settings]

    assert names[:3] == ["tau_p", "entropy_scope", "entropy_quantile"]
    assert forms.graders()["numeric"].settings[0].name == "reference"


def test_lists_and_objects_are_written_as_json() -> None:
    tags = forms.graders()["format"].settings[0]

    assert (tags.name, tags.kind) == ("tags", "json")
    assert forms.parsed(forms.written(tags.default)) == ["think", "answer"]
    assert forms.parsed(" ") is None
    with pytest.raises(ValueError, match="line 1 column 2"):
        forms.parsed("[a]")


@pytest.mark.parametrize("name", sorted(forms.algorithms()))
def test_an_algorithm_left_alone_is_the_config_s_own_default(name: str) -> None:
    variant = forms.algorithms()[name]
    values = {setting.name: setting.default for setting in variant.settings}

    assert forms.changed(values, variant) == {}
    filled = {key: value for key, value in values.items() if value is not None}
    adapter: TypeAdapter[Algorithm] = TypeAdapter(Algorithm)
    assert adapter.validate_python({"kind": name, **filled}) == adapter.validate_python({"kind": name})


@pytest.mark.parametrize("name", forms.presets())
def test_named_settings_fill_every_field_that_a_form_has(name: str) -> None:
    preset = forms.preset(name)

    algorithm = forms.algorithms()[preset["algorithm"]["kind"]]
    assert {setting.name for setting in algorithm.settings} <= set(preset["algorithm"])
    for group, section in forms.sections().items():
        held = preset[group] if group else preset
        assert section.is_optional or {setting.name for setting in section.settings} <= set(held)
    assert forms.preset(None) == {}


def test_one_click_changes_a_number_by_a_tenth_of_its_magnitude() -> None:
    assert [forms.step_of(value) for value in (1e-6, 0.002, 0.2, 1.0, -30.0)] == [1e-7, 1e-4, 0.01, 0.1, 1.0]
    assert [forms.step_of(value) for value in (0.0, None)] == [0.01, 0.01]


def test_only_what_was_changed_is_said() -> None:
    batch = forms.sections()["batch"]
    values = {setting.name: setting.default for setting in batch.settings} | {"num_prompts": 16}

    assert forms.changed(values, batch) == {"num_prompts": 16}


def test_a_request_leaves_absent_files_out_and_is_valid() -> None:
    body = forms.job_body(
        model="tiny",
        files={"training_file": "file-1", "validation_file": None},
        grader={"type": "numeric", "reference": "{{item.answer}}"},
        config={"algorithm": {"kind": "stapo"}, "num_steps": 5},
        seed=0,
    )

    assert body == {
        "model": "tiny",
        "training_file": "file-1",
        "seed": 0,
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": {"type": "numeric", "reference": "{{item.answer}}"},
                "config": {"algorithm": {"kind": "stapo"}, "num_steps": 5},
            },
        },
    }
    asked = body["method"]["reinforcement"]
    assert TrainConfig.model_validate(asked["config"]).num_steps == 5
    TypeAdapter(Grader).validate_python(asked["grader"])


def test_the_request_for_a_shell_survives_a_quote_and_names_no_key() -> None:
    text = forms.as_curl({"model": "it's"}, "http://host")

    assert "\"it'\\''s\"" in text
    assert "$STAPO_API_KEY" in text
    assert "http://host/v1/fine_tuning/jobs" in text


def test_the_request_in_python_is_python() -> None:
    text = forms.as_python({"model": "tiny", "method": {"type": "reinforcement"}}, "http://host")

    compile(text, "request", "exec")
    assert "model='tiny'" in text
