"""A pretrained model whose residual stream carries no norm gains, so that every part may have a basis of its own.

Shape letters: D residual features, V vocabulary, L blocks. Rows are activations: y = x W, with W the transpose of a
torch weight. Bases are counted along the depth: 2 l is that in which the attention of block l reads, 2 l + 1 that of
its MLP, 2 L that of the head. A basis Q is orthogonal, and what was x there becomes x Q^T.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.nn.config import LinearRole
from harness.pretrained.families import Family, find_family
from harness.pretrained.parts import CentredHead, DenseSkip, GainlessNorm, HeadNorm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READERS_OF_ATTENTION: tuple[LinearRole, ...] = ("query", "key", "value")
READERS_OF_MLP: tuple[LinearRole, ...] = ("gate", "up")


class ResidualBlock(nn.Module):
    """A decoder layer with its norms' gains folded away and a matrix on each skip connection.

    Args:
        layer: the decoder layer, whose attention and linear maps are taken over.
        family: where its parts are.
        eps: of its norms.
    """

    def __init__(self, layer: nn.Module, family: Family, eps: float) -> None:
        super().__init__()
        self.norm, self.mlp_norm = GainlessNorm(eps), GainlessNorm(eps)
        self.layer = layer
        self.attention_skip: nn.Module = nn.Identity()
        self.mlp_skip: nn.Module = nn.Identity()
        self._family = family
        for name in (family.attention_norm, family.mlp_norm):
            setattr(layer, name, None)

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        """Run attention and MLP; what else the layer is given goes to the attention."""
        attended = self.layer.get_submodule("self_attn")(hidden_states=self.norm(hidden_states), **arguments)[0]
        hidden_states = self.attention_skip(hidden_states) + attended
        return cast(Tensor, self.mlp_skip(hidden_states) + self._run_mlp(self.mlp_norm(hidden_states)))

    def _run_mlp(self, x: Tensor) -> Tensor:
        if not self._family.activation:
            return cast(Tensor, self.layer.get_submodule("mlp")(x))
        activation = cast(nn.Module, getattr(self.layer, self._family.activation))
        return cast(Tensor, self.linear("down")(activation(self.linear("up")(x))))

    def linear(self, role: LinearRole) -> nn.Module:
        """Return the linear map of a role, as loaded or as last set."""
        return self.layer.get_submodule(self._family.linears[role])

    def set_linear(self, role: LinearRole, module: nn.Module) -> None:
        """Put another module in the place of a linear map."""
        self.layer.set_submodule(self._family.linears[role], module)

    def roles(self) -> tuple[LinearRole, ...]:
        """Return the roles of its linear maps."""
        return tuple(self._family.linears)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A linear map that faces the residual stream.

    Attributes:
        block: index of its block.
        role: of the map.
        reads: whether it reads from the stream; otherwise it writes to it.
    """

    block: int
    role: LinearRole
    reads: bool


def places_of(basis: int, num_blocks: int, roles: Sequence[LinearRole]) -> list[Place]:
    """Return the linear maps of blocks that write to a basis or read from it, the writer first.

    Args:
        basis: its number.
        num_blocks: L.
        roles: linear maps that each block has.
    """
    block, in_mlp = divmod(basis, 2)
    found: list[Place] = []
    if in_mlp:
        found.append(Place(block=block, role="output", reads=False))
    elif block > 0:
        found.append(Place(block=block - 1, role="down", reads=False))
    if block < num_blocks:
        readers = READERS_OF_MLP if in_mlp else READERS_OF_ATTENTION
        found += [Place(block=block, role=role, reads=True) for role in readers if role in roles]
    return found


