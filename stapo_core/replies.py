"""Holds one model and answers: `python -m stapo_core.replies MODEL_FOLDER` reads an ask per line on its standard
input and writes a reply per line on its standard output. It leaves when the input closes, so it outlives nobody.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from stapo_core.data import DataError
from stapo_core.rollout import Draw
from stapo_core.rollout.prompts import encode_prompts
from stapo_core.rollout.transformers_sampler import TransformersSampler

COLDEST = 1e-4  # a temperature of 0 means the likeliest token; this is near enough to it to be the same


def main() -> int:
    """Loads the model, says so, and answers until the input ends. Exit status 2 for a folder that holds no model."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not stand among the replies
    transformers_logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
    except Exception as error:  # whatever a broken folder makes the loaders raise, the user sees one sentence
        _say(replies, {"error": f"the model cannot be loaded: {' '.join(str(error).split())[:300]}"})
        return 2
    _say(replies, {"ready": True})
    for line in sys.stdin:
        _say(replies, reply(json.loads(line), model, tokenizer))
    return 0


def reply(ask: dict[str, Any], model: Any, tokenizer: Any) -> dict[str, Any]:
    """The responses to one prompt, or a sentence on why there is none."""
    context = getattr(model.config, "max_position_embeddings", 2**31)
    try:
        prompts = encode_prompts([_row(ask["row"], tokenizer)], tokenizer, max(1, context - ask["max_tokens"]))
    except (DataError, ValueError) as error:
        return {"error": f"{error} (the model's context is {context} tokens, max_tokens is {ask['max_tokens']})"}
    sampler = TransformersSampler(model, tokenizer, max_response_tokens=ask["max_tokens"])
    draw = Draw(seed=ask["seed"], step=0, num_samples=ask["num_samples"], temperature=max(ask["temperature"], COLDEST))
    (group,) = sampler.sample(prompts, draw)
    return {
        "prompt_tokens": len(group.prompt.token_ids),
        "responses": [
            {"text": each.text.replace("\x00", "\ufffd"), "finish": each.finish, "tokens": len(each.token_ids)}
            for each in group.responses
        ],
    }


def _row(row: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Messages as they are where the model has a template for them, else their texts, one after another."""
    if "messages" not in row or tokenizer.chat_template:
        return row
    return {"prompt": "\n".join(message["content"] for message in row["messages"])}


def _say(replies: TextIO, said: dict[str, Any]) -> None:
    replies.write(json.dumps(said) + "\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
