"""The model being trained: a transformers causal LM read from a folder, and one forward pass over many responses.

Knows token ids, hidden states and the head; it knows no reward, advantage or optimizer. Reads safetensors only and
never runs code that comes with a model.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import peft
import torch
import transformers
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from torch import Tensor, nn

from stapo_core.batch import Piece, TokenStats
from stapo_core.config import LoraConfig
from stapo_core.products import adopt
from stapo_core.token_stats import Head, token_stats

Precision = Literal["auto", "float32", "bfloat16"]


class ModelError(Exception):
    """The model's folder cannot be used; the message says why and what to do."""


class Policy:
    """A causal LM, its tokenizer, and the statistics of response tokens under it.

    Weights are float32 so that small updates are not lost; in bfloat16 the forward pass runs under autocast.
    """

    def __init__(self, model: Any, tokenizer: Any, *, dtype: torch.dtype = torch.float32) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.shares_prompts = shares_prompts(model)
        self.adapter: Any = None
        """peft's wrapper around the model, where adapters are trained."""
        self._merges = False

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, precision: Precision = "auto") -> Policy:
        """Reads a folder in Hugging Face layout. Raises ModelError when it is not one that can be trained."""
        check_folder(folder)
        tokenizer = load_tokenizer(folder)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder} cannot be loaded as a causal language model: {error}") from error
        adopt(model)
        model.to(device).eval()  # no dropout: the log-probs of two passes over the same weights must agree
        policy = cls(model, tokenizer, dtype=resolve_precision(precision, device))
        policy.check_head()
        return policy

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    @property
    def num_parameters(self) -> int:
        """Weights of the model, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name, tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """Every weight by name, for a sampler that reads this very module; a tied head stands under both its names."""
        return dict(self.model.state_dict())

    def merged(self) -> Any:
        """The model with its adapters merged in: a copy, so that the weights in training stay what they are."""
        return self.model if self.adapter is None else copy.deepcopy(self.adapter).merge_and_unload()

    def add_adapters(self, config: LoraConfig) -> None:
        """Freezes the weights and puts trainable low-rank adapters on every linear layer but the head."""
        settings = peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self.adapter = peft.get_peft_model(self.model, settings)
        self._merges = config.merge

    def save(self, folder: Path) -> None:
        """Writes tokenizer and model, or the adapters alone unless they are to be merged; safetensors throughout."""
        if self.adapter is None or self._merges:
            self.merged().save_pretrained(folder)
        else:
            self.adapter.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # peft's form of a model card, with nothing filled in
        self.tokenizer.save_pretrained(folder)

    def checkpoint_gradients(self) -> None:
        """Recomputes activations in the backward pass; each prompt is then read again for each of its responses."""
        for module in self.model.modules():  # checkpointing works in training mode alone, where dropout would act
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model.train()
        self.shares_prompts = False

    def freeze(self) -> Policy:
        """Turns its gradients off for good and returns it: a reference model."""
        self.model.requires_grad_(False)
        return self

    def score(self, pieces: Sequence[Piece], *, temperature: float) -> TokenStats:
        """Statistics of all response tokens of the pieces, end to end in their order; one forward pass.

        Each prompt is forwarded once, its cache (which carries gradients) repeated for its responses. Models whose
        cache cannot do that take prompt and response together.
        """
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            hidden = self._shared_hidden(pieces) if self.shares_prompts else self._plain_hidden(pieces)
        targets = torch.cat([ids for piece in pieces for ids in piece.responses]).to(self.device)
        return token_stats(hidden.to(self.dtype), self.head(temperature), targets)

    def head(self, temperature: float) -> Head:
        """How this model's logits follow from its hidden states."""
        config = self.model.config
        return Head(
            weight=self.model.get_output_embeddings().weight,
            temperature=temperature,
            softcap=getattr(config, "final_logit_softcapping", None),
            scale=_logit_scale(config),
        )

    def check_head(self) -> None:
        """Compares our log-probs of one short text with the model's own. Raises ModelError when they differ."""
        ids = torch.arange(4, device=self.device) % self.model.config.get_text_config().vocab_size
        piece = Piece(prompt_ids=ids[:2], responses=(ids[2:],), rows=(0,))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            logits = self.model(input_ids=ids[None]).logits[0, 1:3].float()
            expected = logits.log_softmax(dim=1).gather(1, ids[2:, None]).squeeze(1)
            scored = self.score([piece], temperature=1.0).logprobs
        tolerance = 1e-3 if self.dtype == torch.float32 else 0.5
        if not torch.allclose(scored, expected, atol=tolerance, rtol=tolerance):
            raise ModelError(
                f"the logits of {type(self.model).__name__} are not its hidden states times its head, so its "
                "log-probs would be wrong; choose a model whose head is one linear layer without a bias"
            )

    def _shared_hidden(self, pieces: Sequence[Piece]) -> Float[Tensor, "N D"]:
        """Hidden states that predict each response token: the prompt's last one, then the response's but its last."""
        prompts, prompt_mask = _pad([piece.prompt_ids for piece in pieces], self.device)
        owner = torch.tensor([len(piece.responses) for piece in pieces], device=self.device)
        responses = [ids for piece in pieces for ids in piece.responses]
        decoder = self.model.base_model
        prompt = decoder(
            input_ids=prompts,
            attention_mask=prompt_mask,
            position_ids=torch.arange(prompts.shape[1], device=self.device).expand_as(prompts),
            use_cache=True,
        )
        last = prompt_mask.sum(dim=1) - 1
        first: Tensor = prompt.last_hidden_state[torch.arange(len(pieces), device=self.device), last]
        first = first.repeat_interleave(owner, dim=0)
        inputs, input_mask = _pad([ids[:-1] for ids in responses], self.device)
        if inputs.shape[1] == 0:
            return first
        _repeat_cache(prompt.past_key_values, owner)
        continued = decoder(
            input_ids=inputs,
            attention_mask=torch.cat([prompt_mask.repeat_interleave(owner, dim=0), input_mask], dim=1),
            position_ids=(last + 1).repeat_interleave(owner)[:, None]
            + torch.arange(inputs.shape[1], device=self.device),
            past_key_values=prompt.past_key_values,
            use_cache=True,
        )
        hidden = torch.cat([first[:, None], continued.last_hidden_state], dim=1)
        is_scored = torch.nn.functional.pad(input_mask, (1, 0), value=1).bool()
        return hidden[is_scored]

    def _plain_hidden(self, pieces: Sequence[Piece]) -> Float[Tensor, "N D"]:
        """The same hidden states with each prompt repeated before each of its responses."""
        rows = [torch.cat([piece.prompt_ids, ids[:-1]]) for piece in pieces for ids in piece.responses]
        starts = torch.tensor([len(piece.prompt_ids) - 1 for piece in pieces for _ in piece.responses])
        inputs, mask = _pad(rows, self.device)
        places = torch.arange(inputs.shape[1], device=self.device)
        output = self.model.base_model(
            input_ids=inputs, attention_mask=mask, position_ids=places.expand_as(inputs), use_cache=False
        )
        hidden: Tensor = output.last_hidden_state
        return hidden[mask.bool() & (places >= starts.to(self.device)[:, None])]


