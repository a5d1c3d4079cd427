"""Holds one model and answers: `python -m stapo_core.replies MODEL_FOLDER` reads a line of JSON per ask on its standard
input and says what it draws, token by token, on its standard output. It leaves when the input closes.

In:  {"id", "rows": [{"prompt"} or {"messages"}, ...], "num_samples", "temperature", "top_p", "max_tokens", "seed",
     "stop": [...], "logprobs": how many alternatives of each token are told, or null, "is_live": whether pieces are,
     "fits_context": whether max_tokens gives way where the model's context leaves less}
     {"cancel": id}
Out: {"ready": true, "context": tokens} or {"error": why} once, then for each ask any number of
     {"id", "pieces": [{"index", "text", "tokens"}, ...]} and in the end one of
     {"id", "reply": {"prompt_tokens", "responses": [{"text", "finish", "tokens", "logprobs"}, ...]}},
     {"id", "error": why}, {"id", "stopped": true}
Responses are counted row by row. A token told is {"token", "logprob", "bytes", "top": [{"token", "logprob", "bytes"}]},
in nats at temperature 1, whatever it was drawn at. An ask that is not live has empty pieces, as a sign of life.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from stapo_core.batch import Group
from stapo_core.data import DataError
from stapo_core.rollout import Draw, Limits, Stopped
from stapo_core.rollout.fused_decoder import open_decoders
from stapo_core.rollout.prompts import encode_prompts
from stapo_core.rollout.text_flow import TextFlow, TokenTexts
from stapo_core.rollout.transformers_sampler import TransformersSampler

COLDEST = 1e-4  # a temperature of 0 means the likeliest token; this is near enough to it to be the same
SIGN_OF_LIFE_S = 0.5
Ask = dict[str, Any]


def main() -> int:
    """Loads the model, says so, and answers until the input ends. Exit status 2 for a folder that holds no model."""
    voice = Voice(os.fdopen(os.dup(sys.stdout.fileno()), "w"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not stand among the replies
    transformers_logging.disable_progress_bar()
    inbox = Inbox(sys.stdin)
    folder = Path(sys.argv[1])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
        replier = Replier(model, tokenizer, inbox, voice)
    except Exception as error:  # whatever a broken folder makes the loaders raise, the user sees one sentence
        voice.say(error=f"the model cannot be loaded: {' '.join(str(error).split())[:300]}")
        return 2
    voice.say(ready=True, context=replier.context)
    while (ask := inbox.next_ask()) is not None:
        replier.reply(ask)
    return 0


class Voice:
    """Says one thing per line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def say(self, **said: Any) -> None:
        """Writes a line, at once."""
        self._out.write(json.dumps(said) + "\n")
        self._out.flush()


class Inbox:
    """Reads the input beside the drawing, so that an ask can be cancelled while it is answered."""

    def __init__(self, lines: TextIO) -> None:
        self._asks: queue.Queue[Ask | None] = queue.Queue()
        self._cancelled: str | None = None
        """The latest: asks come one after another, and one that was answered is asked about no more."""
        self._is_closed = False
        threading.Thread(target=self._read, args=(lines,), name="inbox", daemon=True).start()

    def next_ask(self) -> Ask | None:
        """Waits for an ask; None when the input has closed."""
        return None if self._is_closed else self._asks.get()

    def is_unwanted(self, ask: Ask) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_closed or ask["id"] == self._cancelled

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            said = json.loads(line)
            if "cancel" in said:
                self._cancelled = said["cancel"]
            else:
                self._asks.put(said)
        self._is_closed = True
        self._asks.put(None)


class Replier:
    """Answers asks with one model, one after another."""

    def __init__(self, model: Any, tokenizer: Any, inbox: Inbox, voice: Voice) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._inbox, self._voice = inbox, voice
        self._texts = TokenTexts(tokenizer)
        with torch.no_grad():
            self._decoders = open_decoders(model)
        self.context: int = getattr(model.config, "max_position_embeddings", 2**31)

    def reply(self, ask: Ask) -> None:
        """The responses to the rows of one ask, or a sentence on why there are none."""
        try:
            rows = [_row(row, self._tokenizer) for row in ask["rows"]]
            prompts = encode_prompts(rows, self._tokenizer, sys.maxsize)
            most = self._choose_limit(ask, max(len(prompt.token_ids) for prompt in prompts))
        except (DataError, ValueError) as error:
            self._voice.say(id=ask["id"], error=str(error))
            return
        teller = Teller(ask, self._tokenizer, self._texts, self._voice)
        sampler = TransformersSampler(
            self._model,
            self._tokenizer,
            max_response_tokens=most,
            should_stop=lambda: self._inbox.is_unwanted(ask),
            decoders=self._decoders,
            watch=teller,
        )
        try:
            groups = sampler.sample(prompts, _draw(ask))
        except Stopped:
            self._voice.say(id=ask["id"], stopped=True)
            return
        teller.finish()
        prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        self._voice.say(id=ask["id"], reply={"prompt_tokens": prompt_tokens, "responses": teller.responses(groups)})

    def _choose_limit(self, ask: Ask, longest: int) -> int:
        """The most tokens of a response. Raises ValueError when the context has no room for them."""
        room, most = self.context - longest, int(ask["max_tokens"])
        if room >= 1 and ask.get("fits_context", False):
            return min(most, room)
        if most > room:
            has = f"a prompt has {longest} tokens and the model's context is {self.context}"
            remedy = f"lower max_tokens from {most} to {room}, or shorten the prompt" if room >= 1 else "shorten it"
            raise ValueError(f"{has}; {remedy}")
        return most


