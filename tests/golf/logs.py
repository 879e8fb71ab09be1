"""The log dialects: each function turns one run into the text that its training script prints."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from .model import CAP, Run

SOURCE = '''"""Trains a small model."""
import os, time
# step:13780/20000 val_loss:2.0606 val_bpb:1.2172 train_time:600038ms  <- what a line of the log looks like
# Total submission size int8+zlib: 15863489 bytes
# seed:1337
class Hyperparameters:
    seed = int(os.environ.get("SEED", 7))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
def main():
    log0(f"model_params:{n_params}")
    log0(f"seed:{args.seed}")
    log0(f"step:{step}/{args.iterations} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} train_time:{ms:.0f}ms")
    log0(f"Code size: {code_bytes} bytes")
    log0(f"Total submission size int8+zlib: {quant_bytes + code_bytes} bytes")
    log0(f"final_sliding_window_exact val_loss:{sw_loss:.8f} val_bpb:{sw_bpb:.8f}")
    # e.g. final_sliding_window_exact val_loss:1.95000000 val_bpb:1.15490211
if __name__ == "__main__":
    main()
'''
RULE = "=" * 100


def pair(run: Run, stage: str, digits: int = 4, colon: str = ":") -> str:
    return f"val_loss{colon}{run.loss(stage):.{digits}f} val_bpb{colon}{run.bpb(stage):.{digits}f}"


def march(
    run: Run,
    *,
    tag: str = "int8+zlib",
    total_tag: str | None = None,
    exact: bool = True,
    roundtrip: str = "final_int8_zlib_roundtrip",
    sliding: str = "final_sliding_window",
    stride_first: bool = False,
    avg_unit: str = "ms",
    source: str = "",
    says_seed: bool = True,
    extra: str = "",
) -> str:
    """`step:N/M val_loss:..` lines, a `Total submission size` before and after compression, exact finals."""
    rng = run.noise()
    out = [source + RULE, f"Running Python 3.12.3\n{RULE}"] if source else [f"logs/run_{run.seed}.txt"]
    out += [
        "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./data/tokenizers/fineweb_bpe.model",
        f"train_loader:dataset:fineweb10B_{run.tok.name} train_shards:80",
        f"val_loader:shards pattern=./data/datasets/fineweb10B_{run.tok.name}/fineweb_val_*.bin "
        f"tokens:{run.tok.val_tokens}",
        f"model_params:{run.params}",
        "world_size:8 grad_accum_steps:1",
        "attention_mode:gqa num_heads:8 num_kv_heads:4",
        f"train_batch_tokens:524288 train_seq_len:1024 iterations:{run.max_steps} warmup_steps:20 "
        f"max_wallclock_seconds:{run.wall:.3f}",
        *([f"seed:{run.seed}"] if says_seed else []),
        "warmup_step:10/20",
        "warmup_step:20/20",
    ]
    for step, ms, loss, bpb in run.curve():
        took = f"{ms / max(step, 1):.2f}ms" if avg_unit == "ms" else f"{ms / max(step, 1) / 1000:.5f}s"
        if 0 < step < run.steps:
            out.append(f"step:{step}/{run.max_steps} train_loss:{loss + rng.uniform(-0.09, 0.09):.4f} "
                       f"train_time:{ms}ms step_avg:{took}")  # fmt: skip
        out.append(
            f"step:{step}/{run.max_steps} val_loss:{loss:.4f} val_bpb:{bpb:.4f} train_time:{ms}ms step_avg:{took}"
        )
    if run.steps < run.max_steps:
        out.append(f"stopping_early: wallclock_cap train_time:{run.train_ms}ms step:{run.steps}/{run.max_steps}")
    out += [
        "peak memory allocated: 11251 MiB reserved: 11326 MiB",
        f"Serialized model: {run.raw_model} bytes",
        f"Code size: {run.code} bytes",
        f"Total submission size: {run.raw_model + run.code} bytes",
        f"Serialized model {tag}: {run.model} bytes (payload:{run.model + 6_112_345} payload_ratio:3.91x)",
        f"Total submission size {total_tag or tag}: {run.total} bytes",
    ]
    out += [extra] if extra else []
    for stage, name in (("roundtrip", roundtrip), ("sliding", sliding), ("ttt", "legal_ttt")):
        if stage not in run.stages:
            continue
        stride = " stride:64" if stage == "sliding" else ""
        first, last = (stride, "") if stride_first else ("", stride)
        out.append(f"{name}{first} {pair(run, stage)}{last} eval_time:{run.eval_ms[stage]}ms")
        if exact:
            out.append(f"{name}_exact{first} {pair(run, stage, 8)}")
    return "\n".join(out) + "\n"


def april(
    run: Run,
    *,
    comp: str = "int6+brotli",
    style: str = "int6",
    calibration: float = 9.8,
    source: str = "",
    extra: str = "",
) -> str:
    """A `Hyperparameters:` block, then `N/M val_loss: ..` lines; styles: int6, quantized, diagnostic."""
    rng = run.noise()
    names = {
        "int6": ("pre-quantization post-ema", "final_int6_roundtrip", "final_int6_sliding_window", "legal_ttt"),
        "quantized": ("pre-quantization post-ema", "quantized", "quantized_sliding_window", "quantized_ttt"),
        "diagnostic": ("diagnostic pre-quantization post-ema", "diagnostic quantized", "", "quantized_ttt_phased"),
    }[style]
    out = [
        "Hyperparameters:",
        "  beta1: 0.9\n  beta2: 0.95\n  compressor: brotli\n  ema_decay: 0.9965\n  eval_stride: 64",
        f"  iterations: {run.max_steps}\n  max_wallclock_seconds: {run.wall}\n  model_dim: 512\n  num_layers: 11",
        f"  run_id: run_{run.seed}\n  seed: {run.seed}\n  train_seq_len: 2048\n  val_loss_every: 4000",
        f"  vocab_size: {run.tok.vocab}\n  warmup_steps: 20\n  world_size: 8\n  xsa_last_n: 11",
        *([RULE, source.rstrip(), RULE] if source else []),
        "train_shards: 80",
        f"val_tokens: {run.tok.val_tokens}",
        f"model_params:{run.params}",
        "warmup_step: 10/20\nwarmup_step: 20/20",
    ]
    for step, ms, loss, bpb in run.curve():
        if 0 < step < run.steps:
            out.append(f"{step}/{run.max_steps} train_loss: {loss + rng.uniform(-0.09, 0.09):.4f} "
                       f"train_time: {ms / 60000:.1f}m tok/s: {rng.randrange(7_300_000, 8_000_000)}")  # fmt: skip
        if step % 4_000 == 0 or step == run.steps:
            out.append(f"{step}/{run.max_steps} val_loss: {loss:.4f} val_bpb: {bpb:.4f}")
    size = "Code size" if run.packed is None else "Code size (uncompressed)"
    out += [
        f"stopping_early: wallclock_cap train_time: {run.train_ms}ms step: {run.steps}/{run.max_steps}",
        "peak memory allocated: 34604 MiB reserved: 34634 MiB",
        f"{names[0]} {pair(run, 'ema', 8)} eval_time:{run.eval_ms['ema']}ms",
        f"Serialized model: {run.raw_model} bytes",
        f"{size}: {run.code} bytes",
        *([f"Code size (compressed): {run.packed} bytes"] if run.packed is not None else []),
        "GPTQ:collecting Hessians from calibration data...",
        f"GPTQ:collected 67 Hessians in {calibration}s",
        f"Serialized model {comp}: {run.model} bytes",
        f"Total submission size {comp}: {run.total} bytes",
        f"{names[1]} {pair(run, 'roundtrip', 8)} eval_time:{run.eval_ms['roundtrip']}ms",
    ]
    if "sliding" in run.stages:
        out.append(f"{names[2]} {pair(run, 'sliding', 8)} eval_time:{run.eval_ms['sliding']}ms")
    out += [extra] if extra else []
    if "ttt" in run.stages:
        out.append(ttt_block(run, names[3]))
    return "\n".join(out) + "\n"


def ttt_block(run: Run, name: str = "quantized_ttt_phased") -> str:
    """The evaluation that adapts at test time: running values first, then the result."""
    bpb, loss = run.bpb("ttt"), run.loss("ttt")
    running = f"rl:{loss - 0.01:.4f} rb:{bpb - 0.004:.4f}"
    heads = [
        f"ttp: b{700 - 90 * n}/782 bl:{loss + d:.4f} bb:{bpb + d / 2:.4f} {running}"
        for n, d in enumerate((0.021, -0.013, 0.034, -0.022))
    ]
    done = f"{name} {pair(run, 'ttt', 8)} eval_time:{run.eval_ms['ttt']}ms"
    return "\n".join(["beginning TTT eval timer", *heads, done, f"total_eval_time:{run.eval_ms['ttt'] / 1000:.1f}s"])


def eval_only(run: Run) -> str:
    """A log that trains nothing: it loads a saved artifact and scores it."""
    return "\n".join([
        "Hyperparameters:",
        f"  eval_seq_len: 2048\n  max_wallclock_seconds: {run.wall}\n  seed: {run.seed}\n  vocab_size: {run.tok.vocab}",
        "train_shards: 0",
        f"val_tokens: {run.tok.val_tokens}",
        "TTT_EVAL_ONLY=1 - skipping training, loading saved artifact",
        ttt_block(run),
    ]) + "\n"  # fmt: skip


def ternary(run: Run, *, source: str = SOURCE, kind: str = "ternary") -> str:
    """Everything in few lines: `params:.. s:42`, `artifact:..MB`, `budget:N/16000000`."""
    rng = run.noise()
    out = [
        source + RULE,
        f"activation_type=relu2 iterations={run.max_steps} max_wallclock_seconds=599.0 num_layers=10 seed={run.seed}",
        f"params:{run.params} L:10 d:768 h:8 kv:4 ws:8 ga:1 s:{run.seed}",
        "warmup:5/5",
    ]
    for step, ms, loss, _ in run.curve()[1:-1]:
        out.append(f"step:{step}/{run.max_steps} loss:{loss + rng.uniform(-0.09, 0.09):.4f} t:{ms}ms "
                   f"avg:{run.step_ms:.1f}ms")  # fmt: skip
    packed = run.model - 2_537_376
    out += [
        f"step:{run.steps}/{run.max_steps} {pair(run, 'val')} train_time:{run.train_ms}ms zero_frac:0.336",
        f"stopping_early: wallclock_cap train_time:{run.train_ms}ms step:{run.steps}/{run.max_steps}",
        f"artifact:{run.model / 1e6:.2f}MB {kind}:64880640({packed}B) fp:2513744(2537376B) code:{run.code}",
        f"budget:{run.total}/{CAP} ({run.total / 1e6:.2f}/16.00MB) FITS",
        f"final_{kind}_roundtrip {pair(run, 'roundtrip')}",
        "temp_scaling optimal_T:0.90 eval_time:146ms",
        f"final_sliding {pair(run, 'sliding')} (stride=16, T=0.90) eval_time:{run.eval_ms['sliding']}ms",
    ]
    return "\n".join(out) + "\n"


def legendre(run: Run, *, limited: int = 0) -> str:
    """A long run on one card: parameter budget, checkpoints, model and total on one line."""
    rng = run.noise()
    out = [
        "=" * 60,
        f"val tokens: {run.tok.val_tokens}",
        "--- Parameter Budget ---",
        "  embedding: 196,608 params (0.79 MB fp32)",
        f"  total: {run.params:,} params ({run.params * 4 / 1e6:.2f} MB fp32)",
        f"  seed: {run.seed}",
        "warmup done (20 steps)",
    ]
    for step, ms, loss, bpb in run.curve()[1:]:
        out.append(f"step:{step}/{run.max_steps} train_loss:{loss + rng.uniform(-0.09, 0.09):.4f} lr_mul:0.0999 "
                   f"train_time:{ms}ms step_avg:{run.step_ms:.2f}ms")  # fmt: skip
        out += [f"  eval: {limited} batches (limited)"] if limited else []
        out.append(f"step:{step}/{run.max_steps} val_loss:{loss:.4f} val_bpb:{bpb:.4f} train_time:{ms}ms")
    out += [
        f"Raw model: {run.raw_model} bytes | Code: {run.code} bytes | Total: {run.raw_model + run.code}",
        f"INT7+zlib model: {run.model} bytes | Total submission: {run.total} bytes",
        f"Within 16MB budget: YES ({run.total / 1e6:.2f} MB)",
        *([f"  eval: {limited} batches (limited)"] if limited else []),
        f"final_INT7_zlib_roundtrip {pair(run, 'roundtrip')}",
    ]
    return "\n".join(out) + "\n"


def trailer(run: Run) -> str:
    """A byte model: `JEPA | params:..`, model + code in MB, and a block of keys at the end."""
    body = [f"step:{s}/{run.max_steps} val_loss:{lo:.4f} val_bpb:{b:.4f} train_time:{ms}ms"
            for s, ms, lo, b in run.curve()]  # fmt: skip
    size = f"{run.model / 1e6:.2f}MB model + {run.code / 1e6:.3f}MB code = {run.total / 1e6:.2f}/16.00MB FITS"
    return "\n".join([
        f"JEPA | params:{run.params:,} (eval:{run.params:,} train_only:1,204,224)",
        f"val_loader:bytes tokens:{run.tok.val_tokens}",
        f"seed:{run.seed}",
        *body,
        f"stopping_early: wallclock_cap train_time:{run.train_ms}ms step:{run.steps}/{run.max_steps}",
        f"INT4+fp8+brotli: {size}",
        f"final_sliding {pair(run, 'sliding', 8)} (stride=64) time:{run.eval_ms['sliding']}ms",
        f"---\nval_bpb: {run.bpb('sliding'):.8f}\nartifact_bytes: {run.total}\nline_count: 1310\nvalid: true",
    ]) + "\n"  # fmt: skip


def prefixed(log: Callable[[Run], str], prefix: str = "[default0]:") -> Callable[[Run], str]:
    """The same log, each line as a launcher or `ts` would print it; `{t}` is a running clock."""
    return lambda run: "".join(
        prefix.format(t=f"{1_776_142_348.135 + 1.7 * n:.3f}") + line + "\n"
        for n, line in enumerate(log(run).splitlines())
    )


def wrapped(log: Callable[[Run], str], width: int = 100) -> Callable[[Run], str]:
    """The same log through a terminal that breaks long lines at blanks."""
    return lambda run: "".join(
        part + "\n" for line in log(run).splitlines() for part in (textwrap.wrap(line, width) or [""])
    )
