"""READMEs in any state: which cells, items and sentences are claims, and which are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.markdown import read_readme
from harness.records.readme_claims import Readme
from harness.records.readme_tables import split_cells
from harness.records.submission import Reading


def read(text: str) -> Readme:
    return read_readme(text.encode(), "README.md")


def table(*rows: str) -> str:
    head, *body = rows
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in body)]) + "\n"


def claims(text: str) -> list[tuple[str, float, str | None, str]]:
    return [(c.quantity, round(c.value, 9), c.seed, c.statistic) for c in read(text).claims]


def headlines(text: str) -> list[Reading]:
    return [claim for claim in read(text).claims if claim.is_headline]


# Tables

BY_SEED = table("Seed | Steps | val_bpb | Artifact", "42 | 5,180 | 1.0894 | 15.99 MB", "**7** | 5178 | **1.0901** | 15,980,112",
                "**Mean** | | **1.08975** | ", "Std | | 0.0005 |")  # fmt: skip


def test_a_table_by_seed() -> None:
    assert claims(f"# Title\n\n{BY_SEED}") == [
        ("steps", 5180, "42", "value"), ("bpb", 1.0894, "42", "value"), ("bytes_total", 15_990_000, "42", "value"),
        ("steps", 5178, "7", "value"), ("bpb", 1.0901, "7", "value"), ("bytes_total", 15_980_112, "7", "value"),
        ("bpb", 1.08975, None, "mean"), ("bpb", 0.0005, None, "std"),
    ]  # fmt: skip


def test_cells_carry_line_heading_print_and_precision() -> None:
    readme = read(f"# Title\n\n{BY_SEED}")
    score = next(claim for claim in readme.claims if claim.value == 1.0894)
    assert (score.path, score.line, score.label, score.text) == ("README.md", 5, "val_bpb", "1.0894")
    assert score.last_place == pytest.approx(1e-4)
    assert [(seed.text, seed.line) for seed in readme.seeds] == [("42", 5), ("7", 6)]


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: t.replace("|---|", "| :-: |", 1),
                                    lambda t: t.replace("\n| ", "\n").replace(" |\n", "\n")])  # fmt: skip
def test_line_ends_marks_and_missing_border_pipes_do_not_matter(change: object) -> None:
    assert callable(change)
    text = f"# Title\n\n{BY_SEED}"
    assert claims(change(text)) == claims(text)


def test_a_turned_table() -> None:
    text = table(
        "Metric | Seed 42 | Seed 007 | Mean", "val_bpb | 1.08 | 1.10 | 1.09", "Steps | 5 | 6 |", "Hardware | a | b |"
    )
    assert claims(text) == [
        ("bpb", 1.08, "42", "value"), ("bpb", 1.1, "7", "value"), ("bpb", 1.09, None, "mean"),
        ("steps", 5, "42", "value"), ("steps", 6, "7", "value"),
    ]  # fmt: skip
    assert [seed.text for seed in read(text).seeds] == ["42", "7"]


def test_a_table_of_metric_and_value() -> None:
    text = table(
        "Metric | Value",
        "**val_bpb** | `1.0894`",
        "Baseline BPB | 1.2244",
        "Δ BPB | -0.1",
        "Artifact | 15.99 MB",
        "Layers | 11",
    )
    assert claims(text) == [("bpb", 1.0894, None, "value"), ("bytes_total", 15_990_000, None, "value")]


def test_a_training_curve() -> None:
    text = table("Step | val_bpb | lr", "1,000 | 1.30 | 0.1", "2k | 1.20 | 0.2", "end | 1.1 | 0")
    assert [(c.step, c.value) for c in read(text).claims] == [(1000, 1.3), (2000, 1.2)]


@pytest.mark.parametrize(
    "text",
    [
        table("Config | val_bpb", "11 layers | 1.08", "9 layers | 1.09"),
        table("Change | BPB | Δ", "no XSA | 1.08 | 0.1"),
        table("PR | val_bpb", "#1019 | 1.1147"),
        table("Seed | Baseline BPB | Δ BPB", "42 | 1.08 | 0.1"),
        table("Step | config | val_bpb", "1000 | wide | 1.08"),
        "```\n" + BY_SEED + "```\n",
        "| Seed | val_bpb |\n| 42 | 1.08 |\n",
    ],
)
def test_ablations_comparisons_and_code_are_left_alone(text: str) -> None:
    assert claims(text) == []


def test_rows_of_unlike_length_are_read_as_far_as_they_go() -> None:
    text = table("Seed | val_bpb | Steps", "42", "7 | 1.08", "8 | 1.09 | 5 | 6", "note | 1.1 | 3")
    assert claims(text) == [("bpb", 1.08, "7", "value"), ("bpb", 1.09, "8", "value"), ("steps", 5, "8", "value")]


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ("| a | b |", ["a", "b"]), ("a | b", ["a", "b"]), (r"| a \| b | c |", [r"a \| b", "c"]), ("|a||b|", ["a", "", "b"]),
        ("| a | | b |", ["a", "", "b"]), ("|a|b| |", ["a", "b", ""]), ("a|", ["a"]),
    ],
)  # fmt: skip
def test_cells_are_split_at_unescaped_pipes(line: str, cells: list[str]) -> None:
    assert split_cells(line) == cells


def test_an_escaped_pipe_moves_no_column() -> None:
    text = table(r"Seed | note \| more | val_bpb", r"42 | x \| 2.5 | 1.08")
    assert claims(text) == [("bpb", 1.08, "42", "value")]


def test_a_table_of_differences() -> None:
    text = table("Metric | PR #12 | Ours | Δ", "val_bpb | 1.10 | 1.08 | -0.02", "note | a | b | c")
    ((first, second, claimed),) = read(text).differences
    assert (first.value, second.value, claimed.value, claimed.line) == (1.1, 1.08, -0.02, 3)


# Headlines

HEADLINES = [
    "# A title, val_bpb: 1.0894", "# 1.0894 BPB: a title", "## Result — val_bpb 1.0894", "**val_bpb: 1.0894**", "**val_bpb = 1.0894**",
    "**Val BPB: 1.0894** vs PR #12 1.1000", "**1.0894 BPB** (vs 1.1147 SOTA)", "**BPB 1.0894** from 1.1000", "val_bpb: 1.0894",
    "- **val_bpb**: 1.0894", "* `val_bpb`: `1.0894`", "1. val_bpb: 1.0894", "**Final: 1.0894 bpb, val_loss 2.5067**",
    "**Best of 3: 1.0894 bpb**", "**val_bpb: 1.0894** over the baseline's 1.2244 BPB", "Score: val_bpb of 1.0894",
]  # fmt: skip
NO_HEADLINES = [
    "We hope to reach 1.0894 BPB.", "baseline val_bpb: 1.2244", "**PR #12: 1.1000 BPB**, ours is lower", "### Pre-quant val_bpb: 1.0894",
    "> val_bpb: 1.0894", "**-0.0050 BPB**", "**1.2x BPB**", "**val_bpb: 12.0894**", "```\n**val_bpb: 1.0894**\n```",
    "**previous record 1.1147 BPB**", "<!-- val_bpb 1.1 -->",
]  # fmt: skip


@pytest.mark.parametrize("text", HEADLINES)
def test_a_headline(text: str) -> None:
    (claim,) = headlines(f"\n\n{text}\n")
    assert (claim.quantity, claim.value, claim.line) == ("bpb", 1.0894, 3)


@pytest.mark.parametrize("text", NO_HEADLINES)
def test_no_headline(text: str) -> None:
    assert headlines(text) == []


def test_only_the_first_score_is_the_headline_and_only_near_the_top() -> None:
    assert [c.value for c in headlines("**1.08 BPB**\n\n**1.0812 BPB**\n\n**1.0899 BPB**\n")] == [1.0812]
    assert headlines("filler\n" * 30 + "**1.0812 BPB**\n") == []


def test_what_stands_beside_a_headline() -> None:
    text = "**val_bpb: 1.0894** (3-seed mean, std 0.0005) | **15.99 MB** max | val_loss 2.5067\n\nA model of 26.5M parameters.\n"
    found = {(c.quantity, c.statistic): c.value for c in read(text).claims}
    assert found[("bpb", "mean")] == 1.0894
    assert found[("bpb", "std")] == 0.0005
    assert found[("num_seeds", "value")] == 3
    assert found[("bytes_total", "value")] == 15_990_000
    assert found[("loss", "mean")] == 2.5067
    assert found[("params", "value")] == 26_500_000


# Labels and sentences


@pytest.mark.parametrize(
    ("line", "quantity", "value"),
    [
        ("- Artifact: 15,999,533 bytes", "bytes_total", 15_999_533), ("* **Artifact size**: 15.99 MB", "bytes_total", 15_990_000),
        ("- Steps: 5180", "steps", 5180), ("- Training time: 600s", "train_seconds", 600), ("Train time: 10 minutes", "train_seconds", 600),
        ("- Params: 26.5M", "params", 26_500_000), ("- ms/step: 48.7", "step_ms", 48.7), ("- Code size: 47,642 bytes", "bytes_code", 47642),
        ("- pre-quant val_bpb: 1.0950", "bpb", 1.095), ("- Eval time: 83s", "eval_seconds", 83),
        ("- Total submission size int8+zlib: 15863489 bytes", "bytes_total", 15863489),
        ("- Serialized model int8+zlib: 15815847 bytes (payload)", "bytes_model", 15815847),
        ("- Timed training stopped at `13780/20000` steps", "steps", 13780), ("Training stopped early at 5,180 steps.", "steps", 5180),
        ("5,180 steps in 600s", "steps", 5180), ("- val_loss: 2.5067", "loss", 2.5067),
    ],
)  # fmt: skip
def test_a_labelled_number(line: str, quantity: str, value: float) -> None:
    assert (quantity, value) in [(c.quantity, c.value) for c in read(f"# T\n\n{line}\n").claims]


@pytest.mark.parametrize(
    "line",
    [
        "- steps: 5180/20000", "- Steps: 5000 -> 5180", "- Delta: -0.002", "- Baseline artifact: 15.9 MB", "- Artifact: 15.9 MB vs 15.8 MB",
        "- Artifact: small", "- Layers: 11", "- Iterations: 20000", "- MATRIX_LR: 0.04", "- Steps: x", "- Train time: 15 MB",
        "- Artifact: 600s", "Previously 5,180 steps in 600s", "~5,180 steps in 600s", "    Artifact", "- Val loss: 15 MB",
    ],
)  # fmt: skip
def test_a_label_that_is_no_claim(line: str) -> None:
    assert claims(f"# T\n\n{line}\n") == []


def test_a_seed_that_is_only_mentioned() -> None:
    (seed,) = read("# T\n\n- seed: `042`\n").seeds
    assert (seed.text, seed.is_reference, seed.line) == ("42", True, 3)


@pytest.mark.parametrize(
    "text",
    ["-0.0025 BPP (-0.0055 nats) vs PR #9", "gains 0.0055 nats, that is 0.0025 BPB", "−0.0025 bpb and −0.0055 nats"],
)
def test_a_difference_in_two_units(text: str) -> None:
    ((bpb, nats),) = read(text).pairs
    assert (bpb.value, nats.value, bpb.quantity, nats.quantity) == (0.0025, 0.0055, "bpb", "loss")


def test_commands_are_read_from_code_only() -> None:
    text = "python a.py\n```bash\nSEED=1 torchrun --standalone train\\_gpt.py --x=1\npython3 eval/b.py\n# python c.py\nls  # python d.py\n```\n"
    assert [(command.text, command.line) for command in read(text).commands] == [("train_gpt.py", 3)]


def test_an_unclosed_fence_hides_the_rest() -> None:
    assert claims(f"~~~\n```\n{BY_SEED}") == []


@given(
    st.lists(
        st.sampled_from(
            [*HEADLINES, *NO_HEADLINES, *BY_SEED.splitlines(), "```", "| --- |", "|", "\\|", "\x1b[31m", "- Steps: 9"]
        ),
        max_size=30,
    )
)
def test_lines_in_any_order_are_read(lines: list[str]) -> None:
    for claim in read("\n".join(lines)).claims:
        assert 1 <= (claim.line or 0) <= sum(line.count("\n") + 1 for line in lines)


@given(st.binary(max_size=500))
def test_any_bytes_are_read(raw: bytes) -> None:
    assert read_readme(b"| Seed | bpb |\n|---|---|\n| 1 |" + raw, "README.md").text
