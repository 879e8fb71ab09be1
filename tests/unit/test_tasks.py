"""Tasks of lm-evaluation-harness on a record: log-probabilities by hand, a local task file, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_models import NUM_ROWS, NUM_TOKENS, make_config, make_model, tokenizer_json

from harness.cli import run_command
from harness.data.model_tokenizer import ModelTokenizer, make_blob
from harness.errors import UsageError
from harness.loading import LoadedArtifact
from harness.method import Task
from harness.pretrained.network import PretrainedNetwork
from harness.pretrained.residual import ResidualModel

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra tasks")

from lm_eval.api.instance import Instance  # noqa: E402

from harness.tasks.model import RecordModel  # noqa: E402
from harness.tasks.run import resolve_tasks  # noqa: E402

CONTEXT = 32
QUESTIONS = [
    {"question": "the lazy dog", "choices": [" sleeps", " jumps over the brown fox"], "answer": 0},
    {"question": "the quick brown", "choices": [" dog", " fox"], "answer": 1},
    {"question": "and then", "choices": [" lazy lazy lazy", " the dog"], "answer": 1},
]


class _Method:
    task = Task(vocab_size=NUM_TOKENS, context=CONTEXT)


@pytest.fixture(scope="module")
def loaded() -> LoadedArtifact:
    network = PretrainedNetwork(ResidualModel(make_model(make_config("opt", tie_word_embeddings=True)))).eval()
    tokenizer = ModelTokenizer(make_blob(tokenizer_json().encode(), 1))
    return LoadedArtifact(artifact=None, method=_Method(), network=network, tokenizer=tokenizer)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(loaded: LoadedArtifact) -> RecordModel:
    return RecordModel(loaded)


def ask(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    return [
        Instance(request_type=kind, doc={}, arguments=given, idx=index)  # type: ignore[arg-type]
        for index, given in enumerate(arguments)
    ]


@torch.no_grad()
def nats_by_hand(loaded: LoadedArtifact, tokens: list[int], num_scored: int) -> tuple[float, bool]:
    logits = loaded.network(torch.tensor([tokens[:-1]]))[0, -num_scored:]
    targets = torch.tensor(tokens[-num_scored:])
    return -float(F.cross_entropy(logits, targets, reduction="sum")), bool((logits.argmax(-1) == targets).all())


def test_log_probabilities_are_those_of_the_network_whatever_the_batch(
    loaded: LoadedArtifact, model: RecordModel
) -> None:
    pairs = [("the lazy dog", " sleeps"), ("", "fox"), ("and then the ", "dog jumps"), ("a" * 90, " dog")]
    answers = model.loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True)
    encode = loaded.tokenizer.encode
    for (context, continuation), answer in zip(pairs, answers, strict=True):
        kept = context.rstrip()
        whole = [1, *encode((context + continuation).encode()).tolist()]
        num_scored = len(whole) - 1 - len(encode(kept.encode()))
        expected = nats_by_hand(loaded, whole[-(CONTEXT + 1) :], num_scored)
        assert answer[0] == pytest.approx(expected[0], rel=1e-5)
        assert answer[1] == expected[1]


def test_a_document_is_scored_once_in_windows_that_share_a_token(loaded: LoadedArtifact, model: RecordModel) -> None:
    text = "the quick brown fox jumps over a lazy dog; zebras!" * 2
    (answer,) = model.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    tokens = [1, *loaded.tokenizer.encode(text.encode()).tolist()]
    tokens = [1, *tokens]  # lm-evaluation-harness puts its prefix before what the tokenizer begins with
    assert len(tokens) > 2 * CONTEXT
    total, start = 0.0, 1
    while start < len(tokens):
        stop = min(start + CONTEXT, len(tokens))
        window = tokens[max(0, stop - 1 - CONTEXT) : stop] if stop == len(tokens) else tokens[start - 1 : stop]
        total += nats_by_hand(loaded, window, stop - start)[0]
        start = stop
    assert answer == pytest.approx(total, rel=1e-5)


def test_generation_is_greedy_and_ends_where_asked(loaded: LoadedArtifact, model: RecordModel) -> None:
    (long,) = model.generate_until(ask("generate_until", ("the dog", {"until": [], "max_gen_toks": 5})))
    tokens = [1, *loaded.tokenizer.encode(b"the dog").tolist()]
    for _ in range(5):
        with torch.no_grad():
            logits = loaded.network(torch.tensor([tokens]))[0, -1, :NUM_TOKENS]
        tokens.append(int(logits.argmax()))
        if tokens[-1] == 1:
            break
    made = tokens[1 + len(loaded.tokenizer.encode(b"the dog")) :]
    assert long == loaded.tokenizer.decode(made).decode(errors="replace")
    (short,) = model.generate_until(ask("generate_until", ("the dog", {"until": [long[1:2]], "max_gen_toks": 5})))
    assert short == long[: long.index(long[1:2])]
    with pytest.raises(UsageError, match="greedily only"):
        model.generate_until(ask("generate_until", ("the dog", {"do_sample": True})))


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    (folder / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    (folder / "dogs.yaml").write_text(
        f"""
