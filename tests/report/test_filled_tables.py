"""Our figures in the papers' tables: which are taken, marked and averaged, and why others are missing."""

import random
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from test_paper_tables import table_of
from test_tables import make_record, memory_spec

from tsbench.backbones import hub
from tsbench.bench.checks import lacking_here
from tsbench.bench.records import Failure, Record
from tsbench.config import CellSpec, TsMemoryOptions
from tsbench.errors import TsbenchError
from tsbench.report.cells import Cell, Table
from tsbench.report.labels import LEAK, MISSING
from tsbench.report.layout import LAYOUTS, find_layout

pytestmark = pytest.mark.usefixtures("no_weights_here")
METHODS = ("origin", "raft", "ts-rag", "lora", "ts-memory")


def cell_records(scores: Mapping[tuple[str, int], float], **fields: Any) -> list[Record]:
    """Records of Table 10's methods on ETTh1, on flame-small."""
    records = []
    for (method, horizon), mse in scores.items():
        spec = CellSpec(
            method=method,
            backbone="flame-small",
            dataset="ETTh1",
            horizon=horizon,
            options=TsMemoryOptions() if method == "ts-memory" else None,
        )
        records.append(make_record(spec, mse, **fields))
    return records


def on_flame(name: str, records: Iterable[Record], **asked: Any) -> Table:
    return table_of(name, records, **{"backbones": ["flame-small"]} | asked)


def row_of(table: Table, *labels: str) -> dict[str, Cell]:
    """The cells of a row by the headings of their columns."""
    row = next(cells for cells in table.rows if tuple(c.text for c in cells[: len(labels)]) == labels)
    headings = [" ".join(levels) for levels in zip(*table.over, table.columns, strict=True)]
    return dict(zip(headings[len(labels) :], row[len(labels) :], strict=True))


def test_best_and_second_are_those_of_brute_force() -> None:
    draw = random.Random(0)
    horizons = (96, 192, 336, 720)
    values = {(m, h): draw.randint(3000, 3003) / 1e4 for h in horizons for m in METHODS}
    table = on_flame("ts-memory/10", cell_records(values))
    headings = ("Origin", "RAFT", "TS-RAG", "LoRA", "TS-Memory")
    seconds = 0
    for horizon in horizons:
        row = row_of(table, "ETTh1", str(horizon))
        for method, heading in zip(METHODS, headings, strict=True):
            cell = row[f"{heading} MSE"]
            value = values[method, horizon]
            assert cell.text == f"{value:.4f}"
            smaller = {values[m, horizon] for m in METHODS if values[m, horizon] < value}
            assert cell.best == (not smaller)
            assert cell.second == (len(smaller) == 1)
            seconds += cell.second
    assert seconds > len(horizons)  # some are ties


def test_against_a_perfect_origin_there_is_no_change() -> None:
    scores = {
        (method, h): mse for method, mse in (("origin", 0.0), ("raft", 0.3)) for h in (96, 192, 336, 720)
    }
    assert row_of(on_flame("ts-memory/3", cell_records(scores)), "ETTh1")["RAFT MSE"].text == "0.300"


def test_of_two_there_is_no_second_best() -> None:
    row = row_of(
        on_flame("ts-memory/9", cell_records({("origin", 96): 0.4, ("ts-memory", 96): 0.3})), "ETTh1", "96"
    )
    assert [cell.best for cell in row.values()][::2] == [False, True]
    assert not any(cell.second for cell in row.values())


def test_an_average_needs_all_four_horizons() -> None:
    scores = {("origin", horizon): horizon / 1000 for horizon in (96, 192, 336, 720)}
    cells = cell_records(scores)
    assert row_of(on_flame("ts-memory/10", cells), "ETTh1", "Avg")["Origin MSE"].text == "0.3360"
    assert row_of(on_flame("ts-memory/3", cells), "ETTh1")["Origin MSE"].text == "0.336"
    table = on_flame("ts-memory/10", cells[:-1])
    cell = row_of(table, "ETTh1", "Avg")["Origin MSE"]
    assert cell.text == MISSING
    assert f"{cell.marks}: no average: no result at 720." in table.notes


