"""The parts of recursive sharing, each against numbers by hand or by another route."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from harness.method import Method
from harness.nn.layers import Rotary
from methods.recursive.blocks import LengthRotary, exclude_own_value, length_base
from methods.recursive.body import DeliberationGate, RecursiveBody, run_u_net
from methods.recursive.embeddings import HashEmbedding, SmearGate, ValueEmbedding, hash_ngrams
from methods.recursive.inits import make_loop_vectors, orthogonal_if_large, orthogonal_projection
from methods.recursive.method import Recursive
from methods.recursive.settings import RecursiveSettings

MakeMethod = Callable[..., Method]
SHAPE = {"width": 8, "num_heads": 2, "num_kv_heads": 1, "mlp_width": 16, "value_blocks": [], "rope_trained_length": 0}


def hash_by_numpy(ids: list[int], grams: int, num_buckets: int) -> list[int]:
    buckets = [num_buckets - 1]
    with np.errstate(over="ignore"):
        for i in range(1, len(ids)):
            a, b, c = (np.int32(ids[i - k]) if i >= k else np.int32(0) for k in range(3))
            value = np.int32(36313) * a ^ np.int32(27191) * b
            if grams == 3 and i > 1:
                value ^= np.int32(51647) * c
            buckets.append(int(value) % (num_buckets - 1))
    return buckets


def test_published_hashes() -> None:
    tokens = torch.tensor([[1, 5, 700, 1023, 3, 0, 42, 42]])
    assert hash_ngrams(tokens, 2, 2048).tolist() == [[2047, 1887, 1678, 742, 1411, 1740, 131, 353]]
    assert hash_ngrams(tokens, 3, 8192).tolist() == [[8191, 3871, 5112, 435, 6778, 1565, 6479, 2253]]


@pytest.mark.parametrize("grams", [2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_hashes_wrap_as_int32_does(grams: int, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, 2_000_000, (length,), generator=generator).tolist()
    assert hash_ngrams(torch.tensor([ids]), grams, 64).tolist() == [hash_by_numpy(ids, grams, 64)]


def test_an_ngram_embedding_is_scaled_and_starts_at_nothing() -> None:
    module = HashEmbedding(2, 16, 3, 8, nn.init.normal_)
    tokens, x = torch.tensor([[4, 7]]), torch.randn(1, 2, 8)
    assert torch.equal(module(tokens, x), x)
    module.table.data.normal_()
    buckets = hash_by_numpy([4, 7], 2, 16)
    expected = x[0] + 0.05 * module.table[buckets] @ module.projection.weight.T
    torch.testing.assert_close(module(tokens, x)[0], expected)


def test_smear_by_hand() -> None:
    gate = SmearGate(2)
    gate.gate.data = torch.tensor([0.0, math.log(3)])  # shares 1/2 and 3/4 of the token before
    smeared = gate(torch.tensor([[[2.0, 4.0], [6.0, 8.0]]]))
    torch.testing.assert_close(smeared, torch.tensor([[[1.0, 1.0], [4.0, 5.0]]]))


def test_values_of_tokens_start_at_a_tenth_of_a_small_projection() -> None:
    torch.manual_seed(0)
    module = ValueEmbedding(1024, 128, 320, orthogonal_projection(6))
    assert module.table.std().item() == pytest.approx(0.01, rel=0.02)
    expected = 0.1 * module.table[7] @ module.projection.weight.T
    torch.testing.assert_close(module(torch.tensor([[7]]))[0, 0], expected)


def test_own_value_is_taken_out_of_each_head() -> None:
    torch.manual_seed(0)
    y, v = torch.randn(2, 5, 6, 4), torch.randn(2, 5, 3, 4)
    out = exclude_own_value(y, v)
    for head in range(6):
        own = v[:, :, head // 2]
        assert (out[:, :, head] * own).sum(-1).abs().max() < 1e-5
        coefficient = (y[:, :, head] * own).sum(-1) / (own * own).sum(-1)
        torch.testing.assert_close(out[:, :, head], y[:, :, head] - coefficient[..., None] * own)


def test_base_by_the_length_rule() -> None:
    assert length_base(1e4, 16, 1024, 2048) == pytest.approx(22_082, abs=1)  # 1e4 * 2^(16/14)
    assert length_base(1e4, 16, 1024, 1024) == length_base(1e4, 16, 0, 2048) == 1e4


def test_rotation_follows_the_length_of_the_input() -> None:
    rotary = LengthRotary(64, 8, 1e4, 16)
    x = torch.randn(1, 64, 2, 12)
    for length in (1, 16, 17, 40, 64):
        plain = Rotary(length, 8, length_base(1e4, 8, 16, length))
        torch.testing.assert_close(rotary(x[:, :length]), plain(x[:, :length]), rtol=0, atol=1e-6)
    assert not torch.allclose(rotary(x[:, :40])[:, 20], rotary(x)[:, 20])


@pytest.mark.parametrize(("shape", "side"), [((96, 200), 96), ((200, 96), 96), ((64, 64), 64)])
def test_large_maps_start_orthogonal(shape: tuple[int, int], side: int) -> None:
    weight = torch.empty(shape)
    orthogonal_if_large(weight)
    gram = weight @ weight.T if shape[0] <= shape[1] else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(side), rtol=0, atol=1e-5)


def test_a_map_with_a_side_below_64_starts_uniform() -> None:
    weight = torch.empty(63, 400)
    orthogonal_if_large(weight)
    assert weight.abs().max() <= 0.05
    assert weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.02)


def test_largest_initial_weights_are_those_found_in_the_published_code() -> None:
    torch.manual_seed(0)
    for shape, largest in (((640, 128), 0.047), ((320, 128), 0.069)):
        weight = torch.empty(shape)
        orthogonal_projection(6)(weight)
        assert weight.abs().max().item() == pytest.approx(largest, rel=0.15)
        torch.testing.assert_close(weight.T @ weight, torch.eye(128) / 12, rtol=0, atol=1e-5)
    assert DeliberationGate(640).mix.weight.abs().max().item() == pytest.approx(0.13, rel=0.1)


def test_loop_vectors_in_both_variants() -> None:
    torch.manual_seed(0)
    orthogonal = make_loop_vectors("qr", 3, 640, 0.01)
    torch.testing.assert_close(orthogonal @ orthogonal.T, 1e-4 * torch.eye(3), rtol=0, atol=1e-9)
    gaussian = make_loop_vectors("gaussian", 40, 640, 0.01)
    assert gaussian.std().item() == pytest.approx(0.01, rel=0.02)
    assert gaussian[0].norm().item() == pytest.approx(0.01 * 640**0.5, rel=0.1)


def test_initial_values(make_method: MakeMethod) -> None:
    torch.manual_seed(0)
    network = make_method(Recursive, "small", loop_vectors="qr", gate=True).build()
    block = network.blocks[1]
    assert block.attention.output.weight.abs().max() == block.mlp.down.weight.abs().max() == 0
    up = block.mlp.up.weight
    torch.testing.assert_close(up.T @ up, torch.eye(224), rtol=0, atol=1e-5)
    projection = network.condition.projection.weight
    torch.testing.assert_close(projection.T @ projection, torch.eye(64) / 4, rtol=0, atol=1e-5)
    assert network.condition.table.abs().max() == 0
    assert network.embedding.table.std().item() == pytest.approx(0.005, rel=0.02)
    assert network.value_embedding.table.std().item() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(block.attention.value_scale, torch.ones(1))
    assert network.body.gate.strength == 0
    assert network.body.gate.reference.abs().max() == network.smear.gate.abs().max() == 0


class Times(nn.Module):
    """A stand-in for a block: multiplies by a number of its own and adds x0, without attention."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x, x0, token_value):  # noqa: ANN001, ANN201
        return self.factor * x + x0 + (0 if token_value is None else token_value)