class Teller:
    """Looks on while an ask is answered, and tells what can be told after every token."""

    def __init__(self, ask: Ask, tokenizer: Any, texts: TokenTexts, voice: Voice) -> None:
        num_responses = len(ask["rows"]) * ask["num_samples"]
        self._ask, self._texts, self._voice = ask, texts, voice
        self._flows = [TextFlow(tokenizer, ask["stop"]) for _ in range(num_responses)]
        self._tokens: list[list[dict[str, Any]]] = [[] for _ in range(num_responses)]
        self._silent = frozenset(tokenizer.all_special_ids)  # not part of the text, so not told either
        self._said_at = time.monotonic()

    def __call__(self, responses: Sequence[int], token_ids: Int64[Tensor, " n"], logits: Float[Tensor, "n V"]) -> None:
        """One token of each of some responses."""
        ids = token_ids.tolist()
        told: list[list[dict[str, Any]]] = [[] for _ in ids]
        if self._ask["logprobs"] is not None:
            told = [[token] if token_id not in self._silent else [] for token_id, token in self._describe(ids, logits)]
            for number, tokens in zip(responses, told, strict=True):
                self._tokens[number] += tokens
        if self._ask["is_live"]:
            texts = [self._flows[number].add(token_id) for number, token_id in zip(responses, ids, strict=True)]
            self._say(list(responses), texts, told)
        elif time.monotonic() - self._said_at > SIGN_OF_LIFE_S:
            self._say([], [], [])

    def finish(self) -> None:
        """Tells what was held back."""
        if self._ask["is_live"]:
            numbers = list(range(len(self._flows)))
            self._say(numbers, [flow.end() for flow in self._flows], [[] for _ in numbers])

    def responses(self, groups: Sequence[Group]) -> list[dict[str, Any]]:
        """The whole answer."""
        drawn = [response for group in groups for response in group.responses]
        return [
            {
                "text": response.text.replace("\x00", "\ufffd"),
                "finish": response.finish,
                "tokens": len(response.token_ids),
                "logprobs": None if self._ask["logprobs"] is None else tokens,
            }
            for response, tokens in zip(drawn, self._tokens, strict=True)
        ]

    def _say(self, numbers: list[int], texts: list[str], told: list[list[dict[str, Any]]]) -> None:
        pieces = [
            {"index": number, "text": text.replace("\x00", "\ufffd"), "tokens": tokens}
            for number, text, tokens in zip(numbers, texts, told, strict=True)
            if text or tokens
        ]
        if pieces or time.monotonic() - self._said_at > SIGN_OF_LIFE_S:
            self._said_at = time.monotonic()
            self._voice.say(id=self._ask["id"], pieces=pieces)

    def _describe(self, ids: list[int], logits: Float[Tensor, "n V"]) -> Iterator[tuple[int, dict[str, Any]]]:
        logprobs = logits.float().log_softmax(dim=-1)
        best = logprobs.topk(min(self._ask["logprobs"], logits.shape[-1]), dim=-1)
        rows = zip(ids, logprobs, best.indices.tolist(), best.values.tolist(), strict=True)
        for token_id, row, best_ids, best_values in rows:
            top = [self._token(*pair) for pair in zip(best_ids, best_values, strict=True)]
            yield token_id, self._token(token_id, row[token_id].item()) | {"top": top}

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._texts.text(token_id).replace("\x00", "\ufffd")
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": self._texts.bytes(token_id)}


def _draw(ask: Ask) -> Draw:
    return Draw(
        seed=ask["seed"],
        step=0,
        num_samples=ask["num_samples"],
        temperature=max(ask["temperature"], COLDEST),
        limits=Limits(top_p=ask["top_p"]),
        stop=tuple(ask["stop"]),
    )


def _row(row: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Messages as they are where the model has a template for them, else their texts, one after another."""
    if "messages" not in row or tokenizer.chat_template:
        return row
    return {"prompt": "\n".join(message["content"] for message in row["messages"])}


if __name__ == "__main__":
    sys.exit(main())
