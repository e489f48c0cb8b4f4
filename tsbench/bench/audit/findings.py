"""What an audit says: its findings, and how much was looked at where nothing was found."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

Severity = Literal["leak", "declared leak", "unfair", "fault", "note"]
"""How bad a finding is.

"leak": a figure saw what it may not, and its record does not say so. "declared leak": it says so. "unfair":
figures that would be compared were not made alike, or a record is not what it claims. "fault": published
figures or data contradict themselves. "note": worth knowing.
"""

SEVERITIES: tuple[Severity, ...] = ("leak", "declared leak", "unfair", "fault", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: How bad it is.
        check: What looked for it.
        group: Data set and horizon, table of a paper, or method; findings are printed group by group.
        cell: What it is about within the group.
        text: One sentence with the figures.
    """

    severity: Severity
    check: str
    group: str
    cell: str
    text: str


@dataclass(frozen=True)
class Check:
    """How often a check was made, and how often what it looks at did not hold."""

    name: str
    looked: int
    off: int


@dataclass(frozen=True)
class Audit:
    """Everything one audit says.

    Attributes:
        findings: Group by group, the gravest of a group first.
        checks: In the order they were first made.
    """

    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that make an audit fail."""
        return tuple(finding for finding in self.findings if finding.severity == "leak")


class Ledger:
    """Collects what checks look at and what they find."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._looked: Counter[str] = Counter()
        self._off: Counter[str] = Counter()

    def look(self, check: str, number: int = 1) -> None:
        """Count that a check was made `number` times."""
        self._looked[check] += number

    def find(self, severity: Severity, check: str, group: str, cell: str, text: str, number: int = 1) -> None:
        """Write down a finding, which stands for `number` of the things looked at."""
        self._findings.append(Finding(severity, check, group, cell, text))
        self._off[check] += number

    def audit(self) -> Audit:
        """What was collected, groups in natural order."""
        ordered = sorted(
            self._findings, key=lambda found: (_natural(found.group), SEVERITIES.index(found.severity))
        )
        checks = [Check(name, looked, self._off[name]) for name, looked in self._looked.items()]
        return Audit(tuple(ordered), tuple(checks))


def _natural(text: str) -> list[tuple[str, int]]:
    """Sorting key by which "Table 9" comes before "Table 10"."""
    parts = re.findall(r"(\D*)(\d*)", text)
    return [(words, int(number or 0)) for words, number in parts]