@pytest.mark.parametrize("num_blocks", [2, 3, 4, 6])
def test_skips_are_last_in_first_out(num_blocks: int) -> None:
    num_skips = num_blocks // 2
    blocks = [Times(1.0 + index) for index in range(num_blocks)]
    weights = [torch.tensor([10.0 * (index + 1)]) for index in range(num_skips)]
    x = expected = torch.ones(1, 1, 1)
    pushed = []
    for index in range(num_blocks):
        if 0 <= index - num_skips < num_skips:
            expected = expected + weights[index - num_skips] * pushed[2 * num_skips - 1 - index]
        expected = (1.0 + index) * expected + 0.5
        pushed.append(expected)
    assert torch.equal(run_u_net(blocks, x, torch.full((1, 1, 1), 0.5), None, weights), expected)


def make_body(**change: object) -> RecursiveBody:
    body = RecursiveBody(RecursiveSettings(**(SHAPE | change)))
    for parameter in body.parameters():
        parameter.data.normal_()
    return body.double()


def test_loops_in_sequence_each_have_skips_and_a_vector() -> None:
    body = make_body(blocks=2, loops=3, skips=True)
    x0 = torch.randn(2, 4, 8, dtype=torch.float64)
    x = x0
    for loop in range(3):
        first = 2.0 * (x + body.loop_vectors[loop]) + x0
        x = 3.0 * (first + body.skip_weights[0] * first) + x0
    torch.testing.assert_close(body(nn.ModuleList([Times(2.0), Times(3.0)]), x0, x0), x)


