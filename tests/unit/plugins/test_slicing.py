"""The slicing baseline: exact where the stream has no more components; counts by hand, stages, starts from records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from baselines.dense.method import Dense
from baselines.slicing.method import PROBE, Slicing, _probed
from harness.errors import UsageError
from harness.method import Method, Parent
from harness.nn.network import Network
from harness.nn.transformer import Transformer
from harness.training.calibration import input_moments

MakeMethod = Callable[..., Method]
TOKENS = torch.randint(0, 257, (4, 32), generator=torch.Generator().manual_seed(0))
WRITERS = ("attention.output.weight", "mlp.down.weight")


def make_dense(method: Method, rank: int = 64) -> Transformer:
    """Return a dense network whose residual stream lies in the span of `rank` directions of its 64 features'."""
    torch.manual_seed(0)
    dense = method.build_dense().double().eval()
    basis = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64)).Q[:, :rank]
    onto = basis @ basis.T
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if name.startswith(("embedding", "positions")):
                parameter.copy_(parameter @ onto)
            if name.endswith(WRITERS):
                parameter.copy_(onto @ parameter)
    return dense


def moments_of(dense: Transformer) -> Mapping[str, Tensor]:
    with _probed(dense):
        return input_moments(dense, [TOKENS])


@torch.no_grad()
def logits_of(network: Network) -> Tensor:
    return network.double().eval()(TOKENS)


@pytest.mark.parametrize("embedding_norm", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_directions_that_the_stream_never_takes_are_cut_for_nothing(
    make_method: MakeMethod, tied: bool, embedding_norm: bool
) -> None:
    change = {"tied": tied, "embedding_norm": embedding_norm, "positions": "learned", "kept_share": 0.25}
    method = make_method(Slicing, "tiny", vocab_size=257, **change)
    dense = make_dense(method, rank=16)
    expected = logits_of(dense)
    network = method.slice(dense, moments_of(dense))
    assert network.embedding.table.shape == (257, 16)
    # Norms add 1e-7 to a mean over 16 features where it was one over 64.
    torch.testing.assert_close(logits_of(network), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    narrower = make_method(Slicing, "tiny", vocab_size=257, **change | {"kept_share": 12 / 64})
    cut = logits_of(narrower.slice(dense, moments_of(dense)))
    assert (cut - expected).abs().max() > 0.01 * expected.abs().max()


def test_principal_components_lose_less_than_others(make_method: MakeMethod) -> None:
    method = make_method(Slicing, "tiny", vocab_size=257, kept_share=0.5)
    dense = make_dense(method)
    with torch.no_grad():  # a stream of unlike features
        dense.embedding.table.mul_(torch.linspace(0, 1, 64).square())
    before, moments = logits_of(dense), moments_of(dense)
    random = {name: torch.cov(torch.randn(len(moment), 9999).double()) for name, moment in moments.items()}
    errors = [(logits_of(method.slice(dense, one)) - before).square().mean() for one in (moments, random)]
    assert errors[0] < 0.8 * errors[1]


def test_a_probe_before_a_tied_head_leaves_the_network_as_it_was(make_method: MakeMethod) -> None:
    dense = make_dense(make_method(Slicing, "tiny", vocab_size=257))
    names, before = list(dict(dense.named_parameters())), logits_of(dense)
    moments = moments_of(dense)
    assert list(dict(dense.named_parameters())) == names
    torch.testing.assert_close(logits_of(dense), before, rtol=0, atol=0)
    # normalised features: E[x x^T] has the trace D
    assert moments[PROBE].trace().item() == pytest.approx(64, rel=1e-3)


def test_parameters_and_operations_by_hand(make_method: MakeMethod) -> None:
    method = make_method(Slicing, "tiny", vocab_size=257)
    with torch.device("meta"):
        counts = method.count_params(method.build())
    # 48 of 64 features; query and output have 64 others, key and value 32, up and down 128
    block, skips = 48 * (64 + 32 + 32 + 64 + 128 + 128), 48 * 48
    assert counts.parts == {"embedding": 257 * 48, "blocks": 2 * block, "skips": 5 * skips, "scalars": 2 * 4}
    assert counts.effective == counts.active == sum(counts.parts.values())
    dense = make_method(Dense, "tiny", vocab_size=257, num_layers=2, skips=False)
    fewer = 16 * (2 * (64 + 32 + 32 + 64 + 128 + 128) + 257)
    expected = dense.flops_per_step(1000) + 6000.0 * (5 * skips - fewer)
    assert method.flops_per_step(1000) == pytest.approx(expected)


def test_an_untied_head_and_learned_positions_are_counted(make_method: MakeMethod) -> None:
    method = make_method(Slicing, "tiny", vocab_size=257, tied=False, positions="learned")
    network = method.build()
    counts = method.count_params(network)
    assert counts.effective == sum(parameter.numel() for parameter in network.parameters())
    # of both tables one row is looked up
    assert counts.effective - counts.active == 48 * (256 + method.task.context - 1)


class FakeRun:
    """Records the fits that a method asks for, and trains nothing."""

    def __init__(self, parent: Parent | None = None) -> None:
        self.parent = parent
        self.fits: list[tuple[str, float]] = []

    def fit(self, network: Network, *, share: float = 1.0, **_: object) -> Network:
        self.fits.append((type(network).__name__, share))
        return network

    def calibrate(self, network: Network, *, num_tokens: int) -> Mapping[str, Tensor]:
        return input_moments(network, [TOKENS[:, :num_tokens]])


def test_a_dense_record_is_taken_as_it_is(make_method: MakeMethod) -> None:
    same = {"num_layers": 2, "skips": False, "sublayer_scales": False, "residual_mix": False}
    dense = make_method(Dense, "tiny", vocab_size=257, **same).build()
    tensors = {name: value.detach().numpy() for name, value in dense.named_parameters()}
    run = FakeRun(Parent(method="dense", settings={}, tensors=tensors))
    method = make_method(Slicing, "tiny", vocab_size=257, kept_share=1)
    sliced = method.train(run)
    torch.testing.assert_close(logits_of(sliced), logits_of(dense), rtol=0, atol=1e-4)
    assert run.fits == [("SlicedTransformer", 1.0)]
    own = FakeRun()
    method.train(own)
    assert own.fits == [("Transformer", 0.5), ("SlicedTransformer", 0.5)]
    tensors.pop("embedding.table")
    with pytest.raises(UsageError, match="--from a record of 'dense': .* embedding.table"):
        method.train(run)


def test_what_a_rotation_would_change_is_refused(make_method: MakeMethod) -> None:
    with pytest.raises(UsageError, match=r"residual_mix: .* Set residual_mix=False"):
        make_method(Slicing, "tiny", vocab_size=257, residual_mix=True)
