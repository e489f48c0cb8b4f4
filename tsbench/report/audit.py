"""Printing an audit: its findings group by group, and what was checked."""

import json
from dataclasses import asdict
from itertools import groupby
from typing import Literal

from tsbench.bench.audit.findings import Audit
from tsbench.report.cells import Cell, Table
from tsbench.report.render import render


def audit_tables(audit: Audit) -> list[Table]:
    """One table for each group of findings, and one of the checks."""
    tables = [
        Table(
            title=group,
            columns=("Severity", "Cell", "Finding"),
            rows=tuple(
                (
                    Cell(finding.severity, best=finding.severity == "leak"),
                    Cell(finding.cell),
                    Cell(finding.text),
                )
                for finding in findings
            ),
        )
        for group, findings in groupby(audit.findings, key=lambda finding: finding.group)
    ]
    checks = Table(
        title="What was checked",
        columns=("Check", "Looked at", "Off"),
        rows=tuple(
            (Cell(check.name), Cell(f"{check.looked:,}"), Cell(f"{check.off:,}")) for check in audit.checks
        ),
        notes=(summary(audit),),
    )
    return [*tables, checks]


def summary(audit: Audit) -> str:
    """How many findings of each severity there are."""
    severities = [finding.severity for finding in audit.findings]
    counted = [f"{severities.count(name)} {name}" for name in dict.fromkeys(severities)]
    return f"Findings: {', '.join(counted) or 'none'}."


def render_audit(audit: Audit, format: Literal["markdown", "text", "json"]) -> str:
    """The audit as text, ending in a line feed; JSON has the lists "findings" and "checks"."""
    if format == "json":
        return json.dumps(asdict(audit), indent=2, ensure_ascii=False) + "\n"
    return render(audit_tables(audit), format)