@pytest.mark.parametrize("fields", [{"device": "Other CPU"}, {"data": "e" * 64}])
def test_an_average_needs_horizons_that_were_run_alike(fields: dict[str, Any]) -> None:
    cells = cell_records({("origin", horizon): 0.4 for horizon in (96, 192, 336)})
    table = on_flame("ts-memory/10", cells + cell_records({("origin", 720): 0.4}, **fields))
    cell = row_of(table, "ETTh1", "Avg")["Origin MSE"]
    assert f"{cell.marks}: no average: the horizons were not run alike." in table.notes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"windows": 2785, "stride": 1}, "all 2785 windows"),
        ({"device": "Other CPU"}, "Other CPU"),
        ({"data": "e" * 64}, "data eeeeeeee"),
    ],
)
def test_what_was_run_otherwise_is_shown_and_not_compared(fields: dict[str, Any], said: str) -> None:
    like = cell_records({("origin", 96): 0.4, ("raft", 96): 0.39, ("ts-rag", 96): 0.38})
    table = on_flame("ts-memory/10", like + cell_records({("lora", 96): 0.1}, **fields))
    row = row_of(table, "ETTh1", "96")
    lora = row["LoRA MSE"]
    assert lora.text == "0.1000"
    assert not lora.best
    assert not lora.second
    assert f"{lora.marks}: {said}; not compared with the rest." in table.notes
    assert (row["TS-RAG MSE"].best, row["RAFT MSE"].second, row["Origin MSE"].marks) == (True, True, "")
    lines = [line for line in table.data if line["method"] == "lora" and line["metric"] == "mse"]
    [line] = [line for line in lines if line["value"] is not None]
    assert (line["compared"], line["change_percent_against_origin"]) == (False, None)


def test_what_a_setting_lacks_is_said_too() -> None:
    dropped = cell_records({("origin", 96): 0.4, ("raft", 96): 0.39})
    dropped = [replace(each, spec=each.spec.model_copy(update={"drop_last": 349})) for each in dropped]
    table = on_flame("ts-memory/10", dropped + cell_records({("lora", 96): 0.1}))
    lora = row_of(table, "ETTh1", "96")["LoRA MSE"]
    assert not lora.best
    note = "without incomplete last batch of 349 dropped; not compared with the rest"
    assert f"{lora.marks}: {note}." in table.notes


def test_profiles_are_not_mixed_and_the_one_that_fills_most_is_taken() -> None:
    full = cell_records({(method, 96): 0.4 for method in METHODS})
    quick = [replace(r, spec=r.spec.model_copy(update={"profile": "quick"})) for r in full[:2]]
    quick = [replace(record, metrics=record.metrics | {"mse": 0.1}, windows=2785) for record in quick]
    row = row_of(on_flame("ts-memory/10", full + quick), "ETTh1", "96")
    assert {row[f"{heading} MSE"].text for heading in ("Origin", "RAFT", "LoRA")} == {"0.4000"}
    assert row_of(on_flame("ts-memory/10", quick), "ETTh1", "96")["Origin MSE"].text == "0.1000"


def test_crps_over_other_levels_does_not_compare() -> None:
    cells = cell_records({("origin", 96): 0.4, ("raft", 96): 0.3})
    other = cell_records({("lora", 96): 0.2}, levels=(0.25, 0.5, 0.75), crps=0.01)
    table = on_flame("ts-memory/10", cells + other)
    row = row_of(table, "ETTh1", "96")
    assert row["LoRA MSE"].best
    assert not row["LoRA CRPS"].best
    assert any(
        "CRPS over 3 levels" in note for note in table.notes if note.startswith(row["LoRA CRPS"].marks)
    )


def test_point_forecasts_have_no_crps() -> None:
    cells = cell_records({("origin", 96): 0.4})
    points = [replace(cell, levels=(), metrics={"mse": 0.4, "mae": 0.4}) for cell in cells]
    table = on_flame("ts-memory/10", points)
    cell = row_of(table, "ETTh1", "96")["Origin CRPS"]
    assert (cell.text, f"{cell.marks}: point forecasts have no CRPS." in table.notes) == (MISSING, True)


