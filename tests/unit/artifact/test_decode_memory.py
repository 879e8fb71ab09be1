"""Peak memory of decoding, measured in a process of its own: at most twice the float32 bytes and 64 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.artifact import writer
from harness.artifact.byte_coders import compress_zstd
from harness.artifact.codec import encode
from harness.artifact.container import PlannedTensor, write_artifact
from harness.artifact.planes import join_planes, split_planes

DECODE = """
import sys
from pathlib import Path
import numpy, zstandard, constriction, lzma
from harness.artifact.container import Artifact

def peak_bytes():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024

before = peak_bytes()
tensors = Artifact.open(Path(sys.argv[1])).decode_tensors()
declared = sum(tensor.size * 4 for tensor in tensors.values())
print(declared, peak_bytes() - before)
"""


def encode_quickly(array: np.ndarray, coder: str) -> tuple[str, bytes]:
    if array.ndim == 1:
        return "raw", array.tobytes()
    if coder == "zstd":
        return "+".join(["zstd"] * array.itemsize), join_planes([compress_zstd(p, 1) for p in split_planes(array)])
    payload = encode(array, coder)
    assert payload is not None
    return coder, payload


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("scheme", "coder"),
    [("fp32", "zstd"), ("fp16", "raw+range"), ("int8-step", "range-rows")],
)
def test_peak_memory_of_decoding(tmp_path: Path, scheme: str, coder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # 80 MB of float32: three copies would be above the bound.
    weight = np.random.default_rng(0).standard_normal((5000, 4000), np.float32)
    weight *= np.geomspace(0.1, 10, 5000, dtype=np.float32)[:, None]
    monkeypatch.setattr(writer, "encode_smallest", lambda array: encode_quickly(array, coder))
    path = tmp_path / "a.bin"
    tensors = [PlannedTensor(name="w", value=weight, scheme=scheme, part="w")]
    assert write_artifact(path, meta={}, tensors=tensors, blobs={}).artifact_bytes > 1_000_000
    run = subprocess.run(
        [sys.executable, "-c", DECODE, str(path)], check=True, capture_output=True, text=True, timeout=120
    )
    declared_bytes, peak_bytes = map(int, run.stdout.split())
    assert declared_bytes == weight.nbytes
    assert peak_bytes <= 2 * declared_bytes + 64_000_000
