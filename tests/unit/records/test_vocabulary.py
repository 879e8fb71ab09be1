"""Names that strangers give to quantities, and names that must mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.vocabulary import Meaning, normalise, read_name, read_stage, speaks_of_other_runs

# name: quantity, stage or "-", statistic
OWN = """
val_bpb bpb - value
mean_bpb bpb - mean
mean_val_bpb bpb - mean
val_bpb_mean bpb - mean
val_bpb_std bpb - std
std_bpb bpb - std
int6_zstd_val_bpb bpb roundtrip value
val_bpb_roundtrip bpb roundtrip value
post_quant_standard_val_bpb bpb roundtrip value
quant_roundtrip_mean_bpb bpb roundtrip mean
sliding_val_bpb bpb sliding value
sliding_bpb_mean bpb sliding mean
pre_quant_val_bpb bpb pre_quant value
post_ema_mean_bpb bpb pre_quant mean
pre_ttt_val_bpb bpb pre_ttt value
pre_ttt_sliding_bpb bpb pre_ttt value
pre_ttt_sliding_mean bpb pre_ttt mean
ttt_gain_bpb bpb ttt delta
ttt_gain_mean_bpb bpb ttt delta
best_10min_byte260_val_bpb bpb - min
best_10min_sp1024_val_bpb bpb - min
val_loss loss - value
val_loss_nats loss - value
mean_val_loss loss - mean
mean_val_loss_nats loss - mean
val_loss_std loss - std
std_val_loss_nats loss - std
val_loss_nats_std loss - std
pre_quant_val_loss loss pre_quant value
int6_zstd_val_loss loss roundtrip value
val_loss_roundtrip loss roundtrip value
post_quant_standard_val_loss loss roundtrip value
val_loss_sliding loss sliding value
bytes_total bytes_total - value
artifact_bytes bytes_total - value
artifact_bytes_mean bytes_total - mean
artifact_bytes_max bytes_total - max
artifact_size_bytes bytes_total - value
best_10min_byte260_bytes_total bytes_total - min
best_10min_sp1024_bytes_total bytes_total - min
bytes_code bytes_code - value
code_bytes bytes_code - value
bytes_model_int8_zlib bytes_model roundtrip value
bytes_model_int6_zstd bytes_model roundtrip value
bytes_model_compressed bytes_model - value
model_params params - value
step_stop steps - value
steps steps - value
train_steps steps - value
train_steps_mean steps - mean
wallclock_seconds train_seconds - value
train_time_seconds train_seconds - value
train_time_s train_seconds - value
train_time_s_mean train_seconds - mean
train_time_ms train_seconds - value
eval_time_seconds eval_seconds - value
eval_time_s eval_seconds - value
eval_time_s_mean eval_seconds - mean
eval_time_ms eval_seconds - value
ttt_eval_time_s eval_seconds ttt value
step_avg_ms step_ms - mean
step_avg_ms_mean step_ms - mean
seed seed - value
seeds seed - value
n_seeds num_seeds - value
t_statistic t_statistic - value
p_value p_value - value
"""
OTHERS = """
base_val_bpb bpb - value
comparison_baseline_bpb bpb - value
delta_vs_base_bpb bpb - delta
delta_vs_base_loss_nats loss - delta
delta_vs_pr549_bpb bpb - delta
delta_vs_pr549_nats loss - delta
delta_vs_pr1019_bpb bpb - delta
delta_vs_pr1179_bpb bpb - delta
delta_vs_pr1179_nats loss - delta
delta_vs_current_merged_sota_bpb bpb - delta
delta_vs_current_merged_sota_nats loss - delta
delta_vs_leaderboard_bpb bpb - delta
delta_vs_leaderboard_nats loss - delta
"""
HEADINGS = """
**Sliding BPB** | bpb sliding value
**Post-TTT BPB** | bpb ttt value
Sliding BPB (s16) | bpb sliding value
slide_bpb | bpb sliding value
slide_loss (nats) | loss sliding value
val\\_bpb | bpb - value
val_loss (nats) | loss - value
RT bpb | bpb roundtrip value
Quantized BPB | bpb roundtrip value
Quantized BPB (no TTT) | bpb pre_ttt value
Pre-TTT BPB | bpb pre_ttt value
Pre-quant BPB | bpb pre_quant value
Post-EMA BPB (pre-quant) | bpb pre_quant value
BPB gain | bpb - delta
Δ (mBPP) | bpb - delta
Artifact | bytes_total - value
Artifact (bytes) | bytes_total - value
Code size | bytes_code - value
Params | params - value
Steps | steps - value
ms/step | step_ms - value
ms/step avg | step_ms - mean
step_avg | step_ms - mean
Train time | train_seconds - value
Eval time | eval_seconds - value
TTT eval time | eval_seconds ttt value
Seed | seed - value
"""
NOTHING = [
    "num_layers",
    "model_dim",
    "num_heads",
    "num_kv_heads",
    "matrix_lr",
    "MATRIX_LR",
    "scalar_lr",
    "muon_wd",
    "zstd_level",
    "use_zstd",
    "github_id",
    "date",
    "author",
    "name",
    "blurb",
    "track",
    "hardware",
    "platform",
    "base_pr",
    "base_submission",
    "comparison_baseline_pr",
    "based_on",
    "compliance",
    "compliance_rerun",
    "seed_results",
    "seed_scores",
    "seed_results_all_runs_disclosure",
    "welch_df",
    "batch_tokens",
    "train_batch_tokens",
    "warmup_steps",
    "warmdown_iters",
    "train_shards",
    "iterations",
    "max_wallclock_seconds",
    "train_seq_len",
    "eval_stride",
    "stride",
    "beta1",
    "momentum",
    "grad_clip",
    "vocab_size",
    "dropout",
    "logit_softcap",
    "rope_base",
    "swa_every",
    "qk_gain",
    "tokens_seen",
    "gpus",
    "version",
    "train_loss",
    "training_loss",
    "Config",
    "Component",
    "Layers",
    "Delta",
    "Headroom",
    "Budget",
    "Notes",
    "Run",
    "PR1530",
    "Technique",
    "MB/layer",
    "BPB/MB",
    "zero_frac",
    "ms",
    "valid",
]


def rows(table: str, mark: str | None = None) -> list[tuple[str, Meaning]]:
    found = []
    for line in table.strip().splitlines():
        name, rest = line.split(mark, 1)
        quantity, stage, statistic = rest.split()
        found.append((name.strip(), Meaning(quantity, "" if stage == "-" else stage, statistic)))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(("name", "meaning"), [*rows(OWN), *rows(HEADINGS, "|")])
def test_a_name_of_this_run(name: str, meaning: Meaning) -> None:
    assert read_name(name) == meaning


@pytest.mark.parametrize(("name", "meaning"), rows(OTHERS))
def test_a_name_of_another_run(name: str, meaning: Meaning) -> None:
    assert read_name(name) == Meaning(meaning.quantity, meaning.stage, meaning.statistic, is_reference=True)
    assert speaks_of_other_runs(name)


@pytest.mark.parametrize("name", NOTHING)
def test_a_name_that_means_nothing_judged(name: str) -> None:
    assert read_name(name) is None


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("final_int6_sliding_window_exact", "sliding"), ("final_int8_zlib_roundtrip_exact", "roundtrip"),
        ("DIAGNOSTIC post_ema", "pre_quant"), ("legal_ttt_exact", "ttt"), ("quantized_ttt_phased", "ttt"),
        ("quantized_sliding_window", "sliding"), ("final_xnor_roundtrip", "roundtrip"), ("no TTT", "pre_ttt"), ("step", ""),
    ],
)  # fmt: skip
def test_the_stage_of_a_log_line(line: str, stage: str) -> None:
    assert read_stage(line) == stage


@pytest.mark.parametrize("text", ["vs PR #1736", "baseline score", "previous record", "SOTA", "compared with #12"])
def test_words_for_other_peoples_runs(text: str) -> None:
    assert speaks_of_other_runs(text)


@given(st.text(max_size=300))
def test_any_name_is_normalised_and_read(name: str) -> None:
    assert normalise(normalise(name)) == normalise(name)
    meaning = read_name(name)
    assert meaning is None or meaning.quantity


@given(
    st.sampled_from([name for name, _ in rows(OWN)]),
    st.sampled_from([str.upper, str.title, lambda n: n.replace("_", " ")]),
)
def test_case_and_separators_do_not_matter(name: str, change: object) -> None:
    assert callable(change)
    assert read_name(change(name)) == read_name(name)
