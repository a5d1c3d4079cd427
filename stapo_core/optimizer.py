"""AdamW with warm-up and clipping by global norm, and its state by parameter name. Knows no loss and no algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from stapo_core.config import OptimizerConfig
from stapo_core.distributed import Ranks

_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Share of the full rate by share of the updates after warm-up that are done."""


class Optimizer:
    """Moves the parameters by the gradients that lie in them; `num_updates` counts the calls of `step` and `skip`."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, *, num_updates_in_all: int
    ) -> None:
        self.config = config
        self.num_updates_in_all = num_updates_in_all
        self.parameters = dict(parameters)
        self.num_updates = 0
        matrices = [parameter for parameter in self.parameters.values() if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.parameters.values() if parameter.ndim < 2]
        self._adamw = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True,
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the next update: a linear rise over `warmup_steps` updates, then the schedule."""
        warmup = self.config.warmup_steps
        if self.num_updates < warmup:
            return self.config.learning_rate * (self.num_updates + 1) / warmup
        done = (self.num_updates - warmup) / max(1, self.num_updates_in_all - warmup)
        return self.config.learning_rate * _SCHEDULES[self.config.schedule](min(1.0, done))

    def sum_gradients(self, ranks: Ranks) -> None:
        """Adds up the gradients of all ranks; one that a rank has not computed counts as 0."""
        if ranks.size == 1:
            return
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        ranks.sum_(self._gradients())

    def scale_gradients(self, factor: float) -> float:
        """Multiplies every gradient by `factor` and returns their global norm after it."""
        gradients = self._gradients()
        if not gradients:
            return 0.0
        torch._foreach_mul_(gradients, factor)
        return torch.nn.utils.get_total_norm(gradients).item()

    def step(self, norm: float) -> None:
        """Clips gradients of global norm `norm` to max_grad_norm and updates the parameters."""
        if norm > self.config.max_grad_norm:
            torch._foreach_mul_(self._gradients(), self.config.max_grad_norm / norm)
        for group in self._adamw.param_groups:
            group["lr"] = self.learning_rate
        self._adamw.step()
        self.skip()

    def skip(self) -> None:
        """Drops the gradients; the schedule moves on, so that it stays tied to the steps of the run."""
        self.zero_gradients()
        self.num_updates += 1

    def zero_gradients(self) -> None:
        """Drops the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Both moments and the step count of each parameter that has been updated, as `<moment>/<name>`."""
        return {
            f"{key}/{name}": value
            for name, parameter in self.parameters.items()
            for key, value in self._adamw.state[parameter].items()
        }

    def load_state(self, state: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Takes over what `state` gave, bit for bit. Raises KeyError for a parameter that is not ours."""
        self.num_updates = num_updates
        for key, value in state.items():
            moment, _, name = key.partition("/")
            parameter = self.parameters[name]
            self._adamw.state[parameter][moment] = value.to(parameter.device).clone()

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
