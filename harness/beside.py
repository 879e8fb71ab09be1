"""What the compression of a pretrained model has to beat: other ways at its total of stored parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harness.errors import UsageError
from harness.job import Job
from harness.pretrained.load import load_pretrained
from harness.pretrained.method import PretrainedMethod
from harness.pretrained.source import hash_weights
from harness.records.schema import BesidePart
from harness.training.calibration import calibration_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Windows of the tune split that perplexities are of.
BESIDE_WINDOWS = 200


def measure_beside(job: Job) -> Sequence[BesidePart]:
    """Compress the pretrained model in other ways, on the record's calibration text, scored on the tune split."""
    if job.pretrained is None:
        return ()
    assert isinstance(job.method, PretrainedMethod)
    context, tune = job.eval_mode.context, job.data.tune
    num_windows = min(BESIDE_WINDOWS, tune.num_tokens // context)
    if num_windows < 2:
        job.reporter.said(f"the tune split has no two windows of {context:,} tokens to compare other ways on")
        return ()
    windows_BT = torch.from_numpy(tune.read(0, num_windows * context).astype(np.int64)).view(num_windows, context)
    batches = job.settings.train.batches(job.data.train, job.request.seed)

    def calibrate(num_tokens: int) -> Tensor:
        return torch.cat(list(calibration_batches(batches, num_tokens)))

    name, sha256 = job.pretrained.name, job.pretrained.sha256

    def load() -> PreTrainedModel:
        job.reporter.said("compressing it in other ways, to compare")
        model = load_pretrained(name, dtype=torch.float32)
        if hash_weights(model) != sha256:
            raise UsageError(
                f"--model {name} is another one now than at the start; other ways would not be compared on it"
            )
        return model

    try:
        return job.method.beside(load, calibrate, windows_BT)
    except UsageError as error:  # the compression itself is done
        job.reporter.said(f"nothing to compare with: {error}")
        return ()
