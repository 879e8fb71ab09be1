"""Tensors of a PyTorch file from its pickle, without unpickling: the opcodes are read, nothing is imported or called.

A small stack machine keeps containers, names of functions and their arguments as inert data. A call of
`torch._utils._rebuild_*` on a storage is thereby recognisable as a tensor; every other call stays a note of its
name. Loading the file with a real unpickler could run any code; this cannot.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from harness.artifact.inspection import MAX_TENSORS, TensorRow, escape, numel
from harness.errors import ArtifactError

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 1_000_000
MAX_DEPTH = 60

STORAGE_TYPES = {"Double": ("float64", 8), "Float": ("float32", 4), "Half": ("float16", 2), "BFloat16": ("bfloat16", 2)}
STORAGE_TYPES |= {"Long": ("int64", 8), "Int": ("int32", 4), "Short": ("int16", 2), "Char": ("int8", 1)}
STORAGE_TYPES |= {"Byte": ("uint8", 1), "Bool": ("bool", 1), "QInt8": ("qint8", 1), "QUInt8": ("quint8", 1)}
STORAGE_TYPES |= {"ComplexFloat": ("complex64", 8), "ComplexDouble": ("complex128", 16), "Untyped": ("bytes", 1)}


@dataclass(slots=True)
class PickledObject:
    """What a pickle would build by a call: the function's name, its arguments, items set afterwards."""

    function: str
    args: tuple[Any, ...] = ()
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of numbers that tensors share: its key in the file, number type and length."""

    key: str
    dtype: str
    item_bytes: int
    num_items: int


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


class _Mark:
    """Marks the start of items on the stack."""


_MARK = _Mark()


def _as_storage(value: Any) -> Any:
    """A persistent id of the form ('storage', type, key, place, number of items, ...), else the value."""
    if not (isinstance(value, tuple) and len(value) >= 5 and value[0] == "storage" and isinstance(value[1], _Global)):
        return value
    kind = value[1].name.rpartition(".")[2].removesuffix("Storage")
    dtype, item_bytes = STORAGE_TYPES.get(kind, (kind.lower(), 0))
    num_items = value[4] if isinstance(value[4], int) and value[4] >= 0 else 0
    return Storage(str(value[2]), dtype, item_bytes, num_items)


class _Machine:
    """The stack, the memo, and one method for each opcode that builds data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack:
            raise ArtifactError("pickle takes from an empty stack")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise ArtifactError("pickle has no mark for its items")

    def top(self) -> Any:
        if not self.stack:
            raise ArtifactError("pickle changes an object on an empty stack")
        return self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, PickledObject):
            target.pairs.extend(zip(items[::2], items[1::2], strict=False))

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        name = function.name if isinstance(function, _Global) else "a value"
        self.stack.append(PickledObject(name, args if isinstance(args, tuple) else ()))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, PickledObject):
            target.pairs.append(("state", state))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(_Global(f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"))


def _put(machine: _Machine, index: Any) -> None:
    machine.memo[index] = machine.top()


def _get(machine: _Machine, index: Any) -> None:
    if index not in machine.memo:
        raise ArtifactError("pickle refers to an object that it did not keep")
    machine.stack.append(machine.memo[index])


def _push(make: Callable[[_Machine, Any], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, arg: machine.stack.append(make(machine, arg))


def _tuple_of(count: int) -> Callable[[_Machine, Any], Any]:
    return lambda machine, _: tuple(reversed([machine.pop() for _ in range(count)]))


def _dict_of(items: list[Any]) -> PickledObject:
    made = PickledObject("dict")
    made.pairs.extend(zip(items[::2], items[1::2], strict=False))
    return made


_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "STOP": lambda m, a: None,
    "MARK": _push(lambda m, a: _MARK),
    "NONE": _push(lambda m, a: None),
    "NEWTRUE": _push(lambda m, a: True),
    "NEWFALSE": _push(lambda m, a: False),
    "EMPTY_DICT": _push(lambda m, a: PickledObject("dict")),
    "DICT": _push(lambda m, a: _dict_of(m.pop_mark())),
    "EMPTY_LIST": _push(lambda m, a: []),
    "LIST": _push(lambda m, a: m.pop_mark()),
    "EMPTY_SET": _push(lambda m, a: []),
    "FROZENSET": _push(lambda m, a: m.pop_mark()),
    "EMPTY_TUPLE": _push(lambda m, a: ()),
    "TUPLE": _push(lambda m, a: tuple(m.pop_mark())),
    "TUPLE1": _push(_tuple_of(1)),
    "TUPLE2": _push(_tuple_of(2)),
    "TUPLE3": _push(_tuple_of(3)),
    "APPEND": lambda m, a: m.extend([m.pop()]),
    "APPENDS": lambda m, a: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, a: m.extend(m.pop_mark()),
    "SETITEM": lambda m, a: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, a: m.set_items(m.pop_mark()),
    "GLOBAL": _push(lambda m, a: _Global(str(a).replace(" ", "."))),
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": _push(lambda m, a: _as_storage(m.pop())),
    "REDUCE": lambda m, a: m.call(),
    "NEWOBJ": lambda m, a: m.call(),
    "BUILD": lambda m, a: m.build(),
    "POP": lambda m, a: m.pop(),
    "DUP": _push(lambda m, a: m.top()),
    "MEMOIZE": lambda m, a: _put(m, len(m.memo)),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "BINGET": _get,
    "LONG_BINGET": _get,
}
_VALUES = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "INT", "LONG1"}
_VALUES |= {"LONG4", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING", "STRING"}


def read_pickle(stream: BinaryIO) -> Any:
    """Read one pickle as inert data.

    Args:
        stream: positioned at the pickle; the caller bounds its length.

    Raises:
        ArtifactError: too long, or with opcodes that data does not need.
    """
    machine = _Machine()
    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_OPCODES:
            raise ArtifactError(f"pickle of more than {MAX_OPCODES} opcodes")
        if opcode.name in _VALUES:
            machine.stack.append(arg)
        elif (action := _ACTIONS.get(opcode.name)) is not None:
            action(machine, arg)
        else:
            raise ArtifactError(f"pickle uses the opcode {opcode.name}, which tensors do not need")
    return machine.pop()


def find_tensors(root: Any, stored_bytes: Callable[[Storage], int]) -> Iterator[TensorRow]:
    """Walk inert data and yield its tensors, named by their path.

    Args:
        root: what `read_pickle` returned.
        stored_bytes: bytes that a storage takes in the file.
    """
    first: dict[str, str] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, int, Any]] = [("", 0, root)]
    while waiting:
        path, depth, value = waiting.pop()
        if (found := _tensor_of(value)) is not None:
            storage, shape = found
            name = escape(path or "tensor")
            owner = first.setdefault(storage.key, name)
            if len(first) > MAX_TENSORS:
                raise ArtifactError(f"more than {MAX_TENSORS} tensors")
            yield _row(name, storage, shape, "" if owner == name else owner, stored_bytes)
        elif depth < MAX_DEPTH and id(value) not in seen:
            seen.add(id(value))
            children = [(f"{path}.{key}" if path else str(key), depth + 1, child) for key, child in _children(value)]
            waiting.extend(reversed(children))


def _row(
    name: str, storage: Storage, shape: tuple[int, ...], tied_to: str, stored_bytes: Callable[[Storage], int]
) -> TensorRow:
    return TensorRow(
        name=name,
        shape=shape,
        dtype=storage.dtype,
        stored_bytes=0 if tied_to else stored_bytes(storage),
        num_numbers=numel(shape),
        num_stored=0 if tied_to else storage.num_items,
        tied_to=tied_to,
    )


def _tensor_of(value: Any) -> tuple[Storage, tuple[int, ...]] | None:
    """Storage and shape of a rebuilt tensor or parameter, else None."""
    if not isinstance(value, PickledObject) or not value.function.startswith("torch._utils._rebuild"):
        return None
    if value.args and isinstance(value.args[0], PickledObject) and value.args[0] is not value:
        inner = value.args[0]
        return _tensor_of(inner) if inner.function.startswith("torch._utils._rebuild_tensor") else None
    if len(value.args) < 3 or not isinstance(value.args[0], Storage) or not isinstance(value.args[2], tuple):
        return None
    shape = value.args[2]
    if not all(isinstance(size, int) and 0 <= size < 1 << 63 for size in shape):
        raise ArtifactError("a tensor has an impossible shape")
    return value.args[0], shape


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, PickledObject):
        pairs = [(_key(key), child) for key, child in value.pairs]
        args = [(str(at), arg) for at, arg in enumerate(value.args)]
        return pairs + [(at, arg) for at, arg in args if isinstance(arg, list | tuple | PickledObject)]
    if isinstance(value, list | tuple):
        return [(str(at), child) for at, child in enumerate(value)]
    return []


def _key(key: Any) -> str:
    """A key as part of a path; kept short, since every child repeats it."""
    shown = key if isinstance(key, str) else str(key) if isinstance(key, int | float) else "?"
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
