"""How stored blocks run: flat ones once, shared ones in loops, a gate over what the loops give.

Shape letters: B batch, T positions, D width, K features of all value heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.nn.layers import Linear
from methods.recursive.inits import make_loop_vectors, orthogonal_if_large
from methods.recursive.settings import RecursiveSettings


def run_u_net(
    blocks: Sequence[nn.Module],
    x_BTD: Tensor,
    x0_BTD: Tensor,
    token_value_BTK: Tensor | None,
    skip_weights: Sequence[Tensor],
) -> Tensor:
    """Run blocks in order; each of the first pushes its output, the later ones pop and add it.

    Args:
        blocks: called as `block(x, x0, token_value)`.
        x_BTD: the stream, (B, T, D).
        x0_BTD: the embedded tokens, (B, T, D).
        token_value_BTK: what blocks may add to values, (B, T, K).
        skip_weights: a scale (D,) for each skip, half as many as blocks; empty for no skips.
    """
    pushed: list[Tensor] = []
    for index, block in enumerate(blocks):
        if index >= len(skip_weights) and pushed:
            x_BTD = torch.addcmul(x_BTD, skip_weights[index - len(skip_weights)], pushed.pop())
        x_BTD = block(x_BTD, x0_BTD, token_value_BTK)
        if index < len(skip_weights):
            pushed.append(x_BTD)
    return x_BTD


class DeliberationGate(nn.Module):
    """Merges the outputs of the loops with each other, then with a trained reference that lasts over steps.

    With one matrix W for every gate: c = g o_0 + (1 - g) o_1, g = sigmoid(W [o_0; o_1]); m = h c + (1 - h) r,
    h = sigmoid(W [c; r]); the output is o_1 + a (m - o_1). The strength a and the reference r start at zero, so
    that at first the last output passes and the others get no gradient. Published for one and two outputs; of more,
    each is merged with the consensus of those before.

    Source: train_gpt_micro_crawler_h100_run8_pd_fixed_cadence.py of the Micro Crawler.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # The published code declares W zero, and its pass over all linear maps makes it orthogonal.
        self.mix = Linear(2 * width, width, orthogonal_if_large)
        self.strength = nn.Parameter(torch.tensor(0.0))
        self.reference = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return one stream (B, T, D) from those of the loops, in their order."""
        last_BTD = consensus_BTD = outputs[0]
        for last_BTD in outputs[1:]:
            consensus_BTD = self._merge(consensus_BTD, last_BTD)
        merged_BTD = self._merge(consensus_BTD, self.reference.to(last_BTD.dtype).expand_as(last_BTD))
        return torch.addcmul(last_BTD, self.strength.to(last_BTD.dtype), merged_BTD - last_BTD)

    def _merge(self, a_BTD: Tensor, b_BTD: Tensor) -> Tensor:
        share_BTD = self.mix(torch.cat((a_BTD, b_BTD), -1)).sigmoid()
        return share_BTD * a_BTD + (1 - share_BTD) * b_BTD


class RecursiveBody(nn.Module):
    """Flat blocks once, then the shared blocks in every loop; in training some steps may fire the first loop only.

    The steps begun are counted in a buffer, so that a resumed run keeps the rhythm.
    """

    num_steps: Tensor

    def __init__(self, settings: RecursiveSettings) -> None:
        super().__init__()
        self.flat_blocks, self.loops, self.cadence = settings.flat_blocks, settings.loops, settings.cadence
        self.in_parallel = settings.firing == "parallel"
        self.skip_weights = self.loop_vectors = None
        if settings.num_skips:
            self.skip_weights = nn.Parameter(torch.ones(settings.num_skips, settings.width))
        if settings.loop_vectors != "none":
            self.loop_vectors = make_loop_vectors(
                settings.loop_vectors, settings.loops, settings.width, settings.loop_vector_scale
            )
        self.gate = DeliberationGate(settings.width) if settings.gate else None
        self.register_buffer("num_steps", torch.tensor(0))
        # Plain, so that a compiled network branches on it without waiting for the device.
        self.fires_all = True

    def begin_step(self) -> None:
        """Count an optimiser step and choose what it fires: all loops in the first of every `cadence` steps."""
        self.fires_all = self.cadence > 0 and int(self.num_steps) % self.cadence == 0
        self.num_steps += 1

    def forward(
        self, blocks: nn.ModuleList, x_BTD: Tensor, x0_BTD: Tensor, token_value_BTK: Tensor | None = None
    ) -> Tensor:
        """Run the stream (B, T, D), given the embedded tokens (B, T, D) and their values (B, T, K)."""
        skips = [] if self.skip_weights is None else list(self.skip_weights.to(x_BTD.dtype))
        flat, shared = list(blocks)[: self.flat_blocks], list(blocks)[self.flat_blocks :]
        x_BTD = run_u_net(flat, x_BTD, x0_BTD, token_value_BTK, skips if flat else [])
        outputs: list[Tensor] = []
        for loop in range(self.loops if self.fires_all or not self.training else 1):
            start_BTD = x_BTD if self.in_parallel or not outputs else outputs[-1]
            if self.loop_vectors is not None:
                start_BTD = start_BTD + self.loop_vectors[loop].to(x_BTD.dtype)
            outputs.append(run_u_net(shared, start_BTD, x0_BTD, token_value_BTK, [] if flat else skips))
        return outputs[-1] if self.gate is None else self.gate(outputs)
