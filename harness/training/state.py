"""Everything of a fit that changes from step to step, what a checkpoint holds of it, and the loss of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.data.shards import Batches
from harness.method import Method
from harness.nn.network import Network
from harness.training.averaging import Averages
from harness.training.checkpoint import restore_rng, rng_state
from harness.training.distill import Teacher, distillation_loss
from harness.training.optim import Optimisers, build_optimisers
from harness.training.phases import Phases, positions_as_logged
from harness.training.recipe import Recipe
from harness.training.repetition import LoggedFit


@dataclass(kw_only=True, slots=True)
class FitState:
    """The parts of one fit; `start_fit` makes it."""

    network: Network
    optimisers: Optimisers
    averages: Averages
    has_ema: bool
    phases: Phases
    batches: Batches
    loss: Callable[[Tensor, Tensor], Tensor]
    distillation: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    flops_per_step: Callable[[int], float]
    before_step: Callable[[float], None] | None
    logged: LoggedFit | None
    teacher: Teacher = field(default_factory=Teacher)
    next_validation: int = 1

    def advance(self, step: int, total_steps: float) -> None:
        """Begin what begins with `step` of `total_steps`; the teacher is the average at that moment."""
        if "distill" in self.phases.advance(step, total_steps):
            self.begin_distillation(step)

    def begin_distillation(self, step: int) -> None:
        """Let the average as it is now teach from `step` on."""
        self.phases.begun["distill"] = step
        self.teacher.freeze(self.network, self.averages)

    def average(self) -> None:
        """Take the weights that a step left into the average, where one is taken."""
        if self.has_ema or self.phases.has_begun("swa"):
            self.averages.update()

    def teacher_flops(self, num_tokens: int) -> float:
        """Operations of the teacher in this step: a forward pass, a third of what the network does in a step."""
        return self.flops_per_step(num_tokens) / 3 if self.phases.has_begun("distill") else 0.0

    def objective(self, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to descend, and the mean cross entropy in nats a token, which is reported."""
        if self.phases.has_begun("distill"):
            return self.distillation(tokens_BT, self.teacher.logits(self.network, tokens_BT), targets_BT)
        loss = self.loss(tokens_BT, targets_BT)
        return loss, loss

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds; tensors are views."""
        return {
            "network": self.network.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "averages": self.averages.state_dict(),
            "phases": self.phases.state_dict(),
            "teacher": self.teacher.state_dict(),
            "rng": rng_state(),
            "next_validation": self.next_validation,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, also one written before there were phases."""
        self.network.load_state_dict(state["network"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.averages.load_state_dict(state["averages"])
        self.phases.load_state_dict(state.get("phases", {"begun": {}}))
        self.teacher.load_state_dict(state.get("teacher", {}), next(self.network.parameters()).device)
        restore_rng(state["rng"])
        self.next_validation = state["next_validation"]


def start_fit(
    network: Network,
    *,
    method: Method,
    recipe: Recipe,
    batches: Batches,
    flops_per_step: Callable[[int], float],
    before_step: Callable[[float], None] | None,
    logged: LoggedFit | None = None,
) -> FitState:
    """Make the state of a fit that has not begun.

    Args:
        network: on its device, in training mode.
        method: names the parameter groups.
        recipe: of the run.
        batches: in the order of training.
        flops_per_step: of this network.
        before_step: of the method.
        logged: what this fit repeats, if anything.
    """
    phases = recipe.model_dump()
    if logged is not None:
        phases |= positions_as_logged(phases, logged.phases)

    def distillation(tokens_BT: Tensor, teacher_BTV: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        return distillation_loss(
            network(tokens_BT),
            teacher_BTV,
            targets_BT,
            temperature=recipe.distill_temperature,
            weight=recipe.distill_weight,
        )

    return FitState(
        network=network,
        optimisers=build_optimisers(network, method.param_groups(network), recipe),
        averages=Averages(network, ema_decay=recipe.ema_decay),
        has_ema=recipe.ema_decay > 0,
        phases=Phases(phases),
        batches=batches,
        loss=torch.compile(network.loss) if recipe.compile else network.loss,
        distillation=torch.compile(distillation) if recipe.compile else distillation,
        flops_per_step=flops_per_step,
        before_step=before_step,
        logged=logged,
    )


def copy_state(value: Any) -> Any:
    """Copy nested state with its tensors; `state_dict` itself only gives views."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copy_state(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copy_state(item) for item in value)
    return value
