"""How many tokens a prompt is to a base model: its own tokenizer and chat template, and no model library.

Templates are programs of the model's author; they run in jinja's sandbox, as transformers runs them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from api.errors import Unprocessable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_CHARACTERS = 2**20
"""So much text is counted at a time; what a tokenizer says of it takes some hundred times the memory."""


class TokenCounter:
    """Counts the tokens of prompts as the trainer will."""

    def __init__(self, tokenizer: Tokenizer, template: str | None, specials: dict[str, str]) -> None:
        self._tokenizer = tokenizer
        self._specials = specials
        self._template = _environment().from_string(template) if template else None

    def count(self, prompts: Sequence[Any]) -> list[int | None]:
        """The number of tokens of each; None for messages that the template cannot write."""
        lengths: list[int | None] = [None] * len(prompts)
        for is_text in (True, False):  # a template writes the special tokens itself
            asked = [place for place, prompt in enumerate(prompts) if isinstance(prompt, str) == is_text]
            texts = {place: prompts[place] if is_text else self._render(prompts[place]) for place in asked}
            known = {place: text for place, text in texts.items() if text is not None}
            encodings = self._tokenizer.encode_batch(list(known.values()), add_special_tokens=is_text)
            for place, encoding in zip(known, encodings, strict=True):
                lengths[place] = len(encoding.ids)
        return lengths

    def _render(self, messages: Sequence[dict[str, str]]) -> str | None:
        if self._template is None:
            return None
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **self._specials)
        except Exception:  # a program of the model's author raises what it likes; the row is told of
            return None


def load_counter(model: Path) -> TokenCounter:
    """The counter of a base model's folder. Raises Unprocessable for one without a tokenizer.json."""
    from tokenizers import Tokenizer  # slow to load, and seldom asked for

    try:
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    except Exception as error:  # the library raises its own kind of plain Exception
        detail = f"The model '{model.name}' has no tokenizer.json that can be read, so no tokens can be counted."
        raise Unprocessable(detail, param="model") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings = _read_json(model / "tokenizer_config.json")
    separate = model / "chat_template.jinja"
    template = separate.read_text() if separate.is_file() else settings.get("chat_template")
    named = ("bos_token", "eos_token", "pad_token", "unk_token")
    specials = {name: _text(settings[name]) for name in named if settings.get(name)}
    try:
        return TokenCounter(tokenizer, template if isinstance(template, str) else None, specials)
    except TemplateError as error:
        raise Unprocessable(f"The chat template of '{model.name}' cannot be read: {error}.", param="model") from error


def _environment() -> ImmutableSandboxedEnvironment:
    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _read_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)
