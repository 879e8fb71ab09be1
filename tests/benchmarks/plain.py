"""The `small` models of `dense` and `legendre` as plain PyTorch, in the manner of the scripts they were published with.

Of this project nothing is used here. Modules have the names that our files give their tensors, so that the weights of
ours can be loaded. Attention is `scaled_dot_product_attention`, weights over depth are generated layer by layer in each
forward pass, and the optimisers are the fused AdamW of torch and Muon matrix by matrix.

Shape letters: B batch, T positions, D width, H query heads, E features of a head, V vocabulary, K orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the two models have in common."""

    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    mlp_width: int
    vocab_size: int
    context: int
    embedding_rank: int = 0
    softcap: float = 30.0

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    def matrices(self) -> dict[str, tuple[int, int]]:
        """In and out features by the name of the map in its block."""
        d, kv, inner = self.width, self.num_kv_heads * self.head_width, self.mlp_width
        attention = {"query": (d, d), "key": (d, kv), "value": (d, kv), "output": (d, d)}
        return attention | {"up": (d, inner), "down": (inner, d)}


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),), eps=1.1920929e-07)


class Rotary(nn.Module):
    def __init__(self, context: int, head_width: int) -> None:
        super().__init__()
        frequency = 10_000.0 ** -(torch.arange(0, head_width, 2) / head_width)
        angle = torch.outer(torch.arange(context), frequency)
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)

    def forward(self, x_BHTE: Tensor) -> Tensor:
        length = x_BHTE.size(2)
        cosine, sine = self.cosine[:length].to(x_BHTE.dtype), self.sine[:length].to(x_BHTE.dtype)
        a, b = x_BHTE.chunk(2, -1)
        return torch.cat((a * cosine + b * sine, b * cosine - a * sine), -1)


class Attention(nn.Module):
    def __init__(self, shape: Shape, linear: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = map(linear, ("query", "key", "value", "output"))
        self.query_gain = nn.Parameter(torch.full((shape.num_heads,), 1.5))
        self.head_width = shape.head_width

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        q, k, v = (self.heads(project(x_BTD)) for project in (self.query, self.key, self.value))
        q, k = rotary(rms_norm(q)), rotary(rms_norm(k))
        q = q * self.query_gain.to(q.dtype)[:, None, None]
        y_BHTE = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.output(y_BHTE.transpose(1, 2).flatten(2))

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, linear: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.up, self.down = linear("up"), linear("down")

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x_BTD)).square())


class Block(nn.Module):
    def __init__(self, shape: Shape, linear: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(shape, linear), MLP(linear)
        self.attention_scale = nn.Parameter(torch.ones(shape.width))
        self.mlp_scale = nn.Parameter(torch.ones(shape.width))
        self.residual_mix = nn.Parameter(torch.stack((torch.ones(shape.width), torch.zeros(shape.width))))

    def forward(self, x: Tensor, x0: Tensor, rotary: Rotary) -> Tensor:
        keep, embed = self.residual_mix.to(x.dtype)
        x = keep * x + embed * x0
        x = x + self.attention_scale.to(x.dtype) * self.attention(rms_norm(x), rotary)
        return x + self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x))


class Embedding(nn.Module):
    """A table, and the projection of a factorised one; both serve the tied head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        rank = shape.embedding_rank
        self.table = nn.Parameter(0.005 * torch.randn(shape.vocab_size, rank or shape.width))
        self.projection = nn.Linear(rank, shape.width, bias=False) if rank else nn.Identity()

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.projection(F.embedding(tokens_BT, self.table))

    def unembed(self, x_BTD: Tensor) -> Tensor:
        if isinstance(self.projection, nn.Linear):
            x_BTD = F.linear(x_BTD, self.projection.weight.T)
        return F.linear(x_BTD, self.table)


class PlainModel(nn.Module):
    """What `Dense` and `Legendre` share: everything but where weights come from."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.softcap = shape.softcap
        self.embedding = Embedding(shape)
        self.rotary = Rotary(shape.context, shape.head_width)

    def stream(self, x: Tensor) -> Tensor:
        """Run the embedded tokens through all blocks."""
        raise NotImplementedError

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross entropy in nats a token."""
        x = rms_norm(self.embedding(tokens_BT))
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        z_BTV = self.embedding.unembed(rms_norm(self.stream(x)))
        logits_BTV = self.softcap * torch.tanh(z_BTV / self.softcap)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


class Dense(PlainModel):
    """A matrix for every map, and U-Net skips from the first half of the blocks to the second."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.blocks = nn.ModuleList(Block(shape, own_matrices(shape)) for _ in range(shape.num_layers))
        self.body = nn.ParameterDict({"skip_weights": torch.ones(shape.num_layers // 2, shape.width)})

    def stream(self, x: Tensor) -> Tensor:
        x0, skips, weights = x, [], self.body["skip_weights"].to(x.dtype)
        num_pushed = len(weights)
        for block in self.blocks[:num_pushed]:
            x = block(x, x0, self.rotary)
            skips.append(x)
        for index, block in enumerate(self.blocks[num_pushed:]):
            if skips:
                x = x + weights[index] * skips.pop()
            x = block(x, x0, self.rotary)
        return x


def own_matrices(shape: Shape) -> Callable[[str], nn.Linear]:
    def make(name: str) -> nn.Linear:
        linear = nn.Linear(*shape.matrices()[name], bias=False)
        if name in ("output", "down"):
            nn.init.zeros_(linear.weight)
        return linear

    return make


class Generator(nn.Module):
    """Weights over depth: W_l = s_l * sum_k P_k(t_l) C_k."""

    def __init__(self, num_layers: int, degree: int, in_features: int, out_features: int, *, zero: bool) -> None:
        super().__init__()
        basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, num_layers), degree)
        self.register_buffer("basis", torch.tensor(basis, dtype=torch.float32), persistent=False)
        std = 0.0 if zero else out_features**-0.5
        self.coefficients = nn.ParameterList(
            2.0**-k * std * torch.randn(out_features, in_features) for k in range(degree + 1)
        )
        self.layer_scales = nn.Parameter(torch.ones(num_layers))

    def forward(self, layer: int) -> Tensor:
        stacked_KOI = torch.stack(list(self.coefficients))
        return self.layer_scales[layer] * torch.einsum("k,koi->oi", self.basis[layer], stacked_KOI)


class GeneratedLinear(nn.Module):
    def __init__(self, generator: Generator, layer: int) -> None:
        super().__init__()
        self.weight = lambda: generator(layer)  # a function, so that the generator is registered once

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight())


