"""Lines of logs in every dialect: which readings they give, and which lines give none."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.submission import LoggedRun, Reading, Submission
from harness.records.training_logs import RunReader, file_number, file_seed


def read(text: str | bytes, path: str = "train.log") -> list[LoggedRun]:
    reader = RunReader(path)
    reader.read(BytesIO(text.encode() if isinstance(text, str) else text))
    return reader.runs


def read_one(text: str, path: str = "train.log") -> LoggedRun:
    (run,) = read(text, path)
    return run


def shown(run: LoggedRun) -> list[tuple[str, float, str]]:
    return [(reading.quantity, round(reading.value, 9), reading.stage) for reading in run.readings]


# label of an evaluation after training: its stage
FINALS = {
    "final_int8_zlib_roundtrip": "roundtrip", "final_int8_zlib_roundtrip_exact": "roundtrip",
    "final_int6_roundtrip_exact": "roundtrip", "final_ternary_roundtrip": "roundtrip", "final_binary_roundtrip": "roundtrip",
    "final_xnor_roundtrip": "roundtrip", "final_INT7_zlib_roundtrip": "roundtrip", "final_roundtrip": "roundtrip",
    "final_temped": "roundtrip", "quantized": "roundtrip", "diagnostic quantized": "roundtrip",
    "final_int6_roundtrip sliding": "sliding", "final_sliding_window": "sliding", "final_sliding_window_exact": "sliding",
    "final_int6_sliding_window": "sliding", "final_sliding_window_eval_exact stride:64": "sliding", "final_sliding": "sliding",
    "quantized_sliding_window": "sliding", "diagnostic quantized_sliding_window": "sliding",
    "legal_ttt": "ttt", "legal_ttt_exact": "ttt", "final_ttt_lora": "ttt", "final_int8_ttt_lora": "ttt",
    "final_int6_ttt": "ttt", "quantized_ttt": "ttt", "quantized_ttt_lora": "ttt", "quantized_ttt_phased": "ttt",
    "DIAGNOSTIC post_ema": "pre_quant", "pre-quantization post-ema": "pre_quant",
    "diagnostic pre-quantization post-ema": "pre_quant",
}  # fmt: skip


@pytest.mark.parametrize("label", FINALS)
@pytest.mark.parametrize(
    "form", ["{} val_loss:1.90 val_bpb:1.140", "{} val_loss: 1.90 val_bpb: 1.140", "{} val_loss=1.90, val_bpb=1.140"]
)
def test_an_evaluation_after_training(label: str, form: str) -> None:
    run = read_one(f"noise\n{form.format(label)} eval_time:511264ms\n")
    stage = FINALS[label]
    assert shown(run) == [("loss", 1.9, stage), ("bpb", 1.14, stage), ("eval_seconds", 511.264, stage)]
    loss, bpb, _ = run.readings
    assert (loss.path, loss.line, loss.label, loss.step, loss.origin) == ("train.log", 2, label, None, "logged")
    assert (bpb.text, bpb.last_place) == ("1.140", pytest.approx(1e-3))


# line: its readings
FACTS = {
    "stopping_early: wallclock_cap train_time:600040ms step:12329/20000": [("train_seconds", 600.04), ("steps", 12329)],
    "stopping_early: wallclock_cap train_time: 588098ms step: 5178/20000": [("train_seconds", 588.098), ("steps", 5178)],
    "stopping_early: wallclock_cap train_time:600040ms": [("train_seconds", 600.04)],
    "ttt_sliding:done val_loss=1.9 val_bpb=1.14 elapsed=525.7s": [("loss", 1.9), ("bpb", 1.14), ("eval_seconds", 525.7)],
    "final_sliding val_loss:2.9 val_bpb:1.15 (stride=16, T=0.90) time:429311ms":
        [("loss", 2.9), ("bpb", 1.15), ("eval_seconds", 429.311)],
    "Code size: 47642 bytes": [("bytes_code", 47642)],
    "Code size (uncompressed): 125671 bytes": [("bytes_code", 125671)],
    "Code size (compressed): 30305 bytes": [("bytes_code", 30305)],
    "Serialized model: 67224983 bytes": [("bytes_model", 67224983)],
    "Serialized model int8+zlib: 15815847 bytes": [("bytes_model", 15815847)],
    "Serialized model int6+zstd-22: 15815847 bytes": [("bytes_model", 15815847)],
    "Serialized model int6+lzma-9: 15815847 bytes": [("bytes_model", 15815847)],
    "Serialized model quantized+brotli: 15815847 bytes": [("bytes_model", 15815847)],
    "Serialized model quantized+pergroup: 15815847 bytes": [("bytes_model", 15815847)],
    "Serialized model mixed_int5_int6+brotli: 15815847 bytes": [("bytes_model", 15815847)],
    "Total submission size: 67272625 bytes": [("bytes_total", 67272625)],
    "Total submission size int8+zlib: 15,863,489 bytes": [("bytes_total", 15863489)],
    "Total submission size rdquant+zstd: 15863489 bytes": [("bytes_total", 15863489)],
    "INT7+zlib model: 15815847 bytes | Total submission: 15863489 bytes": [("bytes_model", 15815847), ("bytes_total", 15863489)],
    "artifact:15.92MB ternary:64880640(14.1MB) fp:2542712(2.5MB) code:71034": [("bytes_code", 71034)],
    "budget:15992753/16000000 (15.99/16.00MB) FITS": [("bytes_total", 15992753)],
    "artifact_bytes: 15863489": [("bytes_total", 15863489)],
    "val_bpb: 1.19": [("bpb", 1.19)],
    "model_params:17059912": [("params", 17059912)],
    "model_params: 17,059,912": [("params", 17059912)],
    "params:73685840 L:10 d:768 h:8 kv:4 ws:8 ga:1 s:42": [("params", 73685840)],
    "XNOR-Net LLM | params:42909288": [("params", 42909288)],
    "JEPA | params:42,909,288 (eval:41,000,000 train_only:1,909,288)": [("params", 42909288)],
    "  total: 23,839,044 params": [("params", 23839044)],
    "val_loader:shards pattern=/data/fineweb_val_*.bin tokens:62021632": [("val_tokens", 62021632)],
    "val_tokens: 40540160": [("val_tokens", 40540160)],
    "val tokens: 40540160": [("val_tokens", 40540160)],
    "total_eval_time:415.3s": [("eval_seconds", 415.3)],
}  # fmt: skip


@pytest.mark.parametrize("line", FACTS)
def test_a_fact(line: str) -> None:
    run = read_one(f"\n\n{line}\n")
    assert [(quantity, value) for quantity, value, _ in shown(run)] == FACTS[line]
    assert {reading.line for reading in run.readings} == {3}


@pytest.mark.parametrize(
    ("line", "quantities"),
    [
        (
            "step:100/2000 val_loss:2.5 val_bpb:1.48 train_time:4870ms step_avg:48.70ms",
            "loss bpb train_seconds step_ms steps",
        ),
        ("step:100/2000 val_loss:2.5 val_bpb:1.48 train_time:4870ms zero_frac:0.31", "loss bpb train_seconds steps"),
        ("step:100/2000 val_loss:2.5 train_time:4870ms step_avg:48.70ms", "loss train_seconds step_ms steps"),
        ("100/2000 val_loss: 2.5 val_bpb: 1.48", "loss bpb steps"),
    ],
)
def test_a_validation(line: str, quantities: str) -> None:
    run = read_one(line)
    assert [reading.quantity for reading in run.readings] == quantities.split()
    assert {reading.step for reading in run.readings} == {100}
    assert (run.planned_steps, len(run.curve)) == (2000, 1)


@pytest.mark.parametrize(
    "line",
    [
        "step:10/2000 train_loss:6.1234 train_time:480ms step_avg:48.0ms",
        "step:10/2000 loss:6.1234 t:480ms avg:48.0ms",
        "10/2000 train_loss: 6.1234 train_time: 0.8m tok/s: 8000000",
    ],
)
def test_a_training_step_is_a_point_of_the_curve_only(line: str) -> None:
    run = read_one(f"{line}\nfinal_roundtrip val_loss:1.9 val_bpb:1.14\n")
    assert run.curve == [(10, "t6.1234")]
    assert len(run.readings) == 2


@pytest.mark.parametrize(
    "prefix",
    [
        "1744761600.123 ", "2026-04-01 12:00:00,123 ", "2026-04-01T12:00:00.5Z ", "[2026-04-01 12:00:00] ", "12:00:01 ",
        "[rank0]: ", "[default0]:", "(main pid=71) ", "rank0: ", "node-1 | ", "INFO ", "2026-04-01 12:00:00,123 INFO: ", "12: ",
        "  ",
    ],
)  # fmt: skip
def test_a_prefix_of_time_or_launcher(prefix: str) -> None:
    lines = ("seed:42", "step:5/9 val_loss:2.5 val_bpb:1.48", "final_int6_sliding_window val_loss:1.9 val_bpb:1.14")
    run = read_one("".join(f"{prefix}{line}\n" for line in lines))
    assert run.seed is not None
    assert run.seed.text == "42"
    last = run.readings[-1]
    assert (last.quantity, last.value, last.label, last.line) == ("bpb", 1.14, "final_int6_sliding_window", 3)
    assert run.readings[0].step == 5


@pytest.mark.parametrize(
    "lines",
    ["params:7 L:10 s:42", "seed:42", "seed: 42", "  seed: 42", "seed=42 lr=0.1 steps=9", "lr=0.1 seed=42", "SEED=42"],
)
def test_a_seed(lines: str) -> None:
    run = read_one(f"\n{lines}\nfinal val_loss:1.9 val_bpb:1.14\n")
    assert run.seed is not None
    assert (run.seed.text, run.seed.line) == ("42", 2)


@pytest.mark.parametrize(
    "line", ["data_seed:7", "my_seed=7", "proceed: 7", "seeds: 7", "# seed: 7", 'parser.add("--seed", default=7)']
)
def test_another_word_is_no_seed(line: str) -> None:
    assert read_one(f"{line}\nfinal val_loss:1.9 val_bpb:1.14\n").seed is None


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("train_seed42.log", "42"), ("train_seed007.log", "7"), ("seed_17.txt", "17"),
        ("seed-3.out", "3"), ("ttt/seed_1234.log", "1234"), ("train.log", None), ("seed42/train.log", None),
        ("d6b50d71-f419-4d26-bb39-a60d55ae7a04.txt", None), ("train_v2_int6.log", None), ("sp1024.log", None),
    ],
)  # fmt: skip
def test_the_seed_in_the_name_of_a_log(name: str, seed: str | None) -> None:
    assert file_seed(name) == seed
    assert read_one("final val_loss:1.9 val_bpb:1.14\n", name).file_seed == seed


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ternary_log_1337.txt", "1337"), ("logs/train0.txt", "0"), ("run_s42.log", "42"), ("s1337.txt", "1337"),
        ("42.txt", "42"), ("run1.log", "1"), ("train.log", None), ("sp1024.log", None), ("train_v2_int6.log", None),
    ],
)  # fmt: skip
def test_a_number_in_the_name_of_a_log_may_be_its_seed(name: str, number: str | None) -> None:
    assert file_number(name) == number
    assert file_seed(name) is None


@pytest.mark.parametrize(
    ("printed", "claimed", "seed"),
    [
        ("7", ["7", "8"], "7"),
        ("1337", ["7", "8"], "7"),
        ("8", ["7", "8"], None),
        (None, ["7"], "7"),
        ("1337", [], None),
    ],
)
def test_the_number_is_the_seed_where_claims_say_so(printed: str | None, claimed: list[str], seed: str | None) -> None:
    text = "final val_loss:1.9 val_bpb:1.14\n"
    run = read_one(f"seed:{printed}\n{text}" if printed else text, "log_7.txt")
    claims = [
        Reading(quantity="seed", value=float(s), origin="claimed", source="summary", path="submission.json", text=s)
        for s in claimed
    ]
    submission = Submission(format="any", folder=Path(), name="any", runs=[run], seeds=claims)
    submission.settle_seeds()
    assert run.file_seed == seed


SOURCE = '''import os
seed = 9
def log0(x):
    print(f"final_x val_loss:{x:.4f} val_bpb:{x:.4f}")
"""
model_params:999
final_doc val_loss:9.9000 val_bpb:9.9000
"""
''' + "=" * 100 + "\n"  # fmt: skip
BLOCK = "Hyperparameters:\n  seed: 42\n  vocab_size: 8192\n"
COURSE = "model_params:123\nstep:5/5 val_loss:2.5 val_bpb:1.48\nfinal_roundtrip val_loss:1.9 val_bpb:1.14\n"


@pytest.mark.parametrize(
    "text", [BLOCK + SOURCE + COURSE, SOURCE + BLOCK + COURSE, "=" * 100 + "\n" + SOURCE + BLOCK + COURSE]
)
def test_embedded_source_logs_nothing(text: str) -> None:
    run = read_one(text)
    assert run.seed is not None
    assert (run.seed.text, run.vocab_size) == ("42", 8192)
    assert [reading.value for reading in run.of("bpb")] == [1.48, 1.14]
    assert [reading.value for reading in run.of("params")] == [123]
    assert text.splitlines()[(run.readings[-1].line or 0) - 1].startswith("final_roundtrip")


def test_source_without_an_end_mark_keeps_the_block_before_it() -> None:
    run = read_one(BLOCK + "import os\nprint('val_loss:1.0 val_bpb:1.0')\n" + COURSE)
    assert run.seed is not None
    assert (run.seed.text, run.vocab_size) == ("42", 8192)
    assert [reading.value for reading in run.of("bpb")] == [1.48, 1.14]


def test_a_run_between_a_missed_end_of_source_and_a_line_for_show_is_kept() -> None:
    steps = "".join(f"step:{n}/5 val_loss:2.{n} val_bpb:1.{n}\n" for n in range(1, 4))
    run = read_one("seed:42\nimport os\n" + steps + COURSE.partition("\n")[2] + "=" * 60 + "\ndone\n")
    assert run.seed is not None
    assert [reading.value for reading in run.of("bpb")] == [1.1, 1.2, 1.3, 1.48, 1.14]


@pytest.mark.parametrize(
    "line",
    [
        'print(f"final val_loss:{x:.4f} val_bpb:{y:.4f}")', '        f"step:{step}/{n} val_loss:{v:.4f}"',
        "# final val_loss:1.0 val_bpb:1.0", '"val_bpb": 1.0,', "    log0('final val_loss:1.0 val_bpb:1.0')",
        "- val_bpb: 1.0", "return val_loss, val_bpb", "val_loss:nan val_bpb:nan", "val_bpb:1e999",
    ],
)  # fmt: skip
def test_a_line_that_is_no_evidence(line: str) -> None:
    assert [run.of("bpb") for run in read(f"{line}\nmodel_params:5\n")] == [[]]


def test_a_metric_wrapped_over_two_lines() -> None:
    run = read_one("final_roundtrip_exact val_loss:1.90\n    val_bpb:1.14\nfinal_other val_loss:1.80\nnoise\n")
    assert [(reading.value, reading.line) for reading in run.of("bpb")] == [(1.14, 1)]
    assert run.of("bpb")[0].label == "final_roundtrip_exact"
    assert {reading.value for reading in run.of("loss")} == {1.9, 1.8}


def make_run(seed: int, bpb: str) -> str:
    return f"seed:{seed}\nmodel_params:5\nstep:0/9 val_loss:9.9 val_bpb:4.1\nstep:9/9 val_loss:2.1 val_bpb:1.3\nfinal val_loss:2.0 val_bpb:{bpb}\n"


def test_several_runs_in_one_log() -> None:
    runs = read(make_run(1, "1.21") + make_run(2, "1.22") + make_run(2, "1.23"))
    assert [(run.seed and run.seed.text, run.finals[-1].value, run.first_line) for run in runs] == [
        ("1", 1.21, 1), ("2", 1.22, 6), ("2", 1.23, 11)
    ]  # fmt: skip


@pytest.mark.parametrize("first", ["seed:", "model_params:", "step:0/"])
def test_a_run_after_a_finished_one_begins_at_any_of_its_first_lines(first: str) -> None:
    text = make_run(1, "1.21")
    second = make_run(2, "1.22")
    runs = read(text + second[second.index(first) :])
    assert [run.finals[-1].value for run in runs] == [1.21, 1.22]


def test_two_evaluations_of_one_run_are_no_two_runs() -> None:
    run = read_one(make_run(1, "1.21") + "final_int6_ttt val_loss:3.0 val_bpb:1.33\nTotal submission size: 7 bytes\n")
    assert [reading.value for reading in run.finals] == [1.21, 1.33]


def test_a_sliding_evaluation_mode_changes_what_the_round_trip_is() -> None:
    run = read_one("final_eval_mode:sliding_window stride:64\nfinal_int8_zlib_roundtrip val_loss:1.9 val_bpb:1.14\n")
    assert {reading.stage for reading in run.readings} == {"sliding"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("budget:16092753/16000000 (16.09/16.00MB) OVER", "violations"), ("OVER BUDGET by 92753 bytes", "violations"),
        ("artifact exceeds the 16MB limit", "violations"), ("valid: false", "violations"), ("valid: true", ""),
        ("budget:15992753/16000000 (15.99/16.00MB) FITS", ""), ("artifact_production_wallclock: 605.1s (must be < 600.0)", "overruns"),
        ("artifact_production_wallclock: 595.1s (must be < 600.0)", ""), ("eval: 500 batches (limited)", "limits"),
        ("val_max_tokens: 1000000", "limits"), ("val_max_tokens: 0", ""),
    ],
)  # fmt: skip
def test_what_a_log_says_of_itself(line: str, kind: str) -> None:
    run = read_one(f"model_params:5\n{line}\n")
    said = {name: [statement.line for statement in getattr(run, name)] for name in ("violations", "overruns", "limits")}
    assert said == {"violations": [], "overruns": [], "limits": []} | ({kind: [2]} if kind else {})


def test_calibration_vocabulary_and_data_set() -> None:
    run = read_one(
        "vocab_size:1024\ntrain_loader:dataset:fineweb10B_sp1024 shards:80\nGPTQ:collected 66 Hessians in 3.5s\nmodel_params:5\n"
    )
    assert run.calibration is not None
    assert (run.vocab_size, run.dataset, run.calibration.value) == (1024, "fineweb10B_sp1024", 3.5)


def test_junk_is_read_and_said() -> None:
    reader = RunReader("train.log")
    reader.read(BytesIO(b"\x00\xff" + b"x" * 200_000 + b" val_bpb:1\nfinal val_loss:1.9 val_bpb:1.14\n"))
    assert [problem.path for problem in reader.problems()] == ["train.log"] * 2
    assert reader.runs[-1].readings[-1].line == 2


@given(
    st.lists(
        st.sampled_from(
            [
                *FACTS,
                *FINALS,
                "seed:1",
                "import os",
                "=" * 50,
                "val_loss:1",
                "val_bpb:2",
                "\x00",
                "}{",
                "step:0/1 val_loss:1",
            ]
        ),
        max_size=12,
    )
)
def test_any_order_of_lines_is_read(lines: list[str]) -> None:
    for run in read("\n".join(lines)):
        assert run.readings
        assert all(1 <= (reading.line or 0) <= len(lines) for reading in run.readings)


@given(st.binary(max_size=400))
def test_any_bytes_are_read(raw: bytes) -> None:
    read(b"final val_loss:1.9 val_bpb:" + raw + b"\nval_loss:" + raw)
