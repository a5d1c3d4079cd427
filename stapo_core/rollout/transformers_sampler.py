"""Draws responses with any causal language model of transformers, in this process.

Each prompt is read once however many responses it gets; each response draws from its own random stream; rows that
end leave the batch. Log-probs and entropies come with the tokens, from the logits they were drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stapo_core.batch import Finish, Group, Prompt, Response
from stapo_core.failpoints import failpoint
from stapo_core.rollout import Draw, Limits, Stopped, Watcher
from stapo_core.rollout.decoding import Decoder
from stapo_core.rollout.drawing import Drawn, UniformStreams, draw_tokens, rule_out
from stapo_core.rollout.end_tokens import end_ids
from stapo_core.rollout.fused_decoder import open_decoders
from stapo_core.rollout.stop_strings import StopStrings

_Choose: TypeAlias = Callable[[Tensor, Tensor], Drawn]
"""Logits and the rows they belong to -> what was drawn."""
_Tell: TypeAlias = Callable[[int, Tensor], None]
"""The row of a response that has ended, and its tokens."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One response to be drawn: the place of its prompt, its own among all responses, the seed of its stream."""

    place: int
    number: int
    prompt: Prompt
    seed: int


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What one batch drew; columns past a row's `length` are unset."""

    token_ids: Int64[Tensor, "rows T"]
    logprobs: Float32[Tensor, "rows T"]
    entropies: Float32[Tensor, "rows T"]
    lengths: list[int]
    finishes: list[Finish]


class TransformersSampler:
    """An engine that shares the learner's module, or holds one of its own.

    `max_batch_tokens` bounds the tokens, prompts and room for responses included, whose keys and values are held
    at a time; a single response is drawn even if it alone exceeds it. `decoders` are made for the weights of every
    call anew unless they are given, which is for weights that never change. `on_response` gets the prompt and the text
    of a response as soon as it ends, while others are still drawn; those that are cut at the limit are not told.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_response_tokens: int,
        should_stop: Callable[[], bool] = lambda: False,
        max_batch_tokens: int = 131_072,
        decoders: Callable[[], Decoder] | None = None,
        watch: Watcher | None = None,
        on_response: Callable[[Prompt, str], None] | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_response_tokens = max_response_tokens
        self._should_stop = should_stop
        self._max_batch_tokens = max_batch_tokens
        self._decoders = decoders
        self._watch = watch
        self._on_response = on_response
        self._end_ids = end_ids(model, tokenizer)

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        """Draws `draw.num_samples` responses to each prompt; groups come back in the order of the prompts.

        Raises Stopped, between two tokens, once `should_stop` says so, but for a draw that is a look at the engine.
        """
        responses: list[list[Response]] = [[] for _ in prompts]
        with _evaluating(self._model), torch.no_grad():
            open_decoder = self._decoders or open_decoders(self._model)
            stops = StopStrings(draw.stop, self._tokenizer)
            for rows in self._batches(_rows(prompts, draw), pads=open_decoder().pads):
                drawn = self._draw(open_decoder(), rows, draw, stops)
                for row, response in zip(rows, self._responses(drawn, stops), strict=True):
                    responses[row.place].append(response)
        return [Group(prompt, tuple(drawn)) for prompt, drawn in zip(prompts, responses, strict=True)]

    def load(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Copies the weights in, unless they are the module's own. Raises RuntimeError for names that do not fit."""
        own = self._model.state_dict()
        shared = own.keys() == weights.keys() and all(own[name].data_ptr() == weights[name].data_ptr() for name in own)
        if not shared:
            self._model.load_state_dict(weights)

    def sleep(self) -> None:
        """Holds nothing between calls but the module, which it keeps."""

    def wake(self) -> None:
        """Has kept its module."""

    def close(self) -> None:
        """Holds nothing between calls but the module."""

    def _batches(self, rows: Sequence[_Row], *, pads: bool) -> Iterator[list[_Row]]:
        """Rows of similar prompt length together, as many as the token budget takes."""
        batch: list[_Row] = []
        for row in sorted(rows, key=lambda row: (len(row.prompt.token_ids), row.place)):
            length = len(row.prompt.token_ids)
            fits = (len(batch) + 1) * (length + self._max_response_tokens) <= self._max_batch_tokens
            if batch and not (fits and (pads or length == len(batch[0].prompt.token_ids))):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _draw(self, decoder: Decoder, rows: Sequence[_Row], draw: Draw, stops: StopStrings) -> _Tokens:
        self._check_stop(draw)
        prompts = {row.place: row.prompt for row in rows}
        logits = decoder.prefill([prompt.token_ids for prompt in prompts.values()])
        origin_of = {place: origin for origin, place in enumerate(prompts)}
        origins = torch.tensor([origin_of[row.place] for row in rows], device=logits.device)
        decoder.fan_out(origins, self._longest(draw))
        choose = _choose(UniformStreams([row.seed for row in rows]), draw)
        if self._watch is not None:
            choose = _watched(choose, self._watch, [row.number for row in rows])
        tell = self._tell(rows, stops, None if draw.max_tokens else self._on_response)
        return self._decode(decoder, logits[origins], choose, stops, tell, draw)

    def _longest(self, draw: Draw) -> int:
        return min(self._max_response_tokens, draw.max_tokens or self._max_response_tokens)

    def _tell(
        self, rows: Sequence[_Row], stops: StopStrings, on_response: Callable[[Prompt, str], None] | None
    ) -> _Tell:
        """Tells whoever listens of a response that has ended."""
        if on_response is None:
            return lambda row, token_ids: None
        return lambda row, token_ids: on_response(rows[row].prompt, stops.cut(self._texts([token_ids])[0]))

    def _decode(
        self, decoder: Decoder, logits: Tensor, choose: _Choose, stops: StopStrings, tell: _Tell, draw: Draw
    ) -> _Tokens:
        longest = self._longest(draw)
        shape = (len(logits), longest)
        token_ids = torch.zeros(shape, dtype=torch.int64, device=logits.device)
        logprobs, entropies = torch.zeros(shape, device=logits.device), torch.zeros(shape, device=logits.device)
        lengths = [longest] * len(logits)
        finishes: list[Finish] = ["length"] * len(logits)
        ends = torch.tensor(self._end_ids, device=logits.device)
        alive = torch.arange(len(logits))  # the row that each row of the decoder draws for
        for step in range(longest):
            drawn = choose(logits, alive)
            failpoint("sampling")
            on_device = alive.to(logits.device)
            token_ids[on_device, step] = drawn.token_ids
            logprobs[on_device, step] = drawn.logprobs
            entropies[on_device, step] = drawn.entropies
            ended = torch.isin(drawn.token_ids, ends).cpu() | stops.found(token_ids[on_device, : step + 1])
            for row in alive[ended].tolist():
                lengths[row], finishes[row] = step + 1, "stop"
                tell(row, token_ids[row, : step + 1])
            if bool(ended.all()) or step + 1 == longest:
                break
            self._check_stop(draw)
            next_ids = drawn.token_ids
            if bool(ended.any()):
                kept = _close_gaps(ended)
                alive, kept_on_device = alive[kept], kept.to(logits.device)
                decoder.keep(kept_on_device)
                next_ids = next_ids[kept_on_device]
            logits = decoder.step(next_ids)
        return _Tokens(token_ids.cpu(), logprobs.cpu(), entropies.cpu(), lengths, finishes)

    def _responses(self, drawn: _Tokens, stops: StopStrings) -> Iterator[Response]:
        kept = [ids[:length] for ids, length in zip(drawn.token_ids, drawn.lengths, strict=True)]
        texts = self._texts(kept)
        for row, (length, finish) in enumerate(zip(drawn.lengths, drawn.finishes, strict=True)):
            yield Response(
                token_ids=kept[row].clone(),
                logprobs=drawn.logprobs[row, :length].clone(),
                entropies=drawn.entropies[row, :length].clone(),
                text=stops.cut(texts[row]),
                finish=finish,
            )

    def _texts(self, token_ids: Sequence[Tensor]) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def _check_stop(self, draw: Draw) -> None:
        if draw.max_tokens is None and self._should_stop():
            raise Stopped


