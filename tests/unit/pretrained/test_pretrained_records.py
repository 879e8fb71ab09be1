"""Records of pretrained models from the command line: run, verify, show, export; what is refused, in one line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import NUM_TOKENS, TEXT, make_config, put_into_cache, tokenizer_json, write_model

from harness import beside
from harness.cli import run_command
from harness.data.model_tokenizer import ModelTokenizer, make_blob
from harness.errors import DataError, RecordError, RunError, UsageError
from harness.pretrained.load import load_pretrained
from harness.pretrained.source import load_source, reload_source
from harness.records.native import read_record

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

ALONE = ["--set", "comparison=false"]
CONTEXT = ["--preset", "tiny", "--set", "train.context=32", "--set", "train.batch_tokens=32"]
TINY = [*CONTEXT, *ALONE]
RUN = ["run", "--method", "procrustes", *TINY, "--set", "train.micro_batch_tokens=32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny-opt", "opt", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT * 3, encoding="utf-8")
    return f"text:{path}"


@pytest.fixture(scope="module")
def record(model: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "opt"
    more = ["--set", "skips=cayley", "--eval-mode", "disjoint"]
    assert run_command([*RUN, "--model", str(model), "--data", data, *more, "--out", str(folder)]) == 0
    return folder


def test_the_record_says_where_it_comes_from_and_verifies(
    record: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_record(record)
    (ancestor,) = found.lineage
    source = load_source(str(model))
    assert (ancestor.kind, ancestor.name, ancestor.spent) == ("pretrained", "tiny-opt", None)
    assert ancestor.artifact_sha256 == source.sha256
    assert found.data.tokenizer.begins_texts
    assert found.data.tokenizer.vocab_size == NUM_TOKENS
    assert found.budget.spent.steps == 0
    assert found.metrics.test is not None
    assert found.metrics.test.eval_mode.mode == "disjoint"
    assert found.metrics.test == found.metrics.test.model_copy()
    assert run_command(["verify", str(record), "--level", "decode"]) == 0
    assert "what its training cost is unknown" in capsys.readouterr().out
    assert run_command(["show", str(record)]) == 0
    shown = capsys.readouterr().out
    assert "tiny-opt, a pretrained model" in shown
    assert "perplexity" in shown


def test_a_run_ends_with_what_it_has_to_beat(
    model: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "opt"
    run = ["run", "--method", "procrustes", *CONTEXT, "--set", "train.micro_batch_tokens=32", "--set", "share=0.7"]
    more = ["--set", "calibration_tokens=64", "--eval-mode", "disjoint"]
    assert run_command([*run, "--model", str(model), "--data", data, *more, "--out", str(folder)]) == 0
    shown = capsys.readouterr().out
    rows = {row.name: row for row in read_record(folder).beside}
    own, dense = rows.pop("rotation"), rows.pop("dense")
    assert {"no rotation", "truncated SVD", "whitened SVD", "slicing", "the same of Gaussian weights"} <= rows.keys()
    assert all(row.num_params <= own.num_params < dense.num_params for row in rows.values())
    assert own.more_nats is None
    assert dense.more_nats is not None
    assert math.log(dense.perplexity / own.perplexity) == pytest.approx(dense.more_nats)
    # norms of OPT remove a direction, in the row as in the record
    assert own.num_params == read_record(folder).params.stored
    assert all(name in shown for name in ("no rotation", "truncated SVD", "slicing"))
    assert run_command(["verify", str(folder), "--level", "decode"]) == 0


def test_other_ways_are_not_compared_on_another_model(
    model: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_moved(source: str, *, dtype: torch.dtype) -> Any:
        moved = load_pretrained(source, dtype=dtype)
        next(moved.parameters()).data += 1e-3
        return moved

    monkeypatch.setattr(beside, "load_pretrained", load_moved)
    folder = tmp_path / "opt"
    run = ["run", "--method", "procrustes", *CONTEXT, "--set", "train.micro_batch_tokens=32", "--set", "share=0.7"]
    assert (
        run_command([*run, "--model", str(model), "--data", data, "--eval-mode", "disjoint", "--out", str(folder)]) == 0
    )
    assert "is another one now than at the start" in " ".join(capsys.readouterr().err.split())
    assert read_record(folder).beside == []


def test_the_disjoint_score_is_the_perplexity_of_the_usual_recipe(record: Path, data: str) -> None:
    from harness.artifact.container import Artifact
    from harness.data.shards import prepare
    from harness.loading import load_artifact
    from harness.pretrained.perplexity import window_perplexity

    loaded = load_artifact(record / "artifact.bin")
    text = prepare(data, tokenizer=loaded.tokenizer)
    tokens = torch.from_numpy(text.open_test("check").tokens.astype("int64"))
    tokens = torch.cat((torch.tensor([1]), tokens))  # <s>, as the tokenizer writes it
    windows_BT = tokens[: len(tokens) // 32 * 32].view(-1, 32)
    expected = window_perplexity(loaded.network.model, windows_BT)
    found = read_record(record).metrics.test
    assert found is not None
    assert found.perplexity == pytest.approx(expected, rel=1e-5)
    assert found.num_tokens == windows_BT[:, 1:].numel()
    assert Artifact.open(record / "artifact.bin").blob("tokenizer").endswith(tokenizer_json().encode())


def test_export_writes_a_folder_that_transformers_loads(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.loading import load_artifact

    folder = tmp_path / "hf"
    assert run_command(["export", str(record), "--format", "hf", str(folder)]) == 0
    assert "(rounding)" in capsys.readouterr().out
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the lazy dog", return_tensors="pt").input_ids
    assert ids[0, 0] == 1
    with torch.no_grad():
        expected = load_artifact(record / "artifact.bin").network(ids)
        assert (model(ids).logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (folder / "tokenizer.json").read_text(encoding="utf-8") == tokenizer_json()
    assert run_command(["export", str(record), str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert run_command(["export", str(record), str(tmp_path / "x"), "--format", "gguf"]) == 2


def test_a_record_of_the_backbone_cannot_be_exported(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(record, tmp_path / "backbone")
    fields = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(fields | {"lineage": []}))
    assert run_command(["export", str(folder), str(tmp_path / "hf")]) == 2
    assert "has no Hugging Face architecture" in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


def test_an_interrupted_compression_goes_on_with_the_same_model_only(
    record: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(record, tmp_path / "interrupted")
    (folder / "artifact.bin").unlink()
    fields = json.loads((folder / "record.json").read_text())
    begun = {"status": "interrupted", "artifact": None, "params": None, "metrics": {}, "files": {}}
    (folder / "record.json").write_text(json.dumps(fields | begun))
    other = json.loads(json.dumps(fields | begun))
    other["lineage"][0]["artifact_sha256"] = "0" * 64
    odd = shutil.copytree(folder, tmp_path / "odd")
    (odd / "record.json").write_text(json.dumps(other))
    assert run_command(["run", "--resume", str(odd)]) == 1
    assert "is not the model that it was begun from" in capsys.readouterr().err
    assert run_command(["run", "--resume", str(folder)]) == 0
    assert (folder / "artifact.bin").read_bytes() == (record / "artifact.bin").read_bytes()


def test_a_lineage_that_hides_the_model_is_found(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(record, tmp_path / "hidden")
    fields = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(fields | {"lineage": []}))
    assert run_command(["verify", str(folder), "--level", "decode"]) == 1
    assert "pretrained" in capsys.readouterr().out
    fields["lineage"][0]["kind"] = "record"
    (folder / "record.json").write_text(json.dumps(fields))
    with pytest.raises(RecordError, match="spent is null for a pretrained model"):
        read_record(folder)


def test_the_hash_is_of_the_weights_not_of_their_files(model: Path, tmp_path: Path) -> None:
    cached = put_into_cache(model, tmp_path / "hub")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    loaded.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shutil.copy(model / "tokenizer.json", tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    expected = load_source(str(model))
    for place in (cached, tmp_path / "shards"):
        assert load_source(str(place)).sha256 == expected.sha256
    assert expected.lineage[0].name == "tiny-opt"
    with torch.no_grad():
        loaded.lm_head.weight[0, 0] += 1
    loaded.save_pretrained(model.parent / "changed")
    shutil.copy(model / "tokenizer.json", model.parent / "changed")
    with pytest.raises(RecordError, match="is not the model that it was begun from"):
        reload_source(str(model.parent / "changed"), None, "records/x", expected.lineage)


def _poisoned(folder: Path) -> Any:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        loaded.model.decoder.layers[0].fc1.weight[0, 0] = float("nan")
    loaded.save_pretrained(folder)


def _unsharded(folder: Path) -> None:
    transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def _reconfigured(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _another_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(tokenizer_json(NUM_TOKENS + 20), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_poisoned, RunError, "values that are not finite"),
        (_unsharded, RunError, "weights cannot be read"),
        (_reconfigured(do_layer_norm_before=False), UsageError, "normalises after each sublayer"),
        (_reconfigured(model_type="gpt_neox"), UsageError, "no rule to rotate models of type 'gpt_neox'"),
        (_reconfigured(auto_map={"AutoConfig": "evil.Evil"}, model_type="evil"), UsageError, "no readable config"),
        (_another_tokenizer, UsageError, "that is not its tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), UsageError, "no tokenizer.json that can be"),
        (lambda folder: (folder / "tokenizer.json").unlink(), UsageError, "tokenizer"),
    ],
)
def test_models_that_are_refused(spoil: Any, kind: type[Exception], said: str, model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    spoil(folder)
    with pytest.raises(kind, match=said) as error:
        load_source(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "dense"], "'dense' takes no pretrained model; these do: procrustes"),
        (["--method", "procrustes", "--from", "records/x"], "two beginnings of one run"),
        (["--method", "procrustes", "--budget", "10steps"], "nothing is trained; give a time"),
        (["--method", "procrustes", "--preset", "huge"], "no preset for pretrained models 'huge'"),
        (["--method", "procrustes", "--set", "parts=5"], "does not divide 24 x 24"),
        (["--method", "procrustes", "--set", "width=64"], "--set width: no such setting"),
        (["--method", "procrustes", "--target-params", "1000"], "widths, which a pretrained model has already"),
        (["--method", "procrustes", "--tokenizer", "sp1024"], "a pretrained model has its own"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], said: str, model: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record"
    assert run_command(["run", "--model", str(model), "--data", data, "--out", str(out), *arguments]) == 2
    said_all = capsys.readouterr().err.strip()
    assert said in said_all
    assert "\n" not in said_all
    assert not out.exists()


def test_the_tokenizer_loses_nothing_and_reads_spelled_control_tokens_as_text() -> None:
    tokenizer = ModelTokenizer(make_blob(tokenizer_json().encode(), None))
    assert (tokenizer.start_id, tokenizer.begins_texts) == (1, True)
    for text in ("the dog", " a\r\n\t", "e\u0301\u00e9\ufb01", "<s></s><pad>", "\0\u2581", ""):
        ids = tokenizer.encode(text.encode())
        assert tokenizer.decode(ids) == text.encode()
        assert not {0, 1, 2} & set(ids.tolist())
    assert ModelTokenizer(tokenizer.to_blob()).sha256 == tokenizer.sha256
    assert not ModelTokenizer(make_blob(tokenizer_json(begins_texts=False).encode(), 2)).begins_texts
    with pytest.raises(DataError, match="what a text starts after"):
        make_blob(tokenizer_json(begins_texts=False).encode(), None)


def test_a_tokenizer_with_byte_fallback_puts_no_space_before_a_text() -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers

    bytes_ = {f"<0x{value:02X}>": 3 + value for value in range(256)}
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **bytes_, "\u2581": 259, "d": 260, "o": 261, "do": 262}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("d", "o")], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<s>", "</s>"])
    tokenizer = ModelTokenizer(make_blob(backend.to_str().encode(), 1))
    for text in ("do do", " do", "\ndo", "\u00e9"):
        assert tokenizer.decode(tokenizer.encode(text.encode())) == text.encode()
    assert tokenizer.encode(b"do").tolist() == [262]


def test_a_configuration_without_start_token_needs_one_of_the_tokenizer(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "qwen2", "qwen2", bos_token_id=None)
    assert load_source(str(folder)).tokenizer.start_id == 1
    assert "bos_token_id" not in load_source(str(folder)).architecture
    assert make_config("qwen2", bos_token_id=None).bos_token_id is None
