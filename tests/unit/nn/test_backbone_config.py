import pytest
from pydantic import ValidationError

from harness.errors import UsageError
from harness.nn.config import BackboneConfig

SHAPE = {"width": 24, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "mlp_width": 48}


def test_shapes_of_grouped_heads() -> None:
    config = BackboneConfig(**SHAPE)
    assert config.head_width == 6
    assert config.linear_shapes == {
        "query": (24, 24),
        "key": (24, 12),
        "value": (24, 12),
        "output": (24, 24),
        "up": (24, 48),
        "down": (48, 24),
    }
    assert BackboneConfig(**SHAPE, activation="swiglu").linear_shapes["gate"] == (24, 48)


def test_schedule_defaults_to_a_block_for_each_depth() -> None:
    assert BackboneConfig(**SHAPE).block_schedule == (0, 1, 2, 3)
    shared = BackboneConfig(**SHAPE, schedule=[0, 1, 0, 1])
    assert (shared.block_schedule, shared.num_blocks) == ((0, 1, 0, 1), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "num_heads: width 24 is not a multiple of 5. Set num_heads to one of 1, 2, 3, 4, 6"),
        ({"num_kv_heads": 3}, "num_kv_heads: num_heads 4 is not a multiple of 3"),
        ({"rope_width": 3}, "rope_width: 3 of 6 head features"),
        ({"rope_width": 8}, "rope_width: 8 of 6 head features"),
        ({"width": 12}, "rope_width: 3 of 3 head features"),
        ({"schedule": [0, 1, 2]}, "schedule: [0, 1, 2] must name a block for each of 4 layers"),
        ({"schedule": [0, 2, 0, 2]}, "each block from 0 to its largest"),
    ],
)
def test_bad_shapes_name_their_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        BackboneConfig(**(SHAPE | change))
    assert message in str(error.value)


def test_odd_heads_are_fine_without_rotation() -> None:
    assert BackboneConfig(**(SHAPE | {"width": 12}), positions="learned").head_width == 3


@pytest.mark.parametrize("change", [{"width": 0}, {"activation": "gelu"}, {"unknown": 1}, {"biases": ["q"]}])
def test_values_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BackboneConfig(**(SHAPE | change))