def _rows(prompts: Sequence[Prompt], draw: Draw) -> list[_Row]:
    """All responses to draw, those to one prompt together."""
    seeds = [(place, seed) for place, own in enumerate(draw.response_seeds(prompts)) for seed in own]
    return [_Row(place, number, prompts[place], seed) for number, (place, seed) in enumerate(seeds)]


def _choose(streams: UniformStreams, draw: Draw) -> _Choose:
    """Draws a token for each row that is alive, from that row's own stream."""

    def choose(logits: Tensor, alive: Tensor) -> Drawn:
        uniforms = streams.draw(alive.tolist()).to(logits.device)
        if draw.limits == Limits():
            return draw_tokens(logits, draw.temperature, uniforms)
        return draw_tokens(rule_out(logits, draw.temperature, draw.limits), 1.0, uniforms)

    return choose


def _watched(choose: _Choose, watch: Watcher, numbers: Sequence[int]) -> _Choose:
    """As `choose`, with somebody looking on; `numbers` are the responses' places among all."""

    def choose_and_show(logits: Tensor, alive: Tensor) -> Drawn:
        drawn = choose(logits, alive)
        watch([numbers[row] for row in alive.tolist()], drawn.token_ids, logits)
        return drawn

    return choose_and_show


def _close_gaps(ended: Tensor) -> Int64[Tensor, " m"]:
    """Which row each kept row comes from: rows stay where they are, and the last ones move into the gaps."""
    kept = torch.nonzero(~ended).squeeze(-1)
    num_kept = len(kept)
    rows = torch.arange(num_kept)
    rows[ended[:num_kept]] = kept[kept >= num_kept]
    return rows


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
