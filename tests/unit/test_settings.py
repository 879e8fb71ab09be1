"""`--set key=value`: where a key belongs, what a value means, what is refused."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.registry import find_method
from harness.settings import parse_value, resolve_settings

DENSE = find_method("dense")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.1", 0.1), ("true", True), ("[1, 2]", [1, 2]), ("muon", "muon"), ('"8"', "8"), ("", "")],
)
def test_values_are_toml_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize("key", ["matrix_lr", "train.matrix_lr"])
def test_a_key_finds_its_section(key: str) -> None:
    assert resolve_settings(DENSE, "tiny", [f"{key}=0.123"]).train.matrix_lr == 0.123


def test_the_method_name_means_the_model() -> None:
    assert resolve_settings(find_method("legendre"), "tiny", ["legendre.groups=1"]).model.groups == 1


def test_the_last_override_wins() -> None:
    assert resolve_settings(DENSE, "tiny", ["matrix_lr=0.1", "matrix_lr=0.2"]).train.matrix_lr == 0.2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("matrix_lr", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("matrix_lrr=3", "Did you mean 'matrix_lr'"),
        ("model.widht=3", "model.widht: no such setting"),
        ("train.matrix_lr=fast", "train.matrix_lr"),
        ("train.context=-1", "train.context"),
        ("export.matrices=int99", "int99"),
        ("replay_batches=99999999999999999999", "train.replay_batches: 99999999999999999999 is beyond the"),
        ("swa_start=soon", "train: swa_start: 'soon' is no position"),
    ],
)
def test_wrong_overrides_get_one_line(override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_settings(DENSE, "tiny", [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
