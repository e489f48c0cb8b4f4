"""Our timings in the papers' tables: taken under one set of conditions, others marked."""

from dataclasses import replace
from typing import Any

import pytest
from test_filled_tables import on_flame, row_of
from test_latency_tables import measured

from tsbench.bench.latency_records import Measurement, MethodCost
from tsbench.errors import TsbenchError
from tsbench.report.cells import Cell, Table
from tsbench.report.labels import MISSING

HORIZONS = (96, 192, 336, 720)


def timed(horizon: int, batch: int | None = 1, **changed: Any) -> Measurement:
    """Origin forecasts 10 ms a query, RAFT retrieves 4 and forwards 8 and fuses 1."""
    asked = {"backbone": "flame-small", "dataset": "ETTh1"} | changed
    made = measured(horizon=horizon, batch=batch, **asked)
    costs = {
        "origin": MethodCost({"retrieval": [0.0], "forward": [10.0], "fusion": [0.0]}, 1, False, {}),
        "raft": MethodCost({"retrieval": [4.0], "forward": [8.0], "fusion": [1.0]}, 1, False, {}),
    }
    scaled = {
        name: replace(
            cost, stages={stage: [ms * made.queries for ms in each] for stage, each in cost.stages.items()}
        )
        for name, cost in costs.items()
    }
    return replace(made, costs=scaled)


def test_timings_fill_their_tables() -> None:
    every = [timed(horizon) for horizon in HORIZONS]
    slower = {name: replace(cost, stages={"forward": [1e6]}) for name, cost in every[0].costs.items()}
    every += [
        replace(every[0], spec=every[0].spec.model_copy(update=other), costs=slower)
        for other in ({"batch": 64}, {"lookback": 96})  # neither stands in the paper's tables
    ]
    table = on_flame("ts-memory/11", (), measurements=every)
    row = row_of(table, "ETTh1", "96")
    assert [row[f"RAFT {name}"].text for name in ("Retr", "Fwd", "Total", "Frac")] == [
        "4.000",
        "9.000",
        "13.000",
        "30.8%",
    ]
    assert row_of(table, "ETTh1", "Δ")["RAFT Total"].text == "+30.00%"
    assert row["LoRA Total"] == Cell(MISSING)
    summary = row_of(on_flame("ts-memory/4", (), measurements=every), "ETTh1")
    assert summary["RAFT Fwd"].text == "9.00 (-10.0%)"
    assert (
        row_of(
            on_flame("ts-memory/4", (), measurements=[*every[1:], timed(24)], with_published=True), "ETTh1"
        )["RAFT Fwd"].text
        == MISSING
    )


def test_whole_evaluations_are_seconds_and_stand_apart_from_single_calls() -> None:
    whole = timed(96, None)
    table = on_flame("ts-memory/12", (), measurements=[whole, timed(96)])
    assert row_of(table, "ETTh1", "96")["RAFT Total"].text == f"{13.0 * whole.queries / 1e3:.1f}"
    with pytest.raises(TsbenchError, match="no result fills ts-memory/11; run `tsbench latency`"):
        on_flame("ts-memory/11", (), measurements=[whole])


def totals(table: Table, horizon: int | str) -> list[Cell]:
    row = row_of(table, "ETTh1", str(horizon))
    return [row["Origin Total"], row["RAFT Total"]]


OTHERWISE = [
    ({"device": "cpu: B"}, "cpu: B"),
    ({"precision": "bf16"}, "bf16"),
    ({"compiled": True}, "fp32, compiled"),
    ({"plugmem": "tiny"}, "PlugMem tiny"),
    ({"threads": 1}, "1 thread"),
    ({"random_init": True}, "random weights"),
    ({"rollout": "expand"}, "roll-out expand"),
]


@pytest.mark.parametrize(("otherwise", "said"), OTHERWISE)
def test_all_horizons_are_of_the_conditions_that_fill_most_places(
    otherwise: dict[str, Any], said: str
) -> None:
    most = [timed(horizon) for horizon in HORIZONS]
    other = timed(96, made="2030-01-01T00:00:00Z", **otherwise)
    slow = {
        name: replace(cost, stages={"retrieval": [0.0], "forward": [50.0], "fusion": [0.0]})
        for name, cost in other.costs.items()
    }
    other = replace(other, costs=slow | {"lora": slow["origin"]})  # more methods, and newer
    table = on_flame("ts-memory/11", (), measurements=[*most, other])
    for horizon in HORIZONS:
        assert totals(table, horizon) == [Cell("10.000"), Cell("13.000")]
    assert [cell.text for cell in totals(table, "Avg")] == ["10.000", "13.000"]
    lora = row_of(table, "ETTh1", "96")["LoRA Total"]
    assert (lora.text, lora.marks) == ("50.000", "a")
    assert f"a: {said}; not compared with the rest." in table.notes
    [run] = [note for note in table.notes if note.startswith("Run with ")]
    assert said not in run.removesuffix(".").split("; ")
    [line] = [each for each in table.data if each["method"] == "lora" and each["metric"] == "total_ms"][:1]
    assert (line["horizon"], line["compared"], line["change_percent_against_origin"]) == ("96", False, None)


def test_a_horizon_that_was_timed_under_other_conditions_alone_is_marked_and_not_averaged() -> None:
    usual = [timed(horizon) for horizon in HORIZONS[:3]]
    table = on_flame("ts-memory/11", (), measurements=[*usual, timed(720, threads=1)])
    for cell in totals(table, 720):
        assert f"{cell.marks}: 1 thread; not compared with the rest." in table.notes
    assert not any(cell.marks for horizon in HORIZONS[:3] for cell in totals(table, horizon))
    for cell in totals(table, "Avg"):
        assert f"{cell.marks}: no average: the horizons were not run alike." in table.notes


def test_of_conditions_that_fill_as_many_places_the_newest_are_taken() -> None:
    older = [timed(horizon, threads=1, made="2026-01-01T00:00:00Z") for horizon in (96, 192)]
    newer = [timed(horizon, threads=4, made="2026-02-01T00:00:00Z") for horizon in (192, 336)]
    for measurements in (older + newer, newer + older):
        table = on_flame("ts-memory/11", (), measurements=measurements)
        assert [bool(totals(table, horizon)[0].marks) for horizon in (96, 192, 336)] == [True, False, False]


def test_what_one_measurement_lacks_another_of_the_same_conditions_fills() -> None:
    both = timed(96)
    apart = [replace(both, costs={name: both.costs[name]}) for name in both.costs]
    table = on_flame("ts-memory/11", (), measurements=apart)
    assert totals(table, 96) == [Cell("10.000"), Cell("13.000")]
