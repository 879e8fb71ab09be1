"""MPO from a stored network: TT-SVD of a dense one, cores as they are, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from baselines.dense.method import Dense
from harness.errors import UsageError
from harness.method import ExportSettings, Method, Parent
from harness.nn.factorise import TensorTrain
from harness.nn.network import Network
from methods.mpo.layer import MPOLinear
from methods.mpo.method import MPO

MakeMethod = Callable[..., Method]
EXACT = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")


def stored(method: Method, name: str) -> tuple[Network, Parent]:
    torch.manual_seed(0)
    network = method.build().eval()
    tensors: Mapping[str, np.ndarray] = {t.name: t.value.copy() for t in method.export(network, EXACT)}
    return network, Parent(method=name, settings=method.settings.model_dump(), tensors=tensors)


def test_full_bonds_give_the_dense_network(make_method: MakeMethod) -> None:
    network, parent = stored(make_method(Dense, "picogpt", vocab_size=65), "dense")
    started = make_method(MPO, "picogpt-chi32", vocab_size=65, chi=4096, faithful=False).build_from(parent)
    tokens = torch.randint(65, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(started(tokens), network(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("faithful", [True, False])
def test_cores_are_those_of_tt_svd_and_the_rest_is_copied(make_method: MakeMethod, faithful: bool) -> None:
    _, parent = stored(make_method(Dense, "picogpt", vocab_size=65), "dense")
    started = make_method(MPO, "picogpt-chi8", vocab_size=65, faithful=faithful).build_from(parent)
    for name, module in started.named_modules():
        if isinstance(module, MPOLinear):
            weight = torch.from_numpy(parent.tensors[f"{name}.weight"])
            train = TensorTrain.of(weight.double(), module.modes, 8)
            error = torch.linalg.matrix_norm(module.weight.detach().double() - weight)
            assert float(error) == pytest.approx(train.error, rel=1e-4)
    assert np.array_equal(started.embedding.table.detach().numpy(), parent.tensors["embedding.table"])


def test_bonds_beyond_the_rank_start_at_nothing_but_can_learn(make_method: MakeMethod) -> None:
    network, parent = stored(make_method(Dense, "tiny", vocab_size=50), "dense")
    for name, parameter in network.named_parameters():
        if "output.weight" in name or "down.weight" in name:
            torch.nn.init.normal_(parameter, std=0.1)
            parent.tensors[name][...] = parameter.detach().numpy()
    torch.manual_seed(1)
    started = make_method(MPO, "tiny", vocab_size=50, chi=80, faithful=True).build_from(parent)
    tokens = torch.randint(50, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(started(tokens), network(tokens), rtol=1e-4, atol=1e-4)
    started.loss(tokens, tokens).backward()
    query = started.blocks[0].attention.query
    assert query.bonds == (1, 80, 1)
    assert query.cores[0].detach()[..., 64:].abs().max() == 0
    assert query.cores[0].grad[..., 64:].abs().max() > 0


def test_an_mpo_record_is_taken_as_it_is(make_method: MakeMethod) -> None:
    network, parent = stored(make_method(MPO, "tiny", vocab_size=50), "mpo")
    started = make_method(MPO, "tiny", vocab_size=50).build_from(parent)
    for (name, mine), (_, theirs) in zip(started.named_parameters(), network.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_dense_role_keeps_its_matrix(make_method: MakeMethod) -> None:
    _, parent = stored(make_method(Dense, "picogpt", vocab_size=257), "dense")
    started = make_method(MPO, "picogpt-chi8", vocab_size=257, dense_roles=["head"]).build_from(parent)
    assert np.array_equal(started.head.weight.detach().numpy(), parent.tensors["head.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_width": 256}, r"--from a record of 'dense': modes .* do not multiply to a 128 x 64 matrix"),
        ({"skips": False}, r"--from a record of 'dense': .* disagree on the tensors body\.skip_weights"),
        ({"num_layers": 3}, r"--from a record of 'dense': .* blocks\.3\."),
    ],
)
def test_a_parent_of_another_shape_is_refused(make_method: MakeMethod, change: dict[str, object], message: str) -> None:
    _, parent = stored(make_method(Dense, "tiny", vocab_size=50), "dense")
    with pytest.raises(UsageError, match=message):
        make_method(MPO, "tiny", vocab_size=50, **change).build_from(parent)
