"""What is rendered from the committed records is current; `make report` renders it."""

from pathlib import Path

from tsbench.bench.store import ResultsStore
from tsbench.report.render import render
from tsbench.report.tables import report_tables

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_the_tables_of_the_results_folder_are_those_of_its_records() -> None:
    committed = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert committed == render(report_tables(ResultsStore(RESULTS)), "markdown"), "run `make report`"


def test_the_page_of_the_results_folder_has_every_record() -> None:
    page = (RESULTS / "report.html").read_text(encoding="utf-8")
    missing = [record.key for record in ResultsStore(RESULTS).records() if record.key not in page]
    assert not missing, "run `make report`"
