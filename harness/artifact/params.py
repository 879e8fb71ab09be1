"""Counting code: the files of a plugin, and every file of ours that decoding and scoring needs.

The closure is found by reading, not by running: starting from the modules that decode and score, every `import`
statement is followed, also those inside functions, as far as it names our own packages. What only a type checker
reads (`if TYPE_CHECKING:`) is left out. A package on the way counts with its `__init__.py`. Modules that nothing
on the path imports (commands, verification, records) are thereby not counted, and the standard library and
installed packages never are. Bytes are those of the files as they are, comments included.

A module can read what lies beside it, so files of other kinds count with every module of their folder, and the
plugin's own folder counts whole.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.provenance import files_below

OWN_PACKAGES = ("harness", "methods", "baselines")
# What turns an artifact into a score, apart from the method itself.
SCORING_MODULES = ("harness.evaluate",)


def plugin_bytes(folder: Path) -> int:
    """Count the bytes of all files of a plugin, whatever their kind.

    Args:
        folder: the plugin's package folder.
    """
    return sum(path.stat().st_size for path in files_below(folder))


def decoder_closure_bytes(package: str, module: str = "method") -> int:
    """Count the bytes of every file needed to decode and score a plugin's artifact.

    Args:
        package: import name of the plugin package; a module of it and the scorer are the starting points.
        module: that module, see `harness.registry.module_of`.

    Raises:
        UsageError: the package is not importable, or a source is not Python.
    """
    return sum(path.stat().st_size for path in decoder_closure(package, module).values())


def decoder_closure(package: str, module: str = "method") -> dict[str, Path]:
    """List the files that `decoder_closure_bytes` counts: sources by module name, the rest as package/file."""
    modules = import_closure([*SCORING_MODULES, f"{package}.{module}"], (*OWN_PACKAGES, package.split(".")[0]))
    plugin = modules[package].parent
    others = {f"{package}/{path.relative_to(plugin).as_posix()}": path for path in files_below(plugin)}
    for name, source in modules.items():
        home = name if source.name == "__init__.py" else name.rpartition(".")[0]
        beside = (path for path in source.parent.iterdir() if path.is_file() and path.suffix != ".py")
        others |= {f"{home}/{path.name}": path for path in beside}
    counted = set(modules.values())
    return modules | {name: path for name, path in sorted(others.items()) if path not in counted}


def import_closure(modules: Sequence[str], packages: Sequence[str]) -> dict[str, Path]:
    """Follow the import statements of modules through packages.

    Args:
        modules: names of the modules to start from.
        packages: top-level packages whose modules count.

    Returns:
        Source files by module name, sorted.

    Raises:
        UsageError: a starting module does not exist, or a source is not Python.
    """
    found: dict[str, Path] = {}
    for module in modules:
        if _source_of(module) is None:
            raise UsageError(f"no module {module}; its sources cannot be counted")
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or module.split(".")[0] not in packages or (path := _source_of(module)) is None:
            continue
        found[module] = path
        waiting += _parents(module)
        waiting += _imports_of(module, path)
    return dict(sorted(found.items()))


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _root_of(package: str) -> tuple[Path, ...]:
    spec = importlib.util.find_spec(package)
    return tuple(Path(place) for place in (spec.submodule_search_locations or ())) if spec else ()


def _source_of(module: str) -> Path | None:
    """Source file of a module, found without importing it."""
    package, *rest = module.split(".")
    for root in _root_of(package):
        place = root.joinpath(*rest)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def _imports_of(module: str, path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is not Python: {error}") from error
    base = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _running_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names for name in (alias.name, *_parents(alias.name)))
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(base, node)
            # `from package import name`: the name may be a module of its own.
            yield from (origin, *(f"{origin}.{alias.name}" for alias in node.names))


def _absolute(base: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = base.split(".")
    stem = ".".join(parts[: len(parts) - node.level + 1])
    return f"{stem}.{node.module}" if node.module else stem


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node except those under `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"
