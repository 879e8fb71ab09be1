"""The whole report as tables, cards and sentences, from its document alone; renderers add markup and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.ledger import Cell, Ledger, Sheet
from reports.plots import Figure
from reports.view_audit import (
    Gap,
    audit_summary,
    audited_sheet,
    environments_sheet,
    findings_by_record,
    gaps,
    inputs_sheet,
    repeat_commands,
)
from reports.view_claims import ClaimCard, SourceSummary, claim_cards, claims_sheet, summarise_sources
from reports.view_records import RecordCard, record_cards, replies_to, trials_sheet
from reports.view_scores import GroupView, group_views, trend_sheets


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything that a report says, in the order of reading.

    Attributes:
        document: that it was made from.
        counts: cells of the numbers that the summary names.
        sources: publications with the number of each verdict.
        claims: table of all claims.
        cards: a card a claim.
        groups: tables of contenders.
        trends: of their differences with size.
        figures: of all groups, and those of none.
        records: a card a record.
        trials: of tunings.
        audit_counts: records and findings by status.
        audited: headline of each record here.
        foreign: headline of each folder of others.
        findings: record, anchor and table of what did not pass.
        gaps: what was not verified.
        repeat: what is repeated by which command.
        environments: machines and versions.
        inputs: files with their hashes.
    """

    document: Mapping[str, Any]
    counts: Mapping[str, Cell]
    sources: Sequence[SourceSummary]
    claims: Sheet
    cards: Sequence[ClaimCard]
    groups: Sequence[GroupView]
    trends: Sequence[Sheet]
    figures: Sequence[Figure]
    records: Sequence[RecordCard]
    trials: Sheet
    audit_counts: Sequence[tuple[str, Cell]]
    audited: Sheet
    foreign: Sheet
    findings: Sequence[tuple[str, str, Sheet]]
    gaps: Sequence[Gap]
    repeat: Sequence[tuple[str, str]]
    environments: Sheet
    inputs: Sheet

    def replies_to(self, record: str) -> list[Mapping[str, Any]]:
        """Return the replies to a record or a folder of others."""
        return replies_to(self.document, record)

    def figures_of(self, slug: str) -> list[Figure]:
        """Return the figures of a group; of none with an empty slug."""
        return [figure for figure in self.figures if figure.group == slug]


def build_page(document: Mapping[str, Any], figures: Sequence[Figure]) -> Page:
    """Arrange a document.

    Args:
        document: as `build_document` returns it.
        figures: drawn from it.
    """
    anchors = {entry["file"]: entry["slug"] for entry in document["records"] if not entry["is_trial"]}
    ledger = Ledger(document=document, anchors=anchors)
    return Page(
        document=document,
        counts=_counts(ledger),
        sources=list(summarise_sources(ledger)),
        claims=claims_sheet(ledger),
        cards=list(claim_cards(ledger)),
        groups=list(group_views(ledger)),
        trends=list(trend_sheets(ledger)),
        figures=figures,
        records=list(record_cards(ledger)),
        trials=trials_sheet(ledger),
        audit_counts=audit_summary(ledger),
        audited=audited_sheet(ledger, native=True),
        foreign=audited_sheet(ledger, native=False),
        findings=findings_by_record(ledger),
        gaps=list(gaps(ledger)),
        repeat=repeat_commands(ledger),
        environments=environments_sheet(ledger),
        inputs=inputs_sheet(ledger),
    )


def _counts(ledger: Ledger) -> dict[str, Cell]:
    counts = ledger.document["counts"]
    flat = {key: ledger.computed(f"counts.{key}", "count") for key in counts if key != "verdicts"}
    return flat | {key: ledger.computed(f"counts.verdicts.{key}", "count") for key in counts["verdicts"]}
