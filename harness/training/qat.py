"""Late quantisation-aware training: a step sees the weights as the file will hold them.

The quantiser is that of the artifact, so no second formula can differ from it. Gradients at the stored weights are
applied to the latent ones, straight through (Bengio et al. 2013, arXiv:1308.3432).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.artifact.quantize import dequantise
from harness.errors import ArtifactError, UsageError
from harness.method import ExportSettings, Method
from harness.nn.network import Network


@contextmanager
def as_stored(network: Network, method: Method, export: ExportSettings) -> Iterator[None]:
    """Put what the file would give back into `network` for a while; the latent weights return afterwards.

    Args:
        network: changed in place, so compiled code sees it too.
        method: says what is stored, and where it goes.
        export: schemes of the run.

    Raises:
        UsageError: the method cannot put its stored tensors into a network that is being trained.
        RunError: a weight is NaN or infinite, or a number that its scheme cannot hold.
    """
    latent = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    try:
        tensors = {tensor.name: dequantise(tensor.quantise()) for tensor in method.export(network, export)}
        try:
            method.load_stored(network, tensors)
        except ArtifactError as error:
            raise UsageError(
                f"train.qat_start: this method's stored tensors do not fit the network in training ({error}). "
                "Run without it, or give the method a load_stored"
            ) from error
        yield
    finally:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(latent[name])