def leaking(mse: float, horizon: int = 96) -> Record:
    spec = memory_spec({"alpha_policy": "oracle"}, backbone="flame-small", horizon=horizon)
    return make_record(spec, mse, alpha=0.5)


def test_what_leaks_is_marked_and_never_best() -> None:
    table = on_flame("ts-memory/10", [*cell_records({("origin", 96): 0.4, ("raft", 96): 0.3}), leaking(0.1)])
    row = row_of(table, "ETTh1", "96")
    assert (row["TS-Memory MSE"].text, row["TS-Memory MSE"].marks) == ("0.1000", LEAK)
    assert not row["TS-Memory MSE"].best
    assert row["RAFT MSE"].best
    assert any(note.startswith(f"{LEAK}:") for note in table.notes)


def test_what_leaks_may_be_all_there_is() -> None:
    row = row_of(on_flame("ts-memory/10", [leaking(0.1)]), "ETTh1", "96")
    assert row["TS-Memory MSE"] == Cell("0.1000", marks=LEAK)


def test_an_honest_record_is_taken_before_one_that_leaks_and_a_default_before_a_variant() -> None:
    usual, odd = memory_spec(backbone="flame-small"), memory_spec({"plugmem": "tiny"}, backbone="flame-small")
    records = [leaking(0.1), make_record(odd, 0.2, created="2026-02-02"), make_record(usual, 0.3)]
    row = row_of(on_flame("ts-memory/10", records), "ETTh1", "96")
    assert row["TS-Memory MSE"].text == "0.3000"
    table = on_flame("ts-memory/10", records[:2])
    assert row_of(table, "ETTh1", "96")["TS-Memory MSE"].text == "0.2000"
    assert "As run: TS-Memory, PlugMem tiny." in table.notes


def test_controls_and_other_trainings_do_not_fill_a_table() -> None:
    control = memory_spec({"ablation": "no-retrieval"}, backbone="flame-small")
    other = memory_spec(backbone="flame-small", train_dataset="Weather")
    records = [make_record(spec, 0.1) for spec in (control, other)]
    table = on_flame("ts-memory/10", [*records, *cell_records({("origin", 96): 0.4})])
    assert row_of(table, "ETTh1", "96")["TS-Memory MSE"].text == MISSING
    transferred = on_flame("ts-memory/15", records)
    assert row_of(transferred, "Cross-domain", "96")["TS-Memory ETTh1 MSE"].text == "0.1000"


def test_a_table_of_sizes_takes_that_size_alone() -> None:
    records = [make_record(memory_spec({"plugmem": "tiny"}, backbone="flame-small"), 0.1)]
    records.append(make_record(memory_spec({"plugmem": "large"}, backbone="flame-small"), 0.2))
    table = on_flame("ts-memory/16", records)
    texts = {size: row_of(table, f"PlugMem {size}", "96")["ETTh1 MSE"].text for size in ("base", "large")}
    assert texts == {"base": MISSING, "large": "0.2000"}


def test_seeds_become_a_mean_and_a_sample_deviation() -> None:
    values = [0.4012, 0.4031, 0.4088]
    spec = memory_spec(backbone="flame-small")
    records = [
        make_record(spec.model_copy(update={"seed": seed}), value) for seed, value in enumerate(values)
    ]
    table = on_flame("ts-memory/10", records)
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert row_of(table, "ETTh1", "96")["TS-Memory MSE"].text == f"{mean:.4f} ± {deviation:.4f}"
    assert "±: sample standard deviation over seeds, 3 per figure." in table.notes
    [line] = [line for line in table.data if line["metric"] == "mse" and line["value"] is not None]
    assert (line["value"], line["std"], line["seeds"]) == pytest.approx((mean, deviation, 3))


def test_why_a_figure_is_missing_is_said() -> None:
    spec = memory_spec(backbone="flame-small", horizon=192)
    failed = Failure("0" * 64, spec, "out of\nmemory", "Traceback")
    table = on_flame("ts-memory/10", cell_records({("origin", 96): 0.4}), failures=[failed])
    cell = row_of(table, "ETTh1", "192")["TS-Memory MSE"]
    assert f"{cell.marks}: failed: out of memory." in table.notes
    assert row_of(table, "ETTh1", "192")["LoRA MSE"] == Cell(MISSING)
    assert f"{MISSING}: not run." in table.notes
    published = table_of("f-llm/8", with_published=True)
    assert any(note.endswith("LVICL, Time-LLM and UniTime are not in tsbench.") for note in published.notes)
    assert any("the weights of llama-2-7b are not on this machine" in note for note in published.notes)


