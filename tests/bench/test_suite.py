from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tsbench.bench.grid import default_settings
from tsbench.bench.plan import SuiteCell, absent_cells, expand
from tsbench.bench.suite import Suite, load_suite, module_name, on_backbones, restricted, shipped_suites
from tsbench.config import PROFILES
from tsbench.data.catalog import find_collection
from tsbench.errors import TsbenchError
from tsbench.report.published import published

ROOT = Path(__file__).parents[2]
HORIZONS = ("96", "192", "336", "720")
TABLES = {
    "f-llm": (1, 2, 3, 4, 5, 6, 8),
    "ts-memory": (2, 3, 5, 6, 9, 10, 13, 14, 15, 16),
}
NAMES = [f"{paper}-table{table}" for paper, tables in TABLES.items() for table in tables]

Row = tuple[str, str, str, str, str]
"""Data set, method, backbone, variant and horizon as printed; of M3 and M4 "" is the horizon."""


def cells_of(suite: Suite) -> list[SuiteCell]:
    return expand(suite, seeds=[0], settings=default_settings(PROFILES["standard"]))


def printed_rows(name: str) -> set[Row]:
    """Every row and horizon that has a figure; an average stands for its four horizons."""
    paper, _, table = name.rpartition("-table")
    rows = set()
    for figure in published():
        if (figure.paper, figure.table) == (paper, int(table)):
            horizons = HORIZONS if figure.horizon == "avg" else (figure.horizon,)
            for horizon in ("",) if figure.metric == "smape" else horizons:
                rows.add((figure.dataset, figure.method, figure.backbone, figure.variant, horizon))
    return rows


def covered_rows(suite: Suite) -> set[Row]:
    found = set()
    for cell in cells_of(suite):
        label, horizon = cell.label, "" if find_collection(cell.spec.dataset) else str(cell.spec.horizon)
        found.add((label.dataset, label.method, label.backbone, label.variant, horizon))
    return found


def absent_rows(suite: Suite) -> set[Row]:
    return {
        (suite.printed_datasets.get(dataset, dataset), method, row.backbone, row.variant, horizon)
        for row in suite.absent
        for method in row.methods
        for dataset in row.datasets or suite.datasets
        for horizon in (map(str, suite.horizons) if suite.horizons else ("",))
    }


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


MINE = """
title = "Mine"
datasets = ["demo", "etth1"]
horizons = [24]

[[rows]]
method = "origin"
backbones = ["naive-last", "naive-seasonal"]
"""


def test_there_is_a_suite_for_every_table_of_scores() -> None:
    assert list(shipped_suites()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_figure_is_a_cell_or_named_as_absent_and_nothing_else_is(name: str) -> None:
    suite = load_suite(name)
    cells, absent = covered_rows(suite), absent_rows(suite)
    assert cells | absent == printed_rows(name)
    assert not cells & absent


@pytest.mark.parametrize(
    ("name", "cells", "absent"),
    [
        ("ts-memory-table9", 8 * 8 * 4, 0),
        ("ts-memory-table10", 5 * 8 * 4, 0),
        ("ts-memory-table13", 8 * 7 * 4, 0),
        ("ts-memory-table14", (4 + 6) * 8 * 4, 0),  # Origin on two backbones is printed twice
        ("ts-memory-table15", (1 + 2 * 4) * 4 * 4, 0),  # so is Origin here
        ("ts-memory-table16", 4 * 8 * 4, 0),
        ("f-llm-table2", 2 * 10, 8 * 10),
        ("f-llm-table3", 3 * 2 * 4, 0),
        ("f-llm-table4", 3 * 2 * 4, 0),
        ("f-llm-table5", 2 * 4, 0),
        ("f-llm-table6", 3 * 3 * 4, 0),
        ("f-llm-table8", 6 * 7 * 4, 6 * 7 * 4),
    ],
)
def test_a_cell_that_is_printed_twice_is_run_once(name: str, cells: int, absent: int) -> None:
    suite = load_suite(name)
    assert len({cell.spec for cell in cells_of(suite)}) == cells
    assert absent_cells(suite).total() == absent


def test_lookbacks_are_those_of_the_papers() -> None:
    for name in NAMES:
        lookbacks = {cell.spec.lookback for cell in cells_of(load_suite(name))}
        assert lookbacks == {512 if name.startswith("ts-memory") else 672} or name == "f-llm-table2"


def test_the_wheel_has_every_suite_and_no_script() -> None:
    included = WheelBuilder(str(ROOT)).recurse_included_files()
    shipped = {file.distribution_path for file in included}
    assert {path for path in shipped if path.startswith("tsbench/suites/")} == {
        f"tsbench/suites/{name}.toml" for name in NAMES
    }
    assert not [path for path in shipped if not path.startswith("tsbench/")]


def test_a_suite_is_found_by_name_by_number_and_by_path(tmp_path: Path) -> None:
    by_name = load_suite("ts-memory-table3")
    assert load_suite("ts-memory/3") == by_name
    assert load_suite(str(ROOT / "benchmarks" / "ts-memory-table3.toml")) == by_name
    assert load_suite(written(tmp_path, MINE)).datasets == ("demo", "ETTh1")


def test_a_suite_takes_the_cells_of_another_and_changes_what_it_names(tmp_path: Path) -> None:
    base = load_suite(written(tmp_path, MINE))
    other = load_suite(written(tmp_path, 'cells_of = "mine.toml"\nhorizons = [48]', "other.toml"))
    assert other == base.model_copy(update={"name": "other", "horizons": (48,)})
    assert (
        load_suite(written(tmp_path, 'title = "T"\ncells_of = "f-llm/3"', "short.toml")).rows
        == load_suite("f-llm-table3").rows
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE + "fine_tunes = true", "rows.1.fine_tunes: unknown key 'fine_tunes'; did you mean fine_tune?"),
        (MINE + "printed.varient = 'x'", "unknown key 'varient'; did you mean variant?"),
        ("horizon = [24]" + MINE, "horizon: unknown key 'horizon'; did you mean horizons?"),
        (MINE + '[[absent]]\nmethods = ["x"]', "absent.1.reason is missing; add it"),
        (MINE.replace("24", '"soon"'), "horizons.1 is 'soon': input should be a valid integer"),
        (MINE.replace("demo", "dmo"), "unknown dataset 'dmo'; did you mean demo?"),
        (MINE.replace("]", "", 1), "cannot read"),
        ('cells_of = "ts-memory/3"', "cells_of 'ts-memory/3' takes its own from 'ts-memory-table10'"),
        ('cells_of = "nothing"', "unknown suite 'nothing'; known: f-llm-table1"),
    ],
)
def test_a_mistake_in_a_users_suite_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TsbenchError) as caught:
        load_suite(path)
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert path in line or "nothing" in line


