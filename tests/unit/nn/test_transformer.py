import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UsageError
from harness.nn.config import BackboneConfig
from harness.nn.inits import normal, normal_fan_in
from harness.nn.layers import dense_factory
from harness.nn.transformer import ScheduledBody, Transformer

SHAPE = {"width": 16, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "mlp_width": 32}
SIZES = {"vocab_size": 11, "context": 9}


def make_network(*, body: nn.Module | None = None, condition: nn.Module | None = None, **change: object) -> Transformer:
    torch.manual_seed(0)
    config = BackboneConfig(**(SHAPE | change))
    linear = dense_factory(config, normal_fan_in, zero_outputs=False)
    return Transformer(config, **SIZES, linear=linear, body=body, condition=condition)


def random_tokens(batch: int = 2, length: int = 9) -> Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(1))


PARTS = [
    {},
    {"skips": True, "num_layers": 5},
    {"norm": "rms_gain", "positions": "learned", "tied": False},
    {"norm": "layer", "positions": "sinusoidal", "biases": ["query", "output", "up", "down", "head"], "tied": False},
    {"embedding_rank": 6, "rope_width": 2, "softcap": 0.0},
    {"activation": "swiglu", "positions": "none", "qk_norm": False, "query_gain": 0.0},
    {"schedule": [0, 1, 0, 1], "sublayer_scales": False, "residual_mix": False, "embedding_norm": False},
]


@pytest.mark.parametrize("change", PARTS)
def test_logits_are_causal_and_of_the_last_positions_when_asked(change: dict[str, object]) -> None:
    network, tokens = make_network(**change), random_tokens()
    logits = network(tokens)
    assert (logits.shape, logits.dtype) == ((2, 9, 11), torch.float32)
    torch.testing.assert_close(network(tokens, last=2), logits[:, -2:])
    tokens[:, 5:] = (tokens[:, 5:] + 1) % 11
    torch.testing.assert_close(network(tokens)[:, :5], logits[:, :5])
    assert not torch.allclose(network(tokens)[:, 5:], logits[:, 5:])


@pytest.mark.parametrize("change", PARTS)
def test_every_parameter_gets_a_gradient(change: dict[str, object]) -> None:
    network = make_network(**change)
    leaves = network.begin_step()
    network.finish_step(torch.autograd.grad(network.loss(random_tokens(), random_tokens()), leaves))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    network, tokens = make_network(), random_tokens()
    targets = tokens.roll(-1, 1)
    log_probs = network(tokens).double().log_softmax(-1)
    expected = -sum(log_probs[b, t, targets[b, t]].item() for b in range(2) for t in range(9)) / 18
    assert network.loss(tokens, targets).item() == pytest.approx(expected, rel=1e-6)


def test_blocks_of_a_fresh_model_add_nothing() -> None:
    config = BackboneConfig(**SHAPE)
    network, tokens = Transformer(config, **SIZES, linear=dense_factory(config, normal_fan_in)), random_tokens()
    torch.testing.assert_close(network(tokens), network.logits(network.embed(tokens)), rtol=0, atol=0)


def test_input_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UsageError, match="input of 10 tokens, but the model was built for 9"):
        make_network()(random_tokens(length=10))


class AddOne(nn.Module):
    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize(("num_layers", "expected"), [(1, 1.0), (4, 54.0), (5, 55.0)])
def test_skips_pop_the_last_pushed_first(num_layers: int, expected: float) -> None:
    # From 0 the first half gives 1, 2. With weights 10, 30 the second half goes on
    # 2 + 10*2 = 22 -> 23, 23 + 30*1 = 53 -> 54; depth 5 has no skip: 55.
    config = BackboneConfig(**(SHAPE | {"num_layers": num_layers}), skips=True)
    body = ScheduledBody(config)
    if body.skip_weights is not None:
        body.skip_weights.data.copy_(torch.tensor([10.0, 30.0])[:, None].expand(2, 16))
    zero = torch.zeros(1, 1, 16)
    result = body(nn.ModuleList(AddOne() for _ in range(num_layers)), zero, zero)
    assert result.unique().tolist() == [expected]


def test_scheduled_blocks_are_shared() -> None:
    shared, unrolled = make_network(schedule=[0, 1, 0, 1]), make_network()
    assert len(shared.blocks) == 2
    for depth, block in enumerate(unrolled.blocks):
        block.load_state_dict(shared.blocks[depth % 2].state_dict())
    unrolled.embedding.load_state_dict(shared.embedding.state_dict())
    torch.testing.assert_close(shared(random_tokens()), unrolled(random_tokens()))


def test_body_and_condition_of_a_plugin() -> None:
    class OnlyTheLastBlock(nn.Module):
        def forward(self, blocks: nn.ModuleList, x: Tensor, x0: Tensor) -> Tensor:
            return blocks[-1](x, x0)

    class Double(nn.Module):
        def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
            return 2 * x

    network = make_network(body=OnlyTheLastBlock(), condition=Double(), embedding_norm=False)
    tokens = random_tokens()
    x = 2 * network.embedding(tokens)
    torch.testing.assert_close(network(tokens), network.logits(network.blocks[-1](x, x)))


def test_bfloat16_autocast_gives_float32_logits_near_the_exact_ones() -> None:
    network, tokens = make_network(skips=True, num_layers=5), random_tokens()
    exact = network(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(tokens)
        loss = network.loss(tokens, tokens)
    assert rough.dtype == loss.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1
    for leaf, gradient in zip(network.begin_step(), torch.autograd.grad(loss, network.begin_step()), strict=True):
        assert gradient.dtype == leaf.dtype == torch.float32


def test_picogpt_against_a_plain_implementation() -> None:
    config = BackboneConfig(
        **(SHAPE | {"num_kv_heads": 4}),
        norm="layer",
        positions="sinusoidal",
        qk_norm=False,
        query_gain=0.0,
        activation="relu",
        embedding_norm=False,
        tied=False,
        softcap=0.0,
        sublayer_scales=False,
        residual_mix=False,
        biases=("output", "up", "down"),
    )
    torch.manual_seed(0)
    network = Transformer(config, **SIZES, linear=dense_factory(config, normal(0.3), zero_outputs=False))
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    p, tokens = dict(network.named_parameters()), random_tokens()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (16,), p[f"{name}.weight"], p[f"{name}.bias"])

    position, pair = torch.arange(9.0)[:, None], torch.arange(8.0)
    angle = position / 10_000 ** (pair / 8)
    table = torch.empty(9, 16)
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    x = p["embedding.table"][tokens] + table
    for block in (f"blocks.{i}" for i in range(4)):
        y, a = norm(x, f"{block}.attention_norm"), f"{block}.attention"
        q, k, v = (
            (y @ p[f"{a}.{role}.weight"].T).view(2, 9, 4, 4).transpose(1, 2) for role in ("query", "key", "value")
        )
        scores = (q @ k.mT / 2).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
        heads = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + heads @ p[f"{a}.output.weight"].T + p[f"{a}.output.bias"]
        y, m = norm(x, f"{block}.mlp_norm"), f"{block}.mlp"
        inner = (y @ p[f"{m}.up.weight"].T + p[f"{m}.up.bias"]).relu()
        x = x + inner @ p[f"{m}.down.weight"].T + p[f"{m}.down.bias"]
    expected = norm(x, "final_norm") @ p["head.weight"].T
    torch.testing.assert_close(network(tokens), expected, rtol=1e-4, atol=1e-5)