@pytest.mark.parametrize("fires_all", [True, False])
def test_parallel_firings_and_their_gate_by_the_formulas(fires_all: bool) -> None:
    body = make_body(flat_blocks=2, blocks=2, loops=2, skips=True, firing="parallel", gate=True, loop_vectors="qr")
    body.fires_all = fires_all
    x0, t = torch.randn(2, 2, 4, 8, dtype=torch.float64)
    output = body(nn.ModuleList([Times(f) for f in (2.0, 3.0, 0.3, 0.7)]), x0, x0, t)

    first = 2.0 * x0 + x0 + t
    x = 3.0 * (first + body.skip_weights[0] * first) + x0 + t
    o0, o1 = (0.7 * (0.3 * (x + p) + x0 + t) + x0 + t for p in body.loop_vectors)
    left, right = body.gate.mix.weight.T.split(8)
    a, r = body.gate.strength, body.gate.reference
    if fires_all:
        g = torch.sigmoid(o0 @ left + o1 @ right)
        c, last = g * o0 + (1 - g) * o1, o1
    else:
        c = last = o0
    h = torch.sigmoid(c @ left + r @ right)
    m = h * c + (1 - h) * r
    torch.testing.assert_close(output, last + a * (m - last))


def test_at_first_the_gate_passes_the_last_output() -> None:
    gate = DeliberationGate(8)
    o0, o1 = torch.randn(2, 1, 3, 8, requires_grad=True).unbind()
    assert torch.equal(gate([o0, o1]), o1)
    assert torch.equal(gate([o0]), o0)
    gradient = torch.autograd.grad(gate([o0, o1]).square().sum(), o0)[0]
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(
    ("cadence", "fires"), [(0, [0, 0, 0, 0, 0]), (1, [1, 1, 1, 1, 1]), (2, [1, 0, 1, 0, 1]), (3, [1, 0, 0, 1, 0])]
)
def test_cadence(cadence: int, fires: list[int]) -> None:
    body, seen = make_body(cadence=cadence), []
    for _ in fires:
        body.begin_step()
        seen.append(int(body.fires_all))
    assert seen == fires


@pytest.mark.parametrize("done", [1, 2, 3])
def test_the_rhythm_goes_on_from_a_saved_state(done: int) -> None:
    body, other = make_body(cadence=3), make_body(cadence=3)
    for _ in range(done):
        body.begin_step()
    other.load_state_dict(body.state_dict())
    for _ in range(4):
        body.begin_step()
        other.begin_step()
        assert body.fires_all == other.fires_all


def test_every_loop_fires_at_evaluation() -> None:
    body = make_body(blocks=1, loops=2, cadence=0)
    blocks, x = nn.ModuleList([Times(2.0)]), torch.randn(1, 2, 8, dtype=torch.float64)
    body.begin_step()
    once = body(blocks, x, x)
    torch.testing.assert_close(once, 2.0 * (x + body.loop_vectors[0]) + x)
    twice = body.eval()(blocks, x, x)
    torch.testing.assert_close(twice, 2.0 * (once + body.loop_vectors[1]) + x)
