"""Published tables checked against themselves: averages, repeated figures, claims in the text, timings."""

from tsbench.bench.audit.findings import Audit, Ledger
from tsbench.report.consistency.arithmetic import check_arithmetic
from tsbench.report.consistency.claims import check_claims
from tsbench.report.consistency.repeats import check_repeats
from tsbench.report.consistency.timing import check_timing


def audit_published() -> Audit:
    """Work out again what the tables of F-LLM and TS-Memory imply of each other.

    Every figure is one that the papers print; see `tsbench/report/reference`.
    """
    ledger = Ledger()
    check_arithmetic(ledger)
    check_repeats(ledger)
    check_claims(ledger)
    check_timing(ledger)
    return ledger.audit()
