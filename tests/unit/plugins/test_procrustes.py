"""The plugin for dense records: identities, counts by hand, refusals, stages, starting from a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.dense.method import Dense
from harness.errors import UsageError
from harness.method import Method, Parent
from harness.nn.network import Network
from harness.nn.transformer import Transformer
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.method import Procrustes

MakeMethod = Callable[..., Method]
TOKENS = torch.randint(0, 257, (2, 16), generator=torch.Generator().manual_seed(0))


def make_dense(method: Method) -> Transformer:
    torch.manual_seed(0)
    dense = method.build_dense().double()
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return dense.eval()


@torch.no_grad()
def logits_of(network: Network) -> Tensor:
    return network(TOKENS)


@pytest.mark.parametrize("solver", ["principal", "alternation", "descent"])
@pytest.mark.parametrize("tied", [True, False])
def test_classes_of_all_matrices_change_nothing(make_method: MakeMethod, solver: str, tied: bool) -> None:
    # 4 of 4 terms: every matrix is in the class
    method = make_method(Procrustes, "tiny", vocab_size=257, terms=4, tied=tied, solver=solver, positions="learned")
    dense = make_dense(method)
    network = method.compress(dense, {}).double().eval()
    expected = logits_of(dense)
    # The rotated network is made in float32.
    torch.testing.assert_close(logits_of(network), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert isinstance(network.blocks[0].attention.query, StructuredLinear)
    assert not torch.equal(network.embedding.table, dense.embedding.table.float())


def test_the_compressed_network_is_stored_as_one_that_is_built(make_method: MakeMethod) -> None:
    for structure, terms in (("kronecker", 3), ("monarch", 4), ("low_rank", 5), ("block_low_rank", 2)):
        method = make_method(Procrustes, "tiny", vocab_size=257, structure=structure, terms=terms)
        network = method.compress(make_dense(method).float(), {})
        built = method.build()
        shapes = [{name: value.shape for name, value in one.named_parameters()} for one in (network, built)]
        assert shapes[0] == shapes[1], structure
        built.load_state_dict(network.state_dict())
        assert torch.equal(logits_of(built), logits_of(network))


def test_parameters_and_operations_by_hand(make_method: MakeMethod) -> None:
    method = make_method(Procrustes, "tiny", vocab_size=257)
    with torch.device("meta"):
        counts = method.count_params(method.build())
    # One-sided of 3 terms in 4 parts of 64 features: 3 (4 + 16 N); key has 32 columns, up and down 128.
    query, key, wide, value = 3 * (4 + 16 * 64), 3 * (4 + 16 * 32), 3 * (4 + 16 * 128), 64 * 32
    blocks, skips = 2 * (2 * query + key + 2 * wide + value), 5 * 64 * 64
    left = 2 * 5 * 12
    assert counts.parts == {"embedding": 257 * 64, "blocks": blocks, "skips": skips, "scalars": 2 * 4}
    assert left < blocks
    assert counts.active == 257 * 64 + blocks + skips + 8
    assert counts.effective == 257 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 2 * 64 * 128) + skips + 8
    dense = make_method(Dense, "tiny", vocab_size=257, num_layers=2, skips=False)
    # left (x) I takes 3 * 64 products, right 3 * 16 N
    saved = sum(64 * n - 3 * 64 - 3 * 16 * n for n in (64, 32, 64, 128, 128))
    expected = dense.flops_per_step(1000) + 6000.0 * (5 * 64 * 64 - 2 * saved)
    assert method.flops_per_step(1000) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layer"}, "norm: a rotation would change the network's function. Set norm='rms'"),
        ({"sublayer_scales": True}, "sublayer_scales: .* Set sublayer_scales=False"),
        ({"residual_mix": True}, "residual_mix: .* Set residual_mix=False"),
        ({"skips": True}, "skips: .* Set skips=False"),
        ({"biases": ["up"]}, r"biases: .* Set biases=\(\)"),
        ({"positions": "sinusoidal"}, "positions: a fixed table cannot be rotated. Set positions=rope"),
    ],
)
def test_what_a_rotation_would_change_is_refused(
    make_method: MakeMethod, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_method(Procrustes, "tiny", vocab_size=257, **change)


class FakeRun:
    """Records the fits that a method asks for, and trains nothing."""

    def __init__(self, parent: Parent | None = None) -> None:
        self.parent = parent
        self.fits: list[tuple[str, float]] = []

    def fit(self, network: Network, *, share: float = 1.0, **_: object) -> Network:
        self.fits.append((type(network).__name__, share))
        return network

    def calibrate(self, network: Network, *, num_tokens: int) -> Mapping[str, Tensor]:
        moment = torch.diag(torch.linspace(1, 2, 64)).double()
        wide = torch.diag(torch.linspace(1, 2, 128)).double()
        return {
            name: wide if name.endswith("down") else moment
            for name, module in network.named_modules()
            if name.startswith("blocks.") and hasattr(module, "weight")
        }


def test_four_fifths_of_the_budget_train_dense(make_method: MakeMethod) -> None:
    run = FakeRun()
    method = make_method(Procrustes, "tiny", vocab_size=257, dense_share=0.8, weighting="activations")
    assert method.train(run).blocks[0].attention.query.structure.terms == 3
    assert run.fits == [("Transformer", 0.8), ("RotatedTransformer", pytest.approx(0.2))]


def test_a_dense_record_is_taken_as_it_is(make_method: MakeMethod) -> None:
    same = {"num_layers": 2, "skips": False, "sublayer_scales": False, "residual_mix": False}
    dense = make_method(Dense, "tiny", vocab_size=257, **same).build()
    tensors = {name: value.detach().numpy() for name, value in dense.named_parameters()}
    run = FakeRun(Parent(method="dense", settings={}, tensors=tensors))
    method = make_method(Procrustes, "tiny", vocab_size=257, terms=4)
    torch.testing.assert_close(logits_of(method.train(run)), logits_of(dense), rtol=0, atol=1e-4)
    assert run.fits == [("RotatedTransformer", 1.0)]
    tensors.pop("embedding.table")
    with pytest.raises(UsageError, match="--from a record of 'dense': .* embedding.table"):
        method.train(run)


def test_no_module_of_the_harness_knows_the_method() -> None:
    root = Path(__file__).resolve().parents[3]
    assert not [path for path in (root / "harness").rglob("*.py") if "methods.procrustes" in path.read_text()]
