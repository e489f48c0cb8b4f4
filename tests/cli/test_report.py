import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import toy

from tsbench.bench.records import Failure
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec

LABELS = ["Repeat last", "Seasonal naive", "Origin"]


@pytest.fixture(autouse=True)
def results(tsbench: toy.Cli, store: ResultsStore) -> ResultsStore:
    """Six finished cells, at two horizons, and a failed one."""
    assert tsbench("run --method origin --horizon 12 24", *toy.CELL).exit_code == 0
    spec = CellSpec(method="origin", backbone="toy", dataset="demo", horizon=48)
    store.save_failure(Failure("0" * 64, spec, "out of | memory", "Traceback"))
    return store


def test_markdown_is_the_default_and_holds_every_table_and_failure(tsbench: toy.Cli) -> None:
    result = tsbench("report")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [line[4:16] for line in result.stdout.splitlines() if line.startswith("### demo")] == [
        "demo, H = 12",
        "demo, H = 24",
    ]
    assert all(result.stdout.count(f"| {label} ") >= 2 for label in LABELS)
    assert "### Failed cells" in result.stdout
    assert "out of \\| memory" in result.stdout
    assert "Traceback" not in result.stdout


def test_csv_and_json_hold_every_figure_in_full(tsbench: toy.Cli, store: ResultsStore) -> None:
    line = "report --select dataset=demo"
    from_csv = list(csv.DictReader(StringIO(tsbench(f"{line} --format csv").stdout)))
    from_json = json.loads(tsbench(f"{line} --format json").stdout)
    keys = {record.key: record for record in store.records()}
    for rows in (from_csv, from_json):
        scored = [row for row in rows if row["mse"]]
        assert {row["key"] for row in scored} == keys.keys()
        for row in scored:
            assert float(row["mse"]) == keys[row["key"]].metrics["mse"]
            assert row["data_sha256"] == keys[row["key"]].provenance.data_sha256
        assert [row["error"] for row in rows if row["error"]] == ["out of | memory"]


def test_text_marks_the_best_with_an_asterisk(tsbench: toy.Cli) -> None:
    result = tsbench("report --format text")
    assert result.exit_code == 0
    assert "*: best." in result.stdout


def test_select_keeps_the_cells_that_match(tsbench: toy.Cli) -> None:
    rows = json.loads(
        tsbench("report --format json --select", "horizon=24 backbone=toy,naive-last").stdout,
    )
    assert sorted((row["backbone"], row["horizon"]) for row in rows) == [("naive-last", 24), ("toy", 24)]


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("datset=demo", ("unknown selection key 'datset'", "did you mean dataset?")),
        ("demo", ("cannot select by 'demo'", "write key=value")),
        ("dataset=ETTh1", ("none of 6 results matches 'dataset=ETTh1'", "without it")),
    ],
)
def test_a_selection_that_cannot_be_met_is_one_line(
    tsbench: toy.Cli, expression: str, parts: tuple[str, ...]
) -> None:
    result = tsbench("report --select", expression)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert all(part in result.stderr for part in parts)


def test_output_writes_what_would_have_been_printed(tsbench: toy.Cli, workplace: Path) -> None:
    printed = tsbench("report").stdout
    result = tsbench("report --output new/folder/table.md")
    assert (result.exit_code, result.output) == (0, "")
    assert (workplace / "new" / "folder" / "table.md").read_text() == printed


def test_when_the_output_is_a_directory_then_it_is_refused(tsbench: toy.Cli, workplace: Path) -> None:
    (workplace / "folder").mkdir()
    result = tsbench("report --output folder")
    assert result.exit_code == 2
    assert "is a directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_when_the_output_cannot_be_written_then_it_is_one_line(tsbench: toy.Cli, workplace: Path) -> None:
    (workplace / "file").write_text("in the way")
    result = tsbench("report --output file/table.md")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot write file/table.md")
    assert len(result.stderr.splitlines()) == 1


