"""Every field that a user or an operator sets says in one sentence what it is: that sentence is the public API text."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from api.settings import Settings
from stapo_core import config


def models() -> list[type[BaseModel]]:
    found = [item for item in vars(config).values() if isinstance(item, type) and issubclass(item, BaseModel)]
    return [model for model in found if model.__module__.startswith(config.__name__)]


def silent_fields(model: type[BaseModel]) -> list[str]:
    """The fields without a sentence; a tag that only tells members of a union apart needs none."""
    tags = {"kind", "type"}
    fields = model.model_fields.items()
    return [f"{model.__name__}.{n}" for n, f in fields if n not in tags and not (f.description or "").strip()]


def test_every_field_of_the_config_says_what_it_is() -> None:
    assert len(models()) > 10
    assert [field for model in models() for field in silent_fields(model)] == []


def test_every_setting_says_what_it_is() -> None:
    assert silent_fields(Settings) == []


def test_every_part_of_the_config_refuses_unknown_fields_and_says_what_it_is() -> None:
    for model in models():
        assert model.model_config.get("extra") == "forbid", model
        assert model.__doc__, model


def test_a_silent_field_is_found() -> None:
    class Silent(BaseModel):
        model_config = ConfigDict(use_attribute_docstrings=True)

        said: int = 1
        """A number."""
        unsaid: int = 2

    assert silent_fields(Silent) == ["Silent.unsaid"]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_the_sentence_ends_like_one(model: type[BaseModel]) -> None:
    sentences = [field.description for field in model.model_fields.values() if field.description]
    assert [text for text in sentences if not text.rstrip().endswith(".")] == []
