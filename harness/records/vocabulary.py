"""What the names of strangers mean: JSON keys, table headings, labels of lists and of log lines.

One vocabulary for all of them. A name says a quantity ("val_bpb"), the stage of the run at which it was measured
("sliding"), a statistic over seeds ("std"), and whether it speaks of another run ("base_val_bpb").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Quantity = Literal[
    "bpb", "loss", "bytes_total", "bytes_code", "bytes_model", "params", "steps", "train_seconds", "eval_seconds",
    "step_ms", "seed", "num_seeds", "p_value", "t_statistic", "val_tokens",
]  # fmt: skip
Stage = Literal["", "pre_quant", "roundtrip", "sliding", "pre_ttt", "ttt"]
Statistic = Literal["value", "mean", "std", "min", "max", "delta"]

_TIME = r"(time|seconds|secs|minutes|mins|duration)"
# The first pattern that is found wins. Names are normalised: lower case, words joined and framed by "_".
_QUANTITIES: tuple[tuple[Quantity, str], ...] = (
    ("p_value", r"_p_?val(ue)?_|^_p_$"),
    ("t_statistic", r"_t_?stat(istic)?_|_t_value_"),
    ("num_seeds", r"_(n|num|number_of)_seeds_"),
    ("seed", r"^_(random_)?seeds?_$"),
    ("val_tokens", r"_val(idation)?_tokens_"),
    (
        "bpb",
        r"^_((pre_|post_)?(ttt|quant)_)?(sliding|roundtrip|ttt|ema|quantized)_mean_$"
        r"|_(bpb|bpp|mbpb|mbpp|bits_per_byte|bits_byte)_|bpb_|_bpb",
    ),
    ("step_ms", r"_step_avg_|_ms_(per_)?step_|_step_time_|_avg_step_"),
    ("eval_seconds", rf"_(eval|evaluation|ttt|ttt_eval|sliding)_(wallclock_)?{_TIME}_"),
    ("train_seconds", rf"_(train|training)_(wallclock_|wall_)?{_TIME}_|_wall_?(clock|time)_"),
    ("bytes_total", r"_(with|incl|including|plus|and)_(the_)?code_"),
    ("bytes_code", r"^_code_$|_(bytes_code|code_(size|bytes))_"),
    (
        "bytes_model",
        r"_bytes_model_|_(model|weights|payload)_(bytes|size)_|_serialized_model_|_compressed_(model|artifact|weights)_",
    ),
    (
        "bytes_total",
        r"_(bytes_total|total_bytes|artifact_bytes|artifact_size|size_bytes|submission_(size|bytes)"
        r"|total_submission|artifact|max_artifact|total_size|file_size|bytes)_|^_(size|total)_$|^_total_(artifact|bytes)",
    ),
    ("params", r"_(model_|num_|n_|total_|trainable_)?param(eter)?s?(_count)?_$|_model_param(eter)?s_|_params_"),
    (
        "steps",
        r"^_((train|training|total|num|n|completed|final|stop)_)?steps?(_(stop|completed|trained|mean|avg|reached))*_$",
    ),
    ("loss", r"_(val|validation|eval|test|slide|sliding|rt|roundtrip)_loss_|_loss_nats_|_nats_|_nats$|^_loss_$"),
)  # fmt: skip
_STAGES: tuple[tuple[Stage, str], ...] = (
    ("pre_ttt", r"_(pre|no|before|without|w_o)_(legal_)?ttt_"),
    ("ttt", r"_ttt_|ttt|_lora_|_phased_"),
    (
        "pre_quant",
        r"_(pre|before|un)_?quant|_post_?ema_|_ema_|_raw_|_fp32_|_bf16_|_float_|_last_step_|_pre_compression_",
    ),
    ("sliding", r"slid|_sw_|_s(16|32|64|128|256)_|_stride_"),
    ("roundtrip", r"round_?trip|_rt_|quant|_int\d|ternary|binary|_xnor_|_gptq_|_final_"),
)
_STATISTICS: tuple[tuple[Statistic, str], ...] = (
    (
        "delta",
        r"_(delta|gain|gains|improvement|diff|difference|change|reduction|penalty|gap|vs|headroom|mbpp|mbpb|effect)_",
    ),
    ("std", r"_(std|stdev|stddev|std_dev|sd|sigma|deviation|stderr|sem)_"),
    ("mean", r"_(mean|avg|average|averaged)_"),
    ("max", r"_(max|maximum|largest|worst)_"),
    ("min", r"_(min|minimum|smallest|best)_"),
)
_REFERENCE = (
    r"_(base|baseline|comparison|prior|previous|prev|sota|leaderboard|record|reference|ref|pr|parent|upstream|old|"
    r"naive|merged|author|authors|theirs|their|upstream|target|goal|threshold|limit|cap|budget|disclosure|rerun|ablation|ablations|other|original|others)_|_pr\d+_"
)
# What a run may spend, what it trained on, and scores divided by something are no results.
_NO_RESULT = r"_train(ing)?_loss_|_max_wall_?(clock|time)_|_(bpb|bpp)_(per_)?(mb|mib|param|step)_|_efficiency_"
MAX_NAME_CHARACTERS = 200
_WORDS = re.compile(r"[^a-z0-9Δδσ]+")
_SYMBOLS = (("Δ", "_delta_"), ("δ", "_delta_"), ("σ", "_std_"), ("±", "_std_"), ("ms/step", "_ms_per_step_"))


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name says; see the module.

    Attributes:
        quantity: what is measured.
        stage: of the run at which it was; empty where the name does not say.
        statistic: over seeds, "value" for a single one.
        is_reference: whether the name speaks of another run, a limit or a disclosure.
    """

    quantity: Quantity
    stage: Stage = ""
    statistic: Statistic = "value"
    is_reference: bool = False


def normalise(name: str) -> str:
    """Return a name in lower case with its words joined and framed by "_"."""
    text = name[:MAX_NAME_CHARACTERS]
    for symbol, word in _SYMBOLS:
        text = text.replace(symbol, word)
    return f"_{_WORDS.sub('_', text.lower()).strip('_')}_"


def read_name(name: str) -> Meaning | None:
    """Return what a key, heading or label means, or None where it names nothing that is judged."""
    return _read_name(name[:MAX_NAME_CHARACTERS])


@lru_cache(maxsize=4096)
def _read_name(name: str) -> Meaning | None:
    text = normalise(name)
    quantity = next((quantity for quantity, pattern in _QUANTITIES if re.search(pattern, text)), None)
    if quantity is None or re.search(_NO_RESULT, text):
        return None
    found = (statistic for statistic, pattern in _STATISTICS if re.search(pattern, text))
    statistic: Statistic = next(found, "value")
    return Meaning(
        quantity=quantity,
        stage=read_stage(text),
        statistic=statistic,
        is_reference=re.search(_REFERENCE, text) is not None,
    )


def read_stage(name: str) -> Stage:
    """Return the stage that a name speaks of; empty where it speaks of none."""
    text = name if name.startswith("_") else normalise(name)
    return next((stage for stage, pattern in _STAGES if re.search(pattern, text)), "")


def speaks_of_other_runs(text: str) -> bool:
    """Whether a key, heading or sentence speaks of a baseline, a former record or another submission."""
    return re.search(_REFERENCE, normalise(text)) is not None or "#" in text
