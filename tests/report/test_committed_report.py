"""What is rendered from the committed records is current; `make report` renders it."""

from pathlib import Path

from tsbench.bench.latency_records import load_measurements
from tsbench.bench.store import ResultsStore
from tsbench.report.latency import latency_tables
from tsbench.report.page.markup import table_block
from tsbench.report.page.provenance import as_json, provenance_facts
from tsbench.report.render import render
from tsbench.report.tables import report_tables

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_the_tables_of_the_results_folder_are_those_of_its_records() -> None:
    committed = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert committed == render(report_tables(ResultsStore(RESULTS)), "markdown"), "run `make report`"


def test_the_page_has_the_scores_and_provenance_of_every_record_and_all_timings() -> None:
    page = (RESULTS / "report.html").read_text(encoding="utf-8")
    store, measured = ResultsStore(RESULTS), load_measurements(RESULTS)
    facts = provenance_facts(store.records(), store.failures(), measured)
    assert as_json(facts) in page, "run `make report`"
    absent = [table for table in latency_tables(measured) if table_block(table) not in page]
    assert not absent, "run `make report`"