task: dogs
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / "data.jsonl"}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 3.0
"""
    )
    return folder / "dogs.yaml"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record folder whose artifact is real; what else it says is taken from the run that made it."""
    from tiny_models import TEXT, write_model

    root = tmp_path_factory.mktemp("records")
    folder = write_model(root / "model", "qwen2", tie_word_embeddings=True)
    (root / "text.txt").write_text(TEXT * 2, encoding="utf-8")
    settings = ["--set", "train.context=32", "--set", "train.batch_tokens=32", "--set", "train.micro_batch_tokens=32"]
    run = ["run", "--method", "procrustes", "--preset", "tiny", "--model", str(folder), *settings]
    assert run_command([*run, "--data", f"text:{root / 'text.txt'}", "--out", str(root / "record")]) == 0
    return root / "record"


def test_a_local_task_on_a_record(record: Path, task_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.loading import load_artifact

    command = ["evaluate", str(record), "--tasks", str(task_file), "--device", "cpu", "--format", "json"]
    assert run_command(command) == 0
    ((found,),) = [json.loads(capsys.readouterr().out)]
    (score,) = found["scores"]
    opened = load_artifact(record / "artifact.bin")
    right = []
    for each in QUESTIONS:
        nats = []
        for choice in each["choices"]:  # type: ignore[attr-defined]
            context = opened.tokenizer.encode(str(each["question"]).encode())
            whole = opened.tokenizer.encode(f"{each['question']}{choice}".encode())
            nats.append(nats_by_hand(opened, [1, *whole.tolist()], len(whole) - len(context))[0])
        right.append(nats.index(max(nats)) == each["answer"])
    mean = sum(right) / 3
    assert (score["task"], score["metric"], score["num_samples"], score["version"]) == ("dogs", "acc", 3, "3.0")
    assert score["value"] == pytest.approx(mean)
    assert score["standard_error"] == pytest.approx((mean * (1 - mean) / 2) ** 0.5)
    assert run_command([*command[:-2], "--limit", "2"]) == 0
    assert "2 PARTIAL" in capsys.readouterr().out


def test_data_that_cannot_be_had_ends_with_its_own_exit_code(
    record: Path, task_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.yaml"
    absent.write_text(task_file.read_text().replace("data.jsonl", "absent.jsonl"))
    assert run_command(["evaluate", str(record), "--tasks", str(absent), "--device", "cpu"]) == 4
    assert "the data of a task cannot be had" in capsys.readouterr().err.splitlines()[-1]


def test_a_template_that_is_wrong_is_the_users(
    record: Path, task_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = task_file.with_name("template.yaml")
    broken.write_text(task_file.read_text(encoding="utf-8").replace("{{question}}", "{{question|absent}}"))
    assert run_command(["evaluate", str(record), "--tasks", str(broken), "--device", "cpu"]) == 2
    assert "lm-evaluation-harness cannot run it (No filter named 'absent'" in capsys.readouterr().err


def test_what_cannot_be_run_is_said_in_one_line(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Few:
        """In the place of a reader of thousands of files."""

        all_tasks = ("hellaswag", "heads", "arc_easy")

        def __init__(self, *, include_defaults: bool) -> None:
            assert include_defaults == (tasks == "hellaswagg")

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Few)
    (tmp_path / "broken.yaml").write_text("task: [")
    for tasks, said in (
        ("hellaswagg", "has no such task. Did you mean 'hellaswag'?"),
        (str(tmp_path / "absent.yaml"), "no such file"),
        (str(tmp_path / "broken.yaml"), "not a task that can be read"),
        (",", "--tasks is empty"),
    ):
        with pytest.raises(UsageError) as error:
            resolve_tasks(tasks)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    assert run_command(["evaluate", str(record), "--tasks", "x", "--samples", "2x2"]) == 2
    assert "drop --samples" in capsys.readouterr().err
    assert run_command(["evaluate", str(record), "--limit", "2"]) == 2


def test_the_table_of_the_model_is_larger_than_its_vocabulary(loaded: LoadedArtifact) -> None:
    assert loaded.network(torch.zeros(1, 1, dtype=torch.long)).size(-1) == NUM_ROWS > NUM_TOKENS