def check_folder(folder: Path) -> dict[str, Any]:
    """The model's config.json. Raises ModelError when the folder lacks it, its tokenizer or its safetensors."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json; give the folder of a model in Hugging Face layout")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no *.safetensors; other weight formats are not read")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if "auto_map" in config:
        raise ModelError(f"{folder} wants code of its own to run (auto_map in config.json); that is never done")
    return config


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder. Raises ModelError when it lacks one."""
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} has no tokenizer that can be read: {error}") from error


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU, where it is bit-exact, and bfloat16 on a GPU."""
    if precision == "auto":
        precision = "float32" if device.type == "cpu" else "bfloat16"
    return torch.float32 if precision == "float32" else torch.bfloat16


def shares_prompts(model: Any) -> bool:
    """Whether a padded prompt's cache can be repeated and continued: full attention and explicit positions."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) if not hasattr(config, "layer_types") else None
    parameters = inspect.signature(model.base_model.forward).parameters
    takes_positions = {"position_ids", "past_key_values", "attention_mask"} <= set(parameters)
    return takes_positions and window is None and set(layers) == {"full_attention"}


def _logit_scale(config: Any) -> float:
    """Cohere multiplies its logits by a constant, Granite divides them by one."""
    if getattr(config, "logit_scale", None):
        return float(config.logit_scale)
    return 1.0 / float(getattr(config, "logits_scaling", None) or 1.0)


def _repeat_cache(cache: Any, owner: Int64[Tensor, " B"]) -> None:
    """Repeats each prompt's keys and values for its responses, in place; the repeats carry gradients.

    An equal number is repeated by expansion, whose backward pass is a plain sum: fast, and the same every time.
    """
    counts = owner.tolist()
    repeats: Any = counts[0] if len(set(counts)) == 1 else owner
    for layer in cache.layers:
        layer.keys = layer.keys.repeat_interleave(repeats, dim=0)
        layer.values = layer.values.repeat_interleave(repeats, dim=0)


def _pad(rows: Sequence[Int64[Tensor, " T"]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows padded on the right with 0, and the mask of what is real; both [rows, longest]."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    return padded.to(device), mask.to(device)
