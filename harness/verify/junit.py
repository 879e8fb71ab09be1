"""A report as JUnit XML, for whatever shows test results: a suite for each record, a case for each finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from harness.verify.findings import Finding, InternalError, Report
from harness.verify.render import describe, ordinals, record_names, safe

_COUNTED = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def to_junit(report: Report) -> str:
    """Return the XML document of a report; what passed is in it, as a case without a fault."""
    root = ElementTree.Element("testsuites", name="harness verify")
    root.extend(_suite(report, name) for name in record_names(report))
    _count(root)
    ElementTree.indent(root)
    # In ASCII with character references it survives every encoding of a console or an uploader.
    document: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return document.decode() + "\n"


def _suite(report: Report, record: str) -> ElementTree.Element:
    findings = report.of_record(record)
    suite = ElementTree.Element("testsuite", name=safe(record))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(report, findings):
        ElementTree.SubElement(properties, "property", name=name, value=safe(value))
    # Dashboards keep one case of a name, and could drop a failure for a pass.
    for finding, ordinal in zip(findings, ordinals(finding.rule for finding in findings), strict=True):
        suite.append(_case(report, finding, ordinal))
    suite.extend(_error(error) for error in report.internal_errors if error.record == record)
    _count(suite)
    return suite


def _properties(report: Report, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    yield "verdict", report.verdict(findings)
    yield "level", report.level
    yield "rules", report.rules_version
    yield from (("rules changed", change) for change in report.rule_changes)


def _count(element: ElementTree.Element) -> None:
    for name, tag in _COUNTED.items():
        element.set(name, str(sum(1 for _ in element.iter(tag))))


def _case(report: Report, finding: Finding, ordinal: int) -> ElementTree.Element:
    name = f"{finding.rule} {report.rules[finding.rule].title}" + (f" ({ordinal})" if ordinal > 1 else "")
    case = ElementTree.Element("testcase", classname=safe(finding.record), name=safe(name))
    message, details = safe(finding.message), " | ".join(describe(finding))
    verdict = report.verdict([finding])
    if verdict == "fail":
        kind = finding.severity or finding.status
        ElementTree.SubElement(case, "failure", type=kind, message=message).text = details
    elif verdict == "unverifiable":
        ElementTree.SubElement(case, "skipped", message=message)
    elif finding.status == "note":
        ElementTree.SubElement(case, "system-out").text = details
    return case


def _error(error: InternalError) -> ElementTree.Element:
    name = safe(f"{error.rule} internal error")
    case = ElementTree.Element("testcase", classname=safe(error.record), name=name)
    ElementTree.SubElement(case, "error", type="internal error", message=safe(error.message))
    return case
