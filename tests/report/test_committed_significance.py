"""The sentences of the README about significance, against the committed records."""

import re
from pathlib import Path

import pytest

from tsbench.bench.store import ResultsStore
from tsbench.report.cells import Table
from tsbench.report.significance import significance_tables
from tsbench.report.tables import stored_cells

ROOT = Path(__file__).resolve().parents[2]
OWN = "lookback=512 backbone=flame-small,naive-seasonal,naive-last"
MEMORY, CONTROL = "TS-Memory, PlugMem tiny", "No-retrieval control, PlugMem tiny"


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    store = ResultsStore(ROOT / "results")
    found = significance_tables(stored_cells(store, OWN)[0], store, "mse")
    return {table.title.partition(" ·")[0]: table for table in found}


def told_apart(table: Table, verdict: str) -> dict[str, set[str]]:
    method, judged = table.columns.index("Method"), table.columns.index("Verdict")
    found: dict[str, set[str]] = {}
    for row in table.rows:
        if row[judged].text == verdict:
            found.setdefault(row[method].text, set()).add(row[0].text)
    return found


def test_what_is_better_than_the_model_alone(tables: dict[str, Table]) -> None:
    three = {"ETTm1", "ETTm2", "Weather"}
    assert told_apart(tables["MSE against Origin"], "better") == {
        MEMORY: three,
        CONTROL: three,
        "LoRA": three,
        "RAFT": {"ETTm2", "Weather"},
    }
    assert told_apart(tables["MSE against Origin"], "worse") == {}
    assert "all 69 tests" in " ".join(tables["MSE against Origin"].notes)


def test_the_memory_module_gains_and_hardly_the_retrieval(tables: dict[str, Table]) -> None:
    table = tables["MSE against the method's control"]
    assert told_apart(table, "better") == {"TS-Memory, PlugMem small": {"ETTh1"}}
    assert told_apart(table, "worse") == {MEMORY: {"Weather"}}


def test_the_claim_beside_what_is_measured(tables: dict[str, Table]) -> None:
    table = tables["TS-Memory's claim, mean change of the MSE in percent"]
    mean = {row[0].text: row[-1].text for row in table.rows}
    assert mean["Paper's text: four backbones"] == "-5.8"
    assert mean[f"{MEMORY}, α by validation"] == "-3.2 [-5.3, -1.3]"
    assert mean[f"Control of {MEMORY}, α by validation"].startswith("-3.3 ")
    assert mean[f"{MEMORY}, α by test (bound)"] == "-3.8"
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "it is 3.2 % [1.3, 5.3] over six sets with α from validation (3.3 % for the control; all" in readme
