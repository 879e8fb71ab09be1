from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from pydantic import ValidationError

from harness.training.recipe import Recipe


def test_derived_sizes() -> None:
    recipe = Recipe(context=256, micro_batch_tokens=1024, batch_tokens=8192)
    assert (recipe.num_micro_batches, recipe.micro_batch_sequences) == (8, 4)


def test_reads_a_preset_and_survives_the_record() -> None:
    table = tomllib.loads("""
        context = 1024
        batch_tokens = 393216
        micro_batch_tokens = 49152
        order = "stream"
        matrix_lr = 0.025
        lr_curve = [["0", 0.2], ["100%", 0.0]]
        momentum_curve = [["0", 0.85], ["500", 0.95], ["10000", 0.95], ["100%", 0.05]]
    """)
    recipe = Recipe.model_validate(table)
    assert recipe.num_micro_batches == 8
    assert recipe.lr_curve.value(30000, 60000) == pytest.approx(0.1)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_every_field_is_documented_and_has_a_default() -> None:
    for name, field in Recipe.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"batch_tokens": 3000},
            "batch_tokens=3000 is not a multiple of micro_batch_tokens=2048; 2048 or 4096",
        ),
        ({"batch_tokens": 1024}, "not a multiple of micro_batch_tokens=2048; 2048 would be"),
        ({"context": 300}, "micro_batch_tokens=2048 is not a multiple of context=300; 1800 or 2100 would be"),
        ({"ema_decay": 0.99, "swa_start": "80%"}, "ema_decay and swa_start are both set"),
        ({"swa_start": "late"}, "'late' is no position"),
        ({"qat_start": "late"}, "qat_start: 'late' is no position"),
        ({"replay_start": "101%"}, "replay_start: '101%' is no position"),
        ({"replay_batches": 0}, "greater than or equal to 1"),
        ({"replay_lr": -0.1}, "greater than or equal to 0"),
        ({"distill_start": "-50"}, "distill_start=-50 needs a teacher, the exponential average; set ema_decay"),
        ({"distill_weight": 1.5}, "less than or equal to 1"),
        ({"distill_temperature": 0}, "greater than 0"),
        (
            {"ema_decay": 0.9, "replay_start": "-50", "distill_start": "80%"},
            "replay_start=-50 is not before distill_start=80%",
        ),
        ({"lr_curve": [["0", -1.0]]}, "lr_curve has a value below 0"),
        ({"momentum_curve": [["0", 1.0]]}, "momentum_curve has a value outside"),
        ({"lr_curve": []}, "at least one point"),
        ({"learning_rate": 1.0}, "Extra inputs are not permitted"),
        ({"matrix_lr": 0}, "greater than 0"),
        ({"matrix_lr": float("inf")}, "a finite number"),
        ({"matrix_lr": float("nan")}, "a finite number"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"grad_clip": -1.0}, "greater than or equal to 0"),
        ({"order": "sorted"}, "'stream', 'shuffled' or 'random'"),
        ({"context": 0}, "greater than or equal to 1"),
    ],
)
def test_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(values)


def test_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().context = 3  # type: ignore[misc]


def test_planning_a_run_imports_no_torch() -> None:
    modules = "harness.training.recipe, harness.training.clock, harness.training.budget"
    code = f"import sys, {modules}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


def test_a_position_may_be_written_as_a_number() -> None:
    recipe = Recipe.model_validate({"ema_decay": 0.9, "replay_start": -50, "distill_start": -10, "qat_start": 300})
    assert (recipe.replay_start, recipe.distill_start, recipe.qat_start) == ("-50", "-10", "300")
