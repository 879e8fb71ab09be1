"""Networks of a given number of stored parameters, whatever the method."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.method import Method, Settings, Task
from harness.plan import build_on_meta
from harness.preparation import settle_model
from harness.registry import find_method
from harness.settings import resolve_settings
from harness.sizing import Shape, find_shape, settle_params

TASK = Task(vocab_size=257, context=64)


def settle(name: str, target: int, *overrides: str, preset: str = "small") -> tuple[Settings, int, list[str]]:
    """Return the settled settings, what the file would hold, and what was said."""
    info, said = find_method(name), list[str]()
    settings = resolve_settings(info, preset, overrides)
    method_class = info.load()
    model = settle_model(method_class, settings, TASK, target, said.append)
    method: Method = method_class(model, TASK)
    return model, method.count_stored(build_on_meta(method), settings.export), said


@pytest.mark.parametrize(
    "name", ["dense", "legendre", "low_rank", "mpo", "procrustes", "pruning", "quantised", "recursive", "slicing"]
)
@pytest.mark.parametrize("target", [150_000, 500_000])
def test_every_method_comes_near_a_number_of_parameters(name: str, target: int) -> None:
    chains = ("chi=48",) if name == "mpo" else ()
    model, stored, said = settle(name, target, *chains)
    assert stored == pytest.approx(target, rel=0.02)
    width, inner = (model.model_dump()[key] for key in ("width", "mlp_width"))
    promise = f"width {width}, inner width {inner}: {stored:,} stored parameters, {stored / target - 1:+.2%} of"
    assert said == [f"{promise} {target:,}"]


def test_all_but_the_widths_stays() -> None:
    before = resolve_settings(find_method("recursive"), "small", ()).model.model_dump()
    after = settle("recursive", 400_000)[0].model_dump()
    assert {key for key in before if before[key] != after[key]} == {"width", "mlp_width"}


def test_its_own_size_gives_the_preset_back() -> None:
    own = resolve_settings(find_method("legendre"), "small", ())
    method = find_method("legendre").load()(own.model, TASK)
    model, _, _ = settle("legendre", method.count_stored(build_on_meta(method), own.export))
    assert model == own.model


def test_widths_that_a_method_cannot_have_are_passed_over() -> None:
    # 16 rotated features of a head need heads of 16: no width below 64 with four heads
    model, _, _ = settle("recursive", 60_000, "hash_buckets=64", "hash_width=8", "value_width=8")
    assert model.model_dump()["width"] >= 64
    with pytest.raises(UsageError, match="no network of 4 layers and 4 heads is that small"):
        settle("recursive", 3_000)
    # nor can chains of cores have a prime number of features: 35 is met by one of its neighbours
    start = Shape(width=16, num_layers=2, mlp_width=32)

    def size_of(shape: Shape) -> float | None:
        return None if shape.mlp_width % 2 else float(shape.width * shape.mlp_width)

    found = find_shape(start, 16 * 35, size_of, width_step=16, can_vary_depth=False)
    assert found is not None
    assert (found.shape.width, found.shape.mlp_width) == (16, 32)


def test_a_method_without_widths_is_refused() -> None:
    with pytest.raises(UsageError, match="this method has no width to choose"):
        settle_params(Settings(), 1000, lambda settings: 0)
