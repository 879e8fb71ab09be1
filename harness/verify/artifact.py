"""Level decode: the artifact opens, and what it stores is what the record says; no torch is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from harness.errors import ArtifactError, UsageError
from harness.records.native import ARTIFACT_FILE
from harness.records.safeio import JSON
from harness.records.values import Scalar, Value
from harness.verify.agreement import as_scalar, look_up, show
from harness.verify.case import NativeCase
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule
from harness.verify.static import Check


def artifact_decodes(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """A1: fails when the artifact cannot be opened, or a tensor or blob cannot be decoded or is not finite.

    One tensor is held at a time, whatever the whole file declares.
    """
    case.require(ARTIFACT_FILE)
    try:
        artifact = case.artifact
        for entry in artifact.entries:
            artifact.decode_tensor(entry.name)
        for name in artifact.blob_names:
            artifact.blob(name)
    except ArtifactError as error:
        yield rule.finding(case.name, "fail", str(error), path=ARTIFACT_FILE)
    else:
        message = f"{len(artifact.entries)} tensors and {len(artifact.blob_names)} blobs decoded"
        yield rule.finding(case.name, "pass", message, path=ARTIFACT_FILE)


def stored_params_match(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """A2: fails when the artifact stores another number of parameters than the record claims."""
    yield _compare(case, rule, "params.stored", case.params.stored, case.artifact.num_params_stored)


def parts_match(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """A3: fails at the first part or coder whose bytes or tensors are not those of the artifact."""
    case.require("parts")
    artifact, part = case.artifact, case.artifact_part
    coders = Counter(entry.coder for entry in artifact.entries)
    tables = [("parts", part.parts, artifact.bytes_by_part()), ("coders", part.coders, coders)]
    for table, claimed, found in tables:
        names = sorted({*claimed, *found})
        apart = [name for name in names if claimed.get(name, 0) != found.get(name, 0)]
        if not apart:
            yield rule.finding(case.name, "pass", f"{len(names)} {table} agree", path=ARTIFACT_FILE)
        for name in apart[:1]:
            yield _compare(case, rule, f"artifact.{table}.{name}", claimed.get(name, 0), found.get(name, 0))


def code_is_counted(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """A5: fails when the code that decodes the artifact has other bytes; only the code of the record can be counted."""
    from harness.artifact.params import decoder_closure_bytes, plugin_bytes
    from harness.provenance import harness_code_sha256, hash_sources
    from harness.registry import find_method, module_of

    try:
        info = find_method(case.record.method.name)
    except UsageError as error:
        yield rule.finding(case.name, "note", f"the code was not counted: {error}")
        return
    is_plugin = case.record.method.code_sha256 == hash_sources([info.folder])
    is_harness = case.record.environment.harness_code_sha256 == harness_code_sha256()
    part = case.artifact_part
    if is_plugin:
        yield _compare(case, rule, "artifact.plugin_bytes", part.plugin_bytes, plugin_bytes(info.folder))
    if is_plugin and is_harness:
        module = module_of(pretrained=case.record.is_pretrained)
        found = decoder_closure_bytes(info.package, module)
        yield _compare(case, rule, "artifact.decoder_closure_bytes", part.decoder_closure_bytes, found)
    else:
        yield rule.finding(case.name, "note", "another version of the code made the record; its bytes were not counted")


def header_matches(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """A4: fails at the first field of the artifact's header that is not the record's."""
    record, meta = case.record, dict(case.artifact.meta)
    expected: Mapping[str, JSON] = {
        "method": record.method.name,
        "method_version": record.method.version,
        "settings.model": look_up(case.fields, "settings.model"),
        "task.vocab_size": record.data.tokenizer.vocab_size,
        "tokenizer.kind": record.data.tokenizer.kind,
        "tokenizer.vocab_size": record.data.tokenizer.vocab_size,
        "tokenizer.sha256": record.data.tokenizer.sha256,
        "pretrained": record.is_pretrained or None,
    }
    apart = [key for key, value in expected.items() if look_up(meta, key) != value]
    if not apart:
        yield rule.finding(case.name, "pass", f"{len(expected)} fields agree", path=ARTIFACT_FILE)
    for key in apart[:1]:
        claimed, found = as_scalar(expected[key]), as_scalar(look_up(meta, key))
        yield _compare(case, rule, f"header {key}", claimed, found)


def _compare(case: NativeCase, rule: Rule, key: str, claimed: Scalar, found: Scalar) -> Finding:
    values = [case.claim(key, claimed), Value(origin="measured", value=found, path=ARTIFACT_FILE)]
    status: FindingStatus = "fail" if claimed != found else "pass"
    message = f"{key}: the record says {show(claimed)}, the artifact has {show(found)}"
    return rule.finding(case.name, status, message, values=values)


DECODE_CHECKS: Mapping[str, Check] = {
    "A1": artifact_decodes,
    "A2": stored_params_match,
    "A3": parts_match,
    "A4": header_matches,
    "A5": code_is_counted,
}
