"""Tables of timings: their figures against numpy, and one device per table."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from figure_results import MADE

from tsbench.bench.latency_records import ColdStart, Measurement, MethodCost
from tsbench.config import LatencySpec
from tsbench.report.latency import cost_figures, latency_tables
from tsbench.report.render import render

SPEC = LatencySpec(methods=("origin", "raft"), backbone="toy", dataset="demo", horizon=96, batch=4, threads=2)
FORWARD = [40.0, 44.0, 48.0, 52.0]
COSTS = {
    "origin": MethodCost({"retrieval": [0.0] * 4, "forward": FORWARD, "fusion": [0.0] * 4}, 1_000, False, {}),
    "raft": MethodCost(
        {"retrieval": [8.0, 8.0, 12.0, 20.0], "forward": [40.0] * 4, "fusion": [4.0] * 4},
        1_000,
        False,
        {"known_windows": 1793.0, "known_mb": 6.1},
        ColdStart(1.5, 0.25, 0.125, 512.0, None),
    ),
}


def measured(device: str = "cpu: A", made: str = MADE.created, **changed: Any) -> Measurement:
    spec = SPEC.model_copy(update=changed)
    queries = 100 if spec.batch is None else spec.batch
    costs = dict(COSTS)
    if spec.batch is None:
        costs = {
            name: replace(cost, stages={**cost.stages, "other": [1.0] * 4}) for name, cost in costs.items()
        }
    return Measurement("k", spec, queries, costs, replace(MADE, device=device, created=made))


def test_figures_are_per_query_and_agree_with_numpy() -> None:
    figures = cost_figures(measured(), "raft")
    totals = np.array([52.0, 52.0, 56.0, 64.0]) / 4
    assert figures["retrieval_ms"] == 3.0
    assert figures["forward_ms"] == 10.0
    assert figures["fusion_ms"] == 1.0
    assert figures["total_ms"] == figures["retrieval_ms"] + figures["forward_ms"] + figures["fusion_ms"]
    assert figures["retrieval_fraction"] == pytest.approx(12 / 56)
    for level in (50, 90, 99):
        assert figures[f"p{level}_ms"] == np.percentile(totals, level)


def test_the_overhead_is_the_median_of_paired_differences() -> None:
    differences = (np.array([52.0, 52.0, 56.0, 64.0]) - FORWARD) / 4
    figures = cost_figures(measured(), "raft")
    assert figures["against_origin_ms"] == np.median(differences)
    assert differences.min() <= figures["against_origin_ms_low"] <= np.median(differences)
    assert np.median(differences) <= figures["against_origin_ms_high"] <= differences.max()
    assert cost_figures(measured(), "origin")["against_origin_ms"] is None


def test_a_single_round_has_a_difference_and_no_interval() -> None:
    once = {
        name: replace(cost, stages={stage: spent[:1] for stage, spent in cost.stages.items()})
        for name, cost in COSTS.items()
    }
    tables = latency_tables([replace(measured(), costs=once)])
    row = dict(zip(tables[0].columns, (cell.text for cell in tables[0].rows[1]), strict=True))
    assert (row["Against Origin, ms"], row["Against Origin, %"]) == ("+3.000", "+30.0 %")
    assert "those of 1 round," in tables[0].notes[0]
    figures = json.loads(render(tables, "json"))[1]
    assert figures["against_origin_ms"] == 3
    assert figures["against_origin_ms_low"] is figures["against_origin_ms_high"] is None


def test_without_origin_there_is_no_overhead() -> None:
    alone = replace(measured(), costs={"raft": COSTS["raft"]})
    (table, _) = latency_tables([alone])
    row = dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))
    assert row["Against Origin, ms"] == row["Against Origin, %"] == "–"


def test_devices_settings_and_batch_sizes_never_share_a_table_and_every_row_names_its_device() -> None:
    variants = [
        measured(),
        measured("NVIDIA H100"),
        measured(batch=1),
        measured(batch=None),
        measured(precision="bf16"),
        measured(threads=1),
        measured(compiled=True),
        measured(random_init=True),
    ]
    tables = latency_tables(variants)
    assert len({table.title for table in tables}) == len(tables) == 2 * 7 + 1
    for table in tables:
        devices = {row[table.columns.index("Device")].text for row in table.rows}
        assert len(devices) == 1
        assert devices.pop() in table.title
        assert {figures["device"] for figures in table.data} <= {
            row[table.columns.index("Device")].text for row in table.rows
        }


def test_horizons_share_a_table_in_order() -> None:
    tables = latency_tables([measured(horizon=720), measured(horizon=96)])
    assert [row[0].text for row in tables[0].rows] == ["96", "96", "720", "720"]
    assert len(tables) == 2


def test_an_evaluation_is_shown_in_seconds_with_its_queries() -> None:
    (table,) = latency_tables([measured(batch=None, test_stride=24)])
    rows = [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]
    assert [row["Method"] for row in rows] == ["Origin", "RAFT"]
    assert {row["Queries"] for row in rows} == {"100"}
    assert rows[1]["Total"] == f"{np.mean([53, 53, 57, 65]) / 1e3:.2f}"
    assert rows[1]["Against Origin"] == f"{100 * (57 / 47 - 1):+.1f} %"
    assert "test stride 24" in table.title


def test_cold_starts_and_sizes_are_shown() -> None:
    table = latency_tables([measured()])[1]
    rows = [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]
    assert rows[0]["Load, s"] == "–"
    assert rows[1]["Load, s"] == "1.50"
    assert rows[1]["Prepare, s"] == "0.25"
    assert rows[1]["First forecast, s"] == "0.125"
    assert rows[1]["Peak host memory, MiB"] == "512"
    assert rows[1]["Peak GPU memory, MiB"] == "–"
    assert rows[1]["Windows to search"] == "1,793"


def test_programs_get_one_row_per_method_with_its_device() -> None:
    tables = latency_tables([measured(), measured("NVIDIA H100")])
    rows = json.loads(render(tables, "json"))
    assert [(row["method"], row["device"]) for row in rows] == [
        ("origin", "NVIDIA H100"),
        ("raft", "NVIDIA H100"),
        ("origin", "cpu: A"),
        ("raft", "cpu: A"),
    ]
    assert all(row["total_ms"] > 0 and row["untrained"] is False for row in rows)
    assert len(render(tables, "csv").splitlines()) == 5


def test_the_memory_of_a_cold_start_is_that_of_its_own_process() -> None:
    row = next(
        row for row in json.loads(render(latency_tables([measured()]), "json")) if row["method"] == "raft"
    )
    assert row["peak_rss_mb"] == 512