class Legendre(PlainModel):
    """Blocks in one group of generated weights, between two that own theirs."""

    def __init__(self, shape: Shape, attention_degree: int, mlp_degree: int) -> None:
        super().__init__(shape)
        num_generated = shape.num_layers - 2
        group = {
            name: Generator(
                num_generated,
                mlp_degree if name in ("up", "down") else attention_degree,
                *features,
                zero=name in ("output", "down"),
            )
            for name, features in shape.matrices().items()
        }
        own = own_matrices(shape)
        self.generators = nn.ModuleList([nn.ModuleDict(group)])
        self.blocks = nn.ModuleList(
            [
                Block(shape, own),
                *(
                    Block(shape, lambda name, layer=layer: GeneratedLinear(group[name], layer))
                    for layer in range(num_generated)
                ),
                Block(shape, own),
            ]
        )

    def stream(self, x: Tensor) -> Tensor:
        x0 = x
        for block in self.blocks:
            x = block(x, x0, self.rotary)
        return x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz iterations in bfloat16, one matrix after the other."""

    def __init__(self, groups: list[dict], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                buffer = state["momentum"].mul_(group["momentum"]).add_(gradient)
                update = newton_schulz(gradient.add(buffer, alpha=group["momentum"]))
                scale = max(1.0, parameter.size(0) / parameter.size(1)) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * scale)


def newton_schulz(gradient: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    X = gradient.bfloat16()
    X = X / (X.norm() + 1e-7)
    is_tall = X.size(0) > X.size(1)
    if is_tall:
        X = X.T
    for _ in range(5):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if is_tall else X


class Training:
    """Steps on random windows of a tensor of tokens.

    Args:
        model: to train.
        tokens: int64, the whole text.
        num_windows: windows of a step.
        context: tokens of a window.
        rates: peak learning rates of "matrix", "embedding" and "scalar"; order k has 0.625 * 1.1^k times the first.
        dtype: of autocast; float32 for none.
    """

    def __init__(
        self,
        model: PlainModel,
        tokens: Tensor,
        *,
        num_windows: int,
        context: int,
        rates: dict[str, float],
        dtype: torch.dtype,
    ) -> None:
        self.model, self.tokens = model, tokens
        self.num_windows, self.context, self.dtype = num_windows, context, dtype
        self.optimisers = make_optimisers(model, rates)

    def draw(self) -> Tensor:
        """Return the windows of a step, each with one token more than its inputs."""
        starts = torch.randint(len(self.tokens) - self.context, (self.num_windows,)).tolist()
        return torch.stack([self.tokens[start : start + self.context + 1] for start in starts])

    def step(self, windows: Tensor, lr_scale: float = 1.0, momentum: float = 0.95) -> float:
        """Take one step and return its loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss = self.model(windows[:, :-1], windows[:, 1:])
        loss.backward()
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * lr_scale
                if "momentum" in group:
                    group["momentum"] = momentum
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return loss.item()


def make_optimisers(model: PlainModel, rates: dict[str, float]) -> list[torch.optim.Optimizer]:
    """Muon for matrices in blocks and for coefficients, a group for each order; AdamW for the rest."""
    by_rate: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and name.endswith(".weight") and name.startswith("blocks.")
        is_coefficient = ".coefficients." in name
        role = "embedding" if name.startswith("embedding.") else "matrix" if is_matrix else "scalar"
        rate = rates[role]
        if is_coefficient:
            rate = rates["matrix"] * 0.625 * 1.1 ** int(name.rpartition(".")[2])
        by_rate.setdefault((is_matrix or is_coefficient, rate), []).append(parameter)

    def groups(for_muon: bool) -> list[dict]:
        return [
            {"params": parameters, "lr": rate, "peak_lr": rate}
            for (is_muon, rate), parameters in by_rate.items()
            if is_muon == for_muon
        ]

    return [Muon(groups(True)), torch.optim.AdamW(groups(False), betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