@pytest.mark.parametrize("donor", [None, "chronos-bolt-base"])
def test_a_carried_module_needs_the_weights_of_both_backbones(
    donor: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("chronos")
    spec = memory_spec(backbone="chronos-bolt-tiny", plugmem_from=donor)
    monkeypatch.setattr(hub, "is_here", lambda source: source == "amazon/chronos-bolt-tiny")
    assert lacking_here(spec) == (donor and "the weights of chronos-bolt-base are not on this machine")
    monkeypatch.setattr(hub, "is_here", lambda source: source == "amazon/chronos-bolt-base")
    assert lacking_here(spec) == "the weights of chronos-bolt-tiny are not on this machine"


def test_on_another_backbone_carried_modules_are_absent_and_nothing_published_is_beside() -> None:
    table = on_flame("ts-memory/14", cell_records({("origin", 96): 0.4}), with_published=True)
    row = row_of(table, "ETTh1", "96")
    assert row["Chronos2-PlugMem flame-small Origin MSE"].text == "0.4000"
    marks = row["Sundial-PlugMem flame-small TS-Memory MSE"].marks
    assert (
        f"{marks}: a memory module carried between backbones; --backbone flame-small leaves one."
        in table.notes
    )
    assert "Published: nothing on this backbone." in table.notes
    assert table.title.endswith(" · on flame-small")


def test_on_two_backbones_each_halfs_module_is_on_the_other() -> None:
    there = memory_spec(backbone="fracast", plugmem_from="flame-small")
    back = memory_spec(backbone="flame-small", plugmem_from="fracast")
    records = [make_record(there, 0.3), make_record(back, 0.2)]
    table = on_flame("ts-memory/14", records, backbones=["flame-small", "fracast"])
    row = row_of(table, "ETTh1", "96")
    assert row["flame-small-PlugMem fracast TS-Memory MSE"].text == "0.3000"
    assert row["fracast-PlugMem flame-small TS-Memory MSE"].text == "0.2000"
    assert [heading for heading in row if heading.endswith("MSE")] == [
        "flame-small-PlugMem fracast Origin MSE",
        "flame-small-PlugMem fracast TS-Memory MSE",
        "fracast-PlugMem flame-small Origin MSE",
        "fracast-PlugMem flame-small TS-Memory MSE",
    ]
    with pytest.raises(TsbenchError, match="ts-memory/3 has no place for several backbones"):
        on_flame("ts-memory/3", records, backbones=["flame-small", "fracast"])


def test_deviations_from_the_paper_are_percent_of_its_figure() -> None:
    spec = CellSpec(method="origin", backbone="chronos-bolt-base", dataset="ETTh1", horizon=96)
    table = table_of("ts-memory/10", [make_record(spec, 0.42)], with_published=True)
    assert row_of(table, "ETTh1", "96", "published")["Origin MSE"].text == "0.3849"
    assert row_of(table, "ETTh1", "96", "differs by")["Origin MSE"].text == "+9.1%"  # .42 / .3849 - 1
    [line] = [line for line in table.data if line["metric"] == "mse" and line["value"] is not None]
    assert line["deviation_percent"] == pytest.approx(100 * (0.42 / 0.3849 - 1))


def test_a_table_that_nothing_fills_says_what_to_do() -> None:
    with pytest.raises(
        TsbenchError, match="no result fills ts-memory/3; run `tsbench run --suite ts-memory/3`"
    ):
        table_of("ts-memory/3")
    with pytest.raises(TsbenchError, match="unknown backbone 'flame-smal'"):
        table_of("ts-memory/3", backbones=["flame-smal"])
    with pytest.raises(TsbenchError, match="unknown table 'ts-memory/7'"):
        find_layout("ts-memory/7")


def test_a_layout_goes_by_the_name_of_its_suite_too() -> None:
    assert find_layout("ts-memory-table3") is LAYOUTS["ts-memory/3"]
