"""A small typed grammar of weight generators (torch-free).

An expression stands for the weights (O, I) of one linear role at every layer. It is of one of two sorts:

- a *matrix* knows nothing of depth: one (O, I) for all layers;
- a *stack* varies with depth: one (O, I) a layer.

`OverDepth` and `Share` take a matrix and make a stack of several copies of it; `Scale` over layers and the vector over
layers are stacks by themselves. Sums and products take both sorts and are stacks if one side is. The text of an
expression parses back to it, see `methods.generator_search.parsing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from harness.errors import UsageError

MAX_KNOB = 4096
MAX_NODES = 64

VectorAxis = Literal["row", "column", "layer"]
ScaleAxis = Literal["rows", "layers", "layer_rows"]
Basis = Literal["legendre", "cosine"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A node of an expression: whole numbers, names and other expressions."""

    # Fields that say how large a node is, in the order of its text; a search may change them.
    knob_names: ClassVar[tuple[str, ...]] = ()
    child_names: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for size in self.arguments:
            if not self._least <= size <= MAX_KNOB:
                raise UsageError(f"expression: {self.text}: {size} is not {self._least} to {MAX_KNOB}")
        if self.child_names and sum(1 for _ in self.walk()) > MAX_NODES:
            raise UsageError(f"expression: more than {MAX_NODES} parts; write a shorter one")

    @property
    def _least(self) -> int:
        return 1

    @property
    def head(self) -> str:
        """Name of the node in texts."""
        return self.name

    @property
    def children(self) -> tuple[Expression, ...]:
        """Expressions that this one is made of, in the order of its text."""
        return tuple([getattr(self, name) for name in self.child_names])

    @property
    def varies(self) -> bool:
        """Whether it is a stack: another (O, I) at each layer."""
        return any(child.varies for child in self.children)

    @property
    def knobs(self) -> Mapping[str, int]:
        """The node's own sizes by name."""
        return {name: getattr(self, name) for name in self.knob_names}

    @property
    def text(self) -> str:
        """The form that `parse` reads."""
        inside = [str(value) for value in self.arguments] + [child.text for child in self.children]
        return f"{self.head}({', '.join(inside)})" if inside else self.head

    @property
    def arguments(self) -> tuple[int, ...]:
        """Whole numbers of the node, in the order of its text."""
        return tuple(self.knobs.values())

    def walk(self) -> Iterator[Expression]:
        """Yield the node and all below it, the node first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def with_children(self, children: tuple[Expression, ...]) -> Self:
        """Return the node with other children.

        Raises:
            UsageError: their sort does not fit.
        """
        return replace(self, **dict(zip(self.child_names, children, strict=True)))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Free(Expression):
    """A free matrix (O, I)."""

    name: ClassVar[str] = "free"


@dataclass(frozen=True, slots=True)
class Vector(Expression):
    """A free vector over rows (O, 1), columns (1, I) or layers (1, 1 a layer), repeated over the other axes."""

    axis: VectorAxis

    @property
    def head(self) -> str:
        """Name of the node in texts."""
        return self.axis

    @property
    def varies(self) -> bool:
        """The vector over layers is a stack."""
        return self.axis == "layer"


@dataclass(frozen=True, slots=True)
class LowRank(Expression):
    """U V^T with U (O, r) and V (I, r)."""

    rank: int
    knob_names: ClassVar[tuple[str, ...]] = ("rank",)
    name: ClassVar[str] = "low_rank"


@dataclass(frozen=True, slots=True)
class Kronecker(Expression):
    """A (x) B; A has as many rows and columns as divide (O, I) and are at most those given, B the rest."""

    rows: int
    columns: int
    knob_names: ClassVar[tuple[str, ...]] = ("rows", "columns")
    name: ClassVar[str] = "kron"


@dataclass(frozen=True, slots=True)
class Chain(Expression):
    """A chain of cores with bonds of at most chi (matrix product operator, tensor-train matrix)."""

    chi: int
    knob_names: ClassVar[tuple[str, ...]] = ("chi",)
    name: ClassVar[str] = "mpo"


@dataclass(frozen=True, slots=True)
class Random(Expression):
    """A fixed random matrix that is made from its seed, and of which nothing but the seed is stored."""

    seed: int
    name: ClassVar[str] = "random"

    @property
    def _least(self) -> int:
        return 0

    @property
    def arguments(self) -> tuple[int, ...]:
        """The seed; it is no size."""
        return (self.seed,)


@dataclass(frozen=True, slots=True)
class Waves(Expression):
    """Smooth over rows, F C with F (O, k) the first k cosines, or over columns, C F^T."""

    axis: Literal["rows", "columns"]
    terms: int
    knob_names: ClassVar[tuple[str, ...]] = ("terms",)

    @property
    def head(self) -> str:
        """Name of the node in texts."""
        return f"cos_{self.axis}"


@dataclass(frozen=True, slots=True)
class Sum(Expression):
    """X + Y."""

    left: Expression
    right: Expression
    child_names: ClassVar[tuple[str, ...]] = ("left", "right")
    name: ClassVar[str] = "+"

    @property
    def text(self) -> str:
        """The form that `parse` reads; a sum on the right keeps its brackets."""
        right = f"({self.right.text})" if isinstance(self.right, Sum) else self.right.text
        return f"{self.left.text} + {right}"


@dataclass(frozen=True, slots=True)
class Product(Expression):
    """X * Y, element by element."""

    left: Expression
    right: Expression
    child_names: ClassVar[tuple[str, ...]] = ("left", "right")
    name: ClassVar[str] = "*"

    @property
    def text(self) -> str:
        """The form that `parse` reads."""
        left = f"({self.left.text})" if isinstance(self.left, Sum) else self.left.text
        right = f"({self.right.text})" if isinstance(self.right, Sum | Product) else self.right.text
        return f"{left} * {right}"


@dataclass(frozen=True, slots=True)
class MatMul(Expression):
    """X Y with X (O, r) and Y (r, I)."""

    inner: int
    left: Expression
    right: Expression
    child_names: ClassVar[tuple[str, ...]] = ("left", "right")
    knob_names: ClassVar[tuple[str, ...]] = ("inner",)
    name: ClassVar[str] = "matmul"


@dataclass(frozen=True, slots=True)
class Scale(Expression):
    """X times a learned factor for each row, each layer, or each row at each layer; factors start at 1."""

    axis: ScaleAxis
    child: Expression
    child_names: ClassVar[tuple[str, ...]] = ("child",)

    @property
    def head(self) -> str:
        """Name of the node in texts."""
        return f"scale_{self.axis}"

    @property
    def varies(self) -> bool:
        """A factor for each layer makes a stack."""
        return self.axis != "rows" or self.child.varies


@dataclass(frozen=True, slots=True)
class OverDepth(Expression):
    """sum_k b_k(t_l) C_k: copies of a matrix, mixed at each layer by fixed functions of depth."""

    basis: Basis
    terms: int
    child: Expression
    child_names: ClassVar[tuple[str, ...]] = ("child",)
    knob_names: ClassVar[tuple[str, ...]] = ("terms",)

    def __post_init__(self) -> None:
        Expression.__post_init__(self)
        _require_matrix(self)

    @property
    def head(self) -> str:
        """Name of the node in texts."""
        return self.basis

    @property
    def varies(self) -> bool:
        """Always a stack."""
        return True


@dataclass(frozen=True, slots=True)
class Share(Expression):
    """One copy of a matrix for each group of so many successive layers; groups of 1 leave each layer its own."""

    layers: int
    child: Expression
    child_names: ClassVar[tuple[str, ...]] = ("child",)
    knob_names: ClassVar[tuple[str, ...]] = ("layers",)

    def __post_init__(self) -> None:
        Expression.__post_init__(self)
        _require_matrix(self)

    name: ClassVar[str] = "share"

    @property
    def varies(self) -> bool:
        """Always a stack."""
        return True


def _require_matrix(node: OverDepth | Share) -> None:
    if node.child.varies:
        raise UsageError(
            f"expression: {node.head} takes what does not vary with depth, but {node.child.text} does; "
            f"put {node.head} inside, or take the inner one away"
        )