def test_without_results_the_command_that_makes_some_is_named(tsbench: toy.Cli) -> None:
    result = tsbench("report --results elsewhere")
    assert result.exit_code == 2
    assert result.stderr == "error: no results in elsewhere/; run `tsbench run` first\n"


def test_when_a_record_is_damaged_then_its_file_is_named(tsbench: toy.Cli, store: ResultsStore) -> None:
    path = next(store.root.rglob("records/*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    result = tsbench("report")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert str(path.name) in result.stderr
    assert "delete it and run again" in result.stderr


def test_significance_needs_something_adapted_to_compare(tsbench: toy.Cli) -> None:
    result = tsbench("report --significance --select horizon=12")
    assert result.exit_code == 0
    assert "### MSE over data sets" in result.stdout
    alone = tsbench("report --significance --select 'horizon=12 backbone=toy'")
    assert alone.exit_code == 2
    assert "nothing to compare" in alone.stderr


@pytest.mark.parametrize("other", ["--summary mse", "--latency", "--with-published"])
def test_significance_stands_alone(tsbench: toy.Cli, other: str) -> None:
    result = tsbench(f"report --significance {other}")
    assert result.exit_code == 2
    assert "--significance" in result.stderr


@pytest.fixture
def flame(store: ResultsStore) -> None:
    """Origin on flame-small at one horizon of ETTh1, as Tables 9 and 10 of TS-Memory have it."""
    record = store.records()[0]
    spec = CellSpec(method="origin", backbone="flame-small", dataset="ETTh1", horizon=96)
    store.save(replace(record, spec=spec, key="f" * 64, metrics=record.metrics | {"mse": 0.38491}))


@pytest.mark.usefixtures("flame")
def test_a_paper_table_is_filled_with_what_was_run(tsbench: toy.Cli) -> None:
    line = "report --table ts-memory/10 --backbone flame-small"
    assert " 0.3849 " in tsbench(line).stdout
    tables = tsbench(f"{line} --table ts-memory-table9 --format latex").stdout
    assert tables.count("\\begin{tabular}") == 2
    rows = json.loads(tsbench(f"{line} --format json").stdout)
    [row] = [row for row in rows if row["value"] is not None and row["metric"] == "mse"]
    assert (row["table"], row["dataset"], row["horizon"], row["value"]) == (
        "ts-memory/10",
        "ETTh1",
        "96",
        0.38491,
    )
    assert "<table>" in tsbench(f"{line} --format html").stdout


@pytest.mark.usefixtures("flame")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--table ts-memory/7", "unknown table 'ts-memory/7'"),
        ("--table ts-memory/9", "no result fills ts-memory/9; run `tsbench run --suite ts-memory/9`"),
        ("--table ts-memory/4 --backbone flame-small", "no result fills ts-memory/4; run `tsbench latency`"),
        (
            "--table ts-memory/9 --backbone flame-smal",
            "unknown backbone 'flame-smal'; did you mean flame-small",
        ),
        ("--table ts-memory/9 --summary mse", "leave out --summary"),
        ("--table ts-memory/9 --latency", "leave out --summary and --latency"),
        ("--table ts-memory/4 --select horizon=96", "--select is for scores"),
        ("--backbone flame-small", "--backbone goes with --table"),
    ],
)
def test_what_a_paper_table_cannot_do_is_one_line(tsbench: toy.Cli, line: str, said: str) -> None:
    result = tsbench(f"report {line}")
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert said in result.stderr


def test_a_selection_leaves_cells_of_a_paper_table_empty(tsbench: toy.Cli, flame: None) -> None:
    result = tsbench("report --table ts-memory/9 --backbone flame-small --select", "dataset=demo")
    assert result.exit_code == 2
    assert "no result fills ts-memory/9" in result.stderr


@pytest.mark.parametrize("format", ["latex", "html"])
def test_ordinary_tables_have_every_format(tsbench: toy.Cli, format: str) -> None:
    result = tsbench(f"report --format {format}")
    assert result.exit_code == 0
    assert all(result.stdout.count(label) >= 2 for label in LABELS)
    assert "Failed cells" in result.stdout
