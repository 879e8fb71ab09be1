"""What the claims are judged by: identities of the measures."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from methods.procrustes.measures import centring_error, projection_gain, rotation_error

pytest.importorskip("transformers", reason="needs the extra hf")


def test_rotating_changes_nothing_and_centring_a_llama_model_does() -> None:
    assert rotation_error("llama") < 1e-4 < 1e-2 < centring_error("llama")


def test_low_rank_matrices_gain_nothing_by_a_rotation_and_blocks_of_them_do() -> None:
    assert projection_gain("low_rank") == pytest.approx(1, abs=1e-6)
    assert projection_gain("block_low_rank") < 0.95
    with pytest.raises(UsageError, match="no class 'monarchs'. Did you mean 'monarch'"):
        projection_gain("monarchs")
