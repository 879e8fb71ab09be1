"""MPO: every linear map of the transformer is a chain of cores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import ArtifactError, UsageError
from harness.method import Parent, Role, load_tensors
from harness.nn import inits
from harness.nn.config import LinearRole
from harness.nn.factorise import Modes, balanced_modes
from harness.nn.layers import LinearFactory, dense_factory
from harness.nn.network import Network
from harness.nn.transformer import Transformer
from methods.mpo.costs import choose_plan, plan_work
from methods.mpo.layer import MPOLinear

SITES = (2, 3, 4)
# The published tables follow from this width: 128 = 8 * 16 in two sites, but 512 = 8 * 8 * 8 in three.
WIDEST_MODE = 16


class MPOSettings(BackboneSettings):
    """The backbone's settings, and how matrices are factorised."""

    chi: int = Field(8, ge=1, le=4096, description="bond dimension")
    faithful: bool = Field(
        False, description="all inner bonds are chi, as published, also where the rank of a cut is less"
    )
    sites: Literal[0, 2, 3, 4] = Field(
        0, description=f"cores of each matrix; 0 for the fewest with no mode above {WIDEST_MODE}"
    )
    modes: dict[LinearRole, tuple[tuple[int, ...], tuple[int, ...]]] = Field(
        {}, description="out and in features of each site, for single roles: {head = [[5, 13], [8, 16]]}"
    )
    dense_roles: tuple[LinearRole, ...] = Field((), description="roles that keep a dense matrix")
    init_std: float = Field(0.0, ge=0, description="deviation of the initial dense matrices; 0 for 1/sqrt(in)")


class MPO(BackboneMethod):
    """Stores the cores of each linear map; the embedding, norms and biases are dense."""

    settings_class = MPOSettings
    settings: MPOSettings

    def build(self) -> Transformer:
        """Make the network with fresh cores."""
        return Transformer(
            self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=self._make_factory()
        )

    def build_from(self, parent: Parent) -> Network:
        """Make the network from a stored one: of this method as it is, else its matrices by TT-SVD.

        The parent must have a dense matrix for each chain, and be equal in all else. Where `faithful` asks for more
        than the rank of a cut, what is beyond it starts at zero times fresh values, so that it can still learn.

        Raises:
            UsageError: the parent has other tensors.
        """
        network = self.build()
        chains = {f"{name}.": module for name, module in network.named_modules() if isinstance(module, MPOLinear)}
        stored, tensors = dict(self.stored_tensors(network)), dict(parent.tensors)
        try:
            for stem, chain in chains.items():
                if (weight_OI := tensors.pop(f"{stem}weight", None)) is not None:
                    chain.set_matrix(torch.from_numpy(weight_OI))
                    tensors |= {name: stored[name].numpy() for name in stored if name.startswith(f"{stem}cores.")}
            return load_tensors(network, tensors, stored)
        except (ArtifactError, UsageError) as error:
            raise UsageError(f"--from a record of '{parent.method}': {error}") from error

    def _make_factory(self) -> LinearFactory:
        settings = self.settings
        init = inits.normal(settings.init_std) if settings.init_std else inits.normal_fan_in
        dense = dense_factory(settings, init, zero_outputs=False)

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            if role in settings.dense_roles:
                return dense(role, depth, in_features, out_features)
            modes = self.modes_of(role, in_features, out_features)
            return MPOLinear(modes, self.bonds_of(modes), bias=role in settings.biases)

        return make

    def modes_of(self, role: LinearRole, in_features: int, out_features: int) -> Modes:
        """Return the modes of a role: those of the settings, else the balanced ones.

        Raises:
            UsageError: there are none, or the given ones do not multiply to the features; names the layer.
        """
        where = f"mpo: {_path(role)} has {in_features} inputs and {out_features} outputs"
        if role in self.settings.modes:
            modes = Modes(*self.settings.modes[role])
            if modes.num_sites != len(modes.ins) or not 2 <= modes.num_sites <= max(SITES):
                raise UsageError(f"{where}; modes.{role}: give 2 to {max(SITES)} out and as many in features")
            if modes.shape != (out_features, in_features):
                raise UsageError(f"{where}; modes.{role}: {modes.outs} and {modes.ins} do not multiply to these")
            return modes
        sites = (self.settings.sites,) if self.settings.sites else SITES
        found = balanced_modes(in_features, out_features, sites, WIDEST_MODE)
        if found is None:
            raise UsageError(
                f"{where}, which do not both split into {' or '.join(map(str, sites))} factors above 1. "
                f"Set another size, sites=0, or --set 'dense_roles=[\"{role}\"]'"
            )
        return found

    def bonds_of(self, modes: Modes) -> tuple[int, ...]:
        """Return the bonds of a chain: all chi if faithful, else at most the rank of each cut."""
        chi = self.settings.chi
        return (1, *[chi] * (modes.num_sites - 1), 1) if self.settings.faithful else modes.bonds(chi)

    def role_of(self, name: str) -> Role:
        """Cores are matrices, also those of the head; the rest is as in the backbone."""
        return "matrix" if ".cores." in name else super().role_of(name)

    def part_of(self, name: str) -> str:
        """Name the component: cores of blocks and of the head apart from dense matrices."""
        if ".cores." in name:
            return "head_cores" if name.startswith("head.") else "cores"
        return super().part_of(name)

    def stored_tensors(self, network: Network) -> Iterator[tuple[str, Tensor]]:
        """Yield cores as matrices (A o, i Z), so that a quantiser's row is one out digit at one left bond."""
        for name, tensor in super().stored_tensors(network):
            yield name, tensor.flatten(2).flatten(0, 1) if ".cores." in name else tensor

    def flops_per_step(self, num_tokens: int) -> float:
        """Count the backbone's operations, with those of the chosen plans in place of the dense products."""
        rows = min(self.task.pass_tokens or num_tokens, num_tokens)
        extra = sum(self._extra_multiply_adds(modes, rows) for modes in self._maps())
        return super().flops_per_step(num_tokens) + 2.0 * extra * num_tokens / rows

    def _maps(self) -> Iterator[Modes]:
        """Yield the modes of every linear map that is a chain, at every depth."""
        settings = self.settings
        shapes = [(role, shape) for role, shape in settings.linear_shapes.items() for _ in range(settings.num_layers)]
        if not settings.tied:
            shapes.append(("head", (settings.width, self.task.vocab_size)))
        yield from (self.modes_of(role, *shape) for role, shape in shapes if role not in settings.dense_roles)

    def _extra_multiply_adds(self, modes: Modes, num_rows: int) -> int:
        """Count what one pass of the chosen plan does beyond three products with the dense matrix."""
        plan = choose_plan(modes, self.bonds_of(modes), num_rows, True)
        work = plan_work(plan, modes, self.bonds_of(modes), num_rows, with_backward=True)
        return work.multiply_adds - 3 * num_rows * math.prod(modes.shape)


def _path(role: LinearRole) -> str:
    if role == "head":
        return "layer head"
    return f"layer blocks.*.{'mlp' if role in ('gate', 'up', 'down') else 'attention'}.{role}"


METHOD = MPO
