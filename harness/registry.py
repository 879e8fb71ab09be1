"""Find methods by name: `method.toml` in a plugin package, listed without importing torch.

Built-in plugins are the packages under `methods/` and `baselines/` that hold a `method.toml`; others come from the
entry-point group `harness.methods`, whose value is the name of a package with the same two files.
"""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UsageError, missing_extra, suggest
from harness.method import Method

BUILT_IN_PARENTS = ("methods", "baselines")
METHOD_FILE, CLAIMS_FILE = "method.toml", "claims.toml"
ENTRY_POINT_GROUP = "harness.methods"


class Source(BaseModel):
    """Where a method was published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    author: str = ""
    url: str = ""
    date: str = ""


class Preset(BaseModel):
    """One named setting of a method: its model, its training recipe, how it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str
    model: dict[str, Any] = {}
    train: dict[str, Any] = {}
    export: dict[str, Any] = {}


class MethodToml(BaseModel):
    """The content of a `method.toml`.

    A method that compresses pretrained models, too, has presets of that kind in `pretrained` and a `pretrained.py`
    beside its `method.py`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    kind: Literal["method", "baseline"]
    version: str
    summary: str
    source: Source
    presets: dict[str, Preset]
    pretrained: dict[str, Preset] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodInfo:
    """What is known of a method without running its code.

    Attributes:
        package: import name of the plugin package.
        folder: where the package's files lie.
        toml: the content of its `method.toml`.
    """

    package: str
    folder: Path
    toml: MethodToml

    @property
    def name(self) -> str:
        """Name on the command line."""
        return self.toml.name

    def preset(self, name: str, *, pretrained: bool = False) -> Preset:
        """Return the preset called `name`, of pretrained models or not; raise UsageError with the known ones."""
        presets = self.toml.pretrained if pretrained else self.toml.presets
        if name not in presets:
            kind = "preset for pretrained models" if pretrained else "preset"
            raise UsageError(f"{self.name} has no {kind} '{name}'. {suggest(name, presets)}")
        return presets[name]

    def load(self, *, pretrained: bool = False) -> type[Method]:
        """Import the plugin's `method.py`, or its `pretrained.py`, and return the `METHOD` there.

        Raises:
            MissingExtraError: torch or transformers is not installed.
            UsageError: the plugin has no class `METHOD`, or takes no pretrained model.
        """
        if importlib.util.find_spec("torch") is None:
            raise missing_extra(f"method '{self.name}'", "train")
        if pretrained and not self.toml.pretrained:
            takers = [info.name for info in list_methods().values() if info.toml.pretrained]
            raise UsageError(
                f"--model: '{self.name}' takes no pretrained model; these do: {', '.join(takers) or 'none'}"
            )
        if pretrained and importlib.util.find_spec("transformers") is None:
            raise missing_extra("a pretrained model", "hf")
        module = module_of(pretrained=pretrained)
        method = getattr(importlib.import_module(f"{self.package}.{module}"), "METHOD", None)
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise UsageError(f"plugin {self.package}: {module}.py defines no class METHOD that extends Method")
        return method


def module_of(*, pretrained: bool) -> str:
    """Return the module of a plugin that holds its `METHOD`."""
    return "pretrained" if pretrained else "method"


def _built_in_packages(file_name: str = METHOD_FILE) -> Iterator[str]:
    for parent in BUILT_IN_PARENTS:
        spec = importlib.util.find_spec(parent)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for toml in sorted(Path(root).glob(f"*/{file_name}")):
                if not toml.parent.name.startswith("_"):
                    yield f"{parent}.{toml.parent.name}"


def _read_info(package: str) -> MethodInfo:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise UsageError(f"plugin {package}: not an importable package; is its distribution installed?")
    path = Path(locations[0]) / METHOD_FILE
    try:
        toml = MethodToml.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"plugin {package}: cannot read {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"plugin {package}: {path}: {where}: {first['msg']}") from error
    return MethodInfo(package=package, folder=path.parent, toml=toml)


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry:
    """What was found: methods by name, built-ins first, and what is wrong with the plugins that were left out."""

    methods: Mapping[str, MethodInfo]
    problems: tuple[str, ...]


@cache
def scan_plugins() -> Registry:
    """Find every plugin; one that cannot be read, or takes a name in use, is a problem and does not hide the others."""
    packages = [
        *_built_in_packages(),
        *(point.value for point in metadata.entry_points(group=ENTRY_POINT_GROUP)),
    ]
    methods: dict[str, MethodInfo] = {}
    problems: list[str] = []
    for package in packages:
        try:
            info = _read_info(package)
        except UsageError as error:
            problems.append(str(error))
            continue
        if info.name in methods:
            problems.append(f"plugin {package}: the name '{info.name}' is taken by {methods[info.name].package}")
        else:
            methods[info.name] = info
    return Registry(methods=methods, problems=tuple(problems))


def list_methods() -> Mapping[str, MethodInfo]:
    """Return every usable method by name, built-ins first."""
    return scan_plugins().methods


def claim_packages() -> dict[str, str]:
    """Return the packages that may hold claims, by the name of their source.

    Every method is one; a source that published no method has a package with a `claims.toml` and no `method.toml`.
    """
    alone = {package.rpartition(".")[2]: package for package in _built_in_packages(CLAIMS_FILE)}
    return {**alone, **{name: info.package for name, info in list_methods().items()}}


def find_method(name: str) -> MethodInfo:
    """Return the method called `name`, or raise UsageError with a close match, the known names, what is broken."""
    registry = scan_plugins()
    if name not in registry.methods:
        problems = "".join(f" Left out: {problem}." for problem in registry.problems)
        raise UsageError(f"unknown method '{name}'. {suggest(name, registry.methods)}{problems}")
    return registry.methods[name]
