from __future__ import annotations

import pytest

from stapo_core.graders.templates import TemplateError, fields, render


def test_item_fields_and_the_response_are_filled_in() -> None:
    text = render(
        "{{ item.name }} says {{sample.output_text}} ({{item.meta.id}})",
        item={"name": "Ada", "meta": {"id": 7}},
        output_text="42",
    )
    assert text == "Ada says 42 (7)"


def test_values_that_are_no_strings_are_filled_in_as_json() -> None:
    item = {"truth": True, "ratio": 0.5, "list": [1, "é"]}
    assert render("{{item.truth}} {{item.ratio}} {{item.list}}", item=item, output_text="") == 'true 0.5 [1, "é"]'


def test_what_is_filled_in_is_not_read_as_a_template_again() -> None:
    text = render("{{sample.output_text}}", item={"secret": "s"}, output_text="{{item.secret}}")
    assert text == "{{item.secret}}"


def test_fields_are_the_dotted_paths_a_template_reads() -> None:
    assert fields("{{item.a}} {{ item.b.c }} {{sample.output_text}}") == {"a", "b.c"}


@pytest.mark.parametrize("name", ["answer", "sample.text", "item.", "item.a..b", "", "item.a b"])
def test_an_unknown_variable_is_refused_by_name(name: str) -> None:
    with pytest.raises(TemplateError, match="unknown variable"):
        fields("{{" + name + "}}")


def test_a_row_without_the_field_is_refused_by_name() -> None:
    with pytest.raises(TemplateError, match=r"no field 'meta\.answer'"):
        render("{{item.meta.answer}}", item={"meta": {}}, output_text="")