class ResidualModel:
    """A Hugging Face model changed in place: norms folded, means removed, blocks with skip matrices.

    Attributes:
        model: the Hugging Face model, to be called as before.
        blocks: its blocks.
        is_tied: whether the head shares the embedding table.

    Raises:
        UsageError: the model's family cannot be rotated.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.family = find_family(model.config)
        self._decoder = model.get_submodule(self.family.decoder)
        head, table = cast(nn.Module, model.lm_head), self.embeddings[0].weight
        self.is_tied = cast(nn.Linear, head).weight is table
        with torch.no_grad():
            self._fold()

    @property
    def embeddings(self) -> list[nn.Embedding]:
        """The embedding tables that write to the first basis, that of tokens first."""
        return [cast(nn.Embedding, self._decoder.get_submodule(name)) for name in self.family.embeddings]

    @property
    def tables(self) -> list[Tensor]:
        """The weights of the embeddings, each (rows, D)."""
        return [embedding.weight.detach() for embedding in self.embeddings]

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The blocks, first to last."""
        return list(cast("nn.ModuleList", self._decoder.get_submodule("layers")))  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """D."""
        return self.embeddings[0].embedding_dim

    @property
    def num_bases(self) -> int:
        """2 L + 1."""
        return 2 * len(self.blocks) + 1

    def places(self, basis: int) -> list[Place]:
        """Return the linear maps of blocks that write to a basis or read from it, the writer first.

        Embeddings, which write to the first basis, and the head, which reads from the last, are not among them.
        """
        return places_of(basis, len(self.blocks), self.blocks[0].roles())

    def module(self, place: Place) -> nn.Module:
        """Return the module at a place."""
        return self.blocks[place.block].linear(place.role)

    def weight(self, place: Place) -> Tensor:
        """Return its dense weight oriented (D, N): rows are the residual features. A view.

        Raises:
            UsageError: the module there is no dense linear map any more.
        """
        module = self.module(place)
        if not isinstance(module, nn.Linear):
            raise UsageError(f"{place.role} of block {place.block} is a {type(module).__name__} already")
        return module.weight.detach().T if place.reads else module.weight.detach()

    @torch.no_grad()
    def rotate(self, bases: Sequence[Tensor]) -> None:
        """Go from the present bases to others, which leaves the function as it is.

        Args:
            bases: orthogonal (D, D), one for each of `num_bases`; products are made in float64.

        Raises:
            UsageError: there are more or fewer.
        """
        if len(bases) != self.num_bases:
            raise UsageError(f"{self.num_bases} bases are needed for {len(self.blocks)} blocks, got {len(bases)}")
        bases = [basis.double() for basis in bases]
        for embedding in self.embeddings:
            _assign(embedding.weight, embedding.weight.double() @ bases[0].T)
        for index, basis in enumerate(bases):
            for place in self.places(index):
                weight_DN = self.weight(place)
                _assign(weight_DN, basis @ weight_DN.double())
                bias = cast("Tensor | None", self.module(place).bias)
                if bias is not None and not place.reads:
                    _assign(bias, basis @ bias.double())
        for index, block in enumerate(self.blocks):
            for name, reads, writes in (
                ("attention_skip", bases[2 * index], bases[2 * index + 1]),
                ("mlp_skip", bases[2 * index + 1], bases[2 * index + 2]),
            ):
                skip = getattr(block, name)
                if isinstance(skip, nn.Identity) and torch.equal(reads, writes):
                    continue
                before = skip.matrix.double() if isinstance(skip, DenseSkip) else torch.eye(self.width).to(reads)
                setattr(block, name, DenseSkip((reads @ before @ writes.T).to(self.embeddings[0].weight)))
        self._rotate_head(bases[0], bases[-1])

    def num_params(self) -> int:
        """Count the numbers of the model, shared ones once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _rotate_head(self, embedding_DD: Tensor, head_DD: Tensor) -> None:
        norm, head = self.head_norm, cast(Any, self.model.lm_head)
        if not self.is_tied:
            _assign(head.weight, head.weight.double() @ head_DD.T)
            return
        assert norm.gain is not None
        gain_DD = norm.gain.double().diag() if norm.gain.ndim == 1 else norm.gain.double()
        norm.gain = nn.Parameter((head_DD @ gain_DD @ embedding_DD.T).to(norm.gain))
        if norm.bias is not None:
            _assign(norm.bias, embedding_DD @ norm.bias.double())
        if isinstance(head, CentredHead):
            _assign(head.ones, embedding_DD @ head.ones.double())

    @property
    def head_norm(self) -> HeadNorm:
        """The final norm."""
        return cast(HeadNorm, self._decoder.get_submodule(self.family.final_norm))

    def _fold(self) -> None:
        layers = cast(nn.ModuleList, self._decoder.get_submodule("layers"))
        for index, layer in enumerate(layers):
            for norm_name, readers in (
                (self.family.attention_norm, READERS_OF_ATTENTION),
                (self.family.mlp_norm, READERS_OF_MLP),
            ):
                norm = layer.get_submodule(norm_name)
                for role in readers:
                    if role in self.family.linears:
                        _fold_into(norm, cast(nn.Linear, layer.get_submodule(self.family.linears[role])))
            layers[index] = ResidualBlock(layer, self.family, _eps_of(norm))
        self._fold_head()
        if self.family.centres:
            self._remove_means()

    def _fold_head(self) -> None:
        norm, head = self._decoder.get_submodule(self.family.final_norm), cast(nn.Linear, self.model.lm_head)
        gain, bias = None, None
        if self.is_tied:
            gain, bias = (None if part is None else part.clone() for part in _affine(norm))
            gain = torch.ones(self.width).to(head.weight) if gain is None else gain
        else:
            _fold_into(norm, head)
        self._decoder.set_submodule(self.family.final_norm, HeadNorm(_eps_of(norm), gain, bias))

    def _remove_means(self) -> None:
        """Leave a residual stream whose features have mean 0, of which the norms then need not subtract it."""
        means_V = self.embeddings[0].weight.mean(1)
        for embedding in self.embeddings:
            embedding.weight -= embedding.weight.mean(1, keepdim=True)
        for index in range(self.num_bases):
            for place in self.places(index):
                if not place.reads:
                    module = cast(nn.Linear, self.module(place))
                    module.weight -= module.weight.mean(0)
                    bias = cast("Tensor | None", module.bias)
                    if bias is not None:
                        bias -= bias.mean()
        if self.is_tied:
            self.model.lm_head = CentredHead(self.embeddings[0], torch.ones(self.width).to(means_V), means_V)


def iterate_linears(model: ResidualModel) -> Iterator[tuple[Place, nn.Module]]:
    """Yield each linear map of the blocks with its place, in order of the bases."""
    for basis in range(model.num_bases):
        for place in model.places(basis):
            yield place, model.module(place)


def _affine(norm: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    return cast("Tensor | None", getattr(norm, "weight", None)), cast("Tensor | None", getattr(norm, "bias", None))


def _eps_of(norm: nn.Module) -> float:
    return float(getattr(norm, "variance_epsilon", None) or cast(Any, norm).eps)


def _fold_into(norm: nn.Module, linear: nn.Linear) -> None:
    """Let a linear map do what the gain and bias of the norm before it did; products in float64."""
    gain, bias = _affine(norm)
    weight_OI = linear.weight.double()
    if bias is not None:
        before = 0.0 if linear.bias is None else linear.bias.double()
        linear.bias = nn.Parameter((before + weight_OI @ bias.double()).to(linear.weight))
    if gain is not None:
        _assign(linear.weight, weight_OI * gain.double())


def _assign(place: Tensor, value: Tensor) -> None:
    place.data.copy_(value)
