"""What is rendered from the committed records is current; `make report` renders it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tsbench.bench.store import ResultsStore
from tsbench.registry import Requirement
from tsbench.report.figures.catalog import FIGURES
from tsbench.report.page import pictures
from tsbench.report.page.document import page
from tsbench.report.render import render
from tsbench.report.tables import report_tables

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_the_tables_of_the_results_folder_are_those_of_its_records() -> None:
    committed = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert committed == render(report_tables(ResultsStore(RESULTS)), "markdown"), "run `make report`"


@pytest.mark.usefixtures("no_weights_here")
def test_the_page_is_that_of_the_records_but_for_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, verdicts, forecasts, provenance, and what is said of each figure."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(Requirement, "installed", property(lambda self: True))  # whatever this machine lacks
    undrawn = {name: replace(kind, draw=lambda picture: None) for name, kind in FIGURES.items()}
    monkeypatch.setattr(pictures, "FIGURES", undrawn)
    monkeypatch.setattr(pictures, "_png", lambda figure: ("", 0, 0))
    committed = without_images((RESULTS / "report.html").read_text(encoding="utf-8"))
    rendered = without_images(page(ResultsStore(RESULTS)))
    stale = sorted({line[:150] for line in set(committed) ^ set(rendered)})
    current = committed == rendered  # pytest would take minutes to show how lines of megabytes differ
    assert current, f"run `make report`; differing lines begin: {stale[:9]}"


def without_images(text: str) -> list[str]:
    return re.sub(r'<img src="[^"]*" width="\d+" height="\d+"', "<img", text).splitlines()