def test_all_mistakes_of_a_file_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError) as caught:
        load_suite(written(tmp_path, 'titel = "Mine"\nhorizons = ["soon"]'))
    assert len(str(caught.value).splitlines()) == 5  # titel, title, datasets, horizons, rows


def test_an_unknown_suite_is_answered_with_a_near_one() -> None:
    with pytest.raises(TsbenchError, match="did you mean ts-memory-table3"):
        load_suite("ts-memory-tabel3")


def test_a_suite_is_restricted_to_some_of_its_data_sets() -> None:
    suite = load_suite("ts-memory-table15")
    part = restricted(suite, ["etth1", "ETTm2"])
    expected = [cell for cell in covered_rows(suite) if cell[0] in ("ETTh1", "ETTm2")]
    assert covered_rows(part) == set(expected)
    assert absent_cells(restricted(load_suite("f-llm-table8"), ["ETT"])).total() == 6 * 4 * 4
    assert restricted(suite, []) == suite
    with pytest.raises(TsbenchError, match="suite ts-memory-table15 has no cells on Traffic; choose from"):
        restricted(suite, ["Traffic"])


def test_another_backbone_takes_the_place_of_the_frozen_ones_alone() -> None:
    suite = on_backbones(load_suite("f-llm-table8"), ["smollm2"])
    backbones = {(cell.spec.method, cell.spec.backbone) for cell in cells_of(suite)}
    supervised = {("supervised", name) for name in ("itransformer", "dlinear", "patchtst", "timesnet")}
    assert backbones == supervised | {("f-llm", "smollm2")}
    own = [row for row in covered_rows(suite) if row[2] == "smollm2"]
    assert len(own) == 2 * 7 * 4
    assert not set(own) & printed_rows("f-llm-table8")


def test_memory_modules_carried_between_backbones_are_absent_on_one_backbone() -> None:
    suite = on_backbones(load_suite("ts-memory-table13"), ["flame-small"])
    assert len({cell.spec for cell in cells_of(suite)}) == 2 * 7 * 4
    [(reason, count)] = absent_cells(suite).items()
    assert reason == "a memory module carried between backbones; --backbone flame-small leaves one"
    assert count == 7 * 4


def test_between_two_backbones_memory_modules_go_both_ways() -> None:
    suite = on_backbones(load_suite("ts-memory-table14"), ["flame-small", "fracast"])
    found = {
        (spec.method, spec.backbone, spec.plugmem_from, cell.label.backbone, cell.label.variant)
        for cell in cells_of(suite)
        for spec in [cell.spec]
    }
    assert found == {
        ("origin", "fracast", None, "fracast", "block=flame-small-plugmem"),
        ("ts-memory", "fracast", "flame-small", "fracast", "plugmem-from=flame-small"),
        ("origin", "flame-small", None, "flame-small", "block=fracast-plugmem"),
        ("ts-memory", "flame-small", "fracast", "flame-small", "plugmem-from=fracast"),
    }
    assert not absent_cells(suite)


@pytest.mark.parametrize("names", [["sundial-base", "chronos-2"], ["sundial-base", "fracast"]])
def test_the_backbones_of_the_paper_may_change_places(names: list[str]) -> None:
    """Table 14 carries from chronos-2 first and from sundial-base second."""
    suite = on_backbones(load_suite("ts-memory-table14"), names)
    first, second = names
    carried = [row for row in suite.rows if row.plugmem_from]
    assert [(row.plugmem_from, row.backbones) for row in carried] == [(first, (second,)), (second, (first,))]
    assert [row.printed.variant for row in carried] == [f"plugmem-from={name}" for name in names]
    alone = [row for row in suite.rows if not row.plugmem_from]
    assert [row.backbones for row in alone] == [(second,), (first,)]
    blocks = [f"block={module_name(name)}" for name in names]
    assert [row.printed.variant for row in alone] == blocks


def test_a_module_of_one_size_goes_to_all_the_other_backbones() -> None:
    names = ["fracast", "flame-small", "chronos-bolt-tiny"]
    suite = on_backbones(load_suite("ts-memory-table13"), names)
    specs = [cell.spec for cell in cells_of(suite)]
    assert {spec.backbone for spec in specs if spec.method == "origin"} == set(names)
    assert {(spec.backbone, spec.plugmem_from) for spec in specs if spec.method == "ts-memory"} == {
        ("fracast", None),
        ("flame-small", "fracast"),
        ("chronos-bolt-tiny", "fracast"),
    }
