"""The methods of this repository at their presets."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from harness.method import Method, Task
from harness.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def make_method():
    """Make a method of a class at a preset of its `method.toml`, some settings changed."""

    def make(method_class: type[Method], preset: str, vocab_size: int = 1024, **change: object) -> Method:
        folder = ROOT / method_class.__module__.replace(".", "/")
        toml = tomllib.loads((folder.parent / "method.toml").read_text(encoding="utf-8"))
        values = toml["presets"][preset]
        recipe = Recipe.model_validate(values["train"])
        settings = method_class.settings_class.model_validate(values["model"] | change)
        return method_class(settings, Task(vocab_size=vocab_size, context=recipe.context))

    return make
