import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.nn import counting
from harness.nn.config import BackboneConfig
from harness.nn.inits import normal_fan_in
from harness.nn.layers import dense_factory
from harness.nn.transformer import Transformer

SHAPE = {"width": 16, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "mlp_width": 40}
SIZES = {"vocab_size": 11, "context": 9}
PARTS = [
    {},
    {"skips": True, "num_layers": 5},
    {"embedding_rank": 6, "tied": True},
    {"embedding_rank": 6, "tied": False, "norm": "rms_gain"},
    {"norm": "layer", "positions": "learned", "tied": False, "biases": ["key", "down", "head"]},
    {"activation": "swiglu", "biases": ["gate"], "query_gain": 0.0, "residual_mix": False},
    {"sublayer_scales": False, "embedding_norm": False, "norm": "rms_gain"},
]


def make_network(config: BackboneConfig) -> Transformer:
    return Transformer(config, **SIZES, linear=dense_factory(config, normal_fan_in))


@pytest.mark.parametrize("change", PARTS)
def test_effective_parameters_of_a_dense_network_are_all_it_has(change: dict[str, object]) -> None:
    config = BackboneConfig(**(SHAPE | change))
    with torch.device("meta"):
        network = make_network(config)
    assert counting.effective_params(config, **SIZES) == sum(p.numel() for p in network.parameters())


def test_shared_blocks_count_at_every_depth() -> None:
    own, shared = BackboneConfig(**SHAPE), BackboneConfig(**SHAPE, schedule=[0, 1, 0, 1])
    assert counting.effective_params(shared, **SIZES) == counting.effective_params(own, **SIZES)


def test_active_parameters_leave_out_the_rows_of_a_table_that_are_not_looked_up() -> None:
    tied = BackboneConfig(**SHAPE)
    assert counting.active_params(tied, **SIZES) == counting.effective_params(tied, **SIZES)
    untied = BackboneConfig(**SHAPE, tied=False, positions="learned")
    unread = (11 - 1) * 16 + (9 - 1) * 16
    assert counting.active_params(untied, **SIZES) == counting.effective_params(untied, **SIZES) - unread


@pytest.mark.parametrize("change", PARTS)
def test_operations_are_those_that_torch_counts(change: dict[str, object]) -> None:
    config = BackboneConfig(**(SHAPE | change))
    network, tokens = make_network(config), torch.randint(11, (3, 9))
    with FlopCounterMode(display=False) as forward:
        loss = network.loss(tokens, tokens)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(loss, network.begin_step())
    by_formula = counting.forward_flops(config, **SIZES, num_tokens=27)
    assert by_formula == forward.get_total_flops()
    assert counting.training_flops(config, **SIZES, num_tokens=27) == (
        forward.get_total_flops() + backward.get_total_flops()
    )
