"""The arithmetic of scripts in benchmarks/ against sums done by hand."""

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tsbench
from tsbench.config import CellSpec

BENCHMARKS = Path(tsbench.__file__).parent.parent / "benchmarks"
FORECAST, EMBEDDING = 7_200, 11
TRAIN, OTHER = (
    (700 - 512) * 2,
    300 * 2,
)  # queries of 1000 rows, of which 7 in 10 are trained on, and 2 channels
PAIRS = 3 * 20 * TRAIN  # forward passes of training: three per pair and epoch


@pytest.fixture
def capacity(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names, with one small data set and networks of a few operations."""
    script: dict[str, Any] = runpy.run_path(str(BENCHMARKS / "capacity.py"))
    names: dict[str, Any] = script["cost"].__globals__
    monkeypatch.setitem(names, "SHAPES", {"toy": (1_000, 2)})
    monkeypatch.setitem(names, "query", lambda backbone: (FORECAST, EMBEDDING))
    monkeypatch.setitem(names, "plugmem", lambda horizon: 5 * horizon)
    return names


def cell(method: str, horizon: int = 96) -> CellSpec:
    return CellSpec(method=method, backbone="toy", dataset="toy", horizon=horizon)


def test_a_multiplication_and_an_addition_are_two_operations(capacity: dict[str, Any]) -> None:
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    assert capacity["operations"](lambda: left @ right) == 2 * 3 * 4 * 5


def test_queries_are_windows_times_channels_of_each_part(capacity: dict[str, Any]) -> None:
    assert capacity["windows"]("toy") == (TRAIN, OTHER)
    capacity["SHAPES"]["ETT"] = (1_000, 3)
    assert capacity["windows"]("ETT") == ((600 - 512) * 3, 400 * 3)


@pytest.mark.parametrize(
    ("methods", "forward", "training", "forecasts"),
    [
        (["origin"], OTHER * FORECAST, 0, OTHER),
        (["origin", "raft"], OTHER * FORECAST, 0, OTHER),
        (["ts-rag"], OTHER * FORECAST + TRAIN * EMBEDDING, 0, OTHER),
        (
            ["origin", "ts-memory"],
            (OTHER + TRAIN) * FORECAST + TRAIN * EMBEDDING,
            PAIRS * 5 * 96,
            OTHER + TRAIN,
        ),
        (["origin", "lora"], 2 * OTHER * FORECAST, PAIRS * FORECAST * 96 // 720, OTHER),
    ],
)
def test_cells_of_a_backbone_and_data_set_share_its_pass(
    capacity: dict[str, Any], methods: list[str], forward: int, training: int, forecasts: int
) -> None:
    bytes_cached = forecasts * 9 * 720 * 4
    assert capacity["cost"](map(cell, methods)) == pytest.approx((forward, training, bytes_cached))


def test_other_horizons_cost_training_and_no_pass(capacity: dict[str, Any]) -> None:
    once = capacity["cost"]([cell("ts-memory")])
    both = capacity["cost"]([cell("ts-memory"), cell("ts-memory", 720)])
    assert (both[0], both[2]) == (once[0], once[2])
    assert both[1] == PAIRS * 5 * (96 + 720)


def test_hours_of_the_grid_follow_from_its_operations(capacity: dict[str, Any]) -> None:
    forward, memories, adapters, sizes = kinds = capacity["_jobs"]("toy")
    passes = (OTHER + TRAIN) * FORECAST + TRAIN * EMBEDDING + OTHER * FORECAST
    assert forward == pytest.approx([passes / 8] * 8)
    assert memories == [PAIRS * 5 * horizon for horizon in (96, 192, 336, 720)]
    assert adapters == pytest.approx([PAIRS * FORECAST * horizon / 720 for horizon in (96, 192, 336, 720)])
    assert sizes == [(OTHER + TRAIN) * 9 * 720 * 4]
    tflops = sum(map(sum, kinds[:3])) / 3.6e15  # at which all of it takes an hour
    *amounts, one, eight, one_without, eight_without = capacity["_costs"](kinds, tflops, disk_gbs=2)
    assert amounts == ["0", "0", "0", "0", "0.0"]
    assert one == "1.0"
    longest_first = passes / 8 + max(*memories, *adapters)  # eight jobs, one each
    assert eight == f"{longest_first / (tflops * 3.6e15):,.1f}"
    assert one_without == f"{(passes + sum(memories)) / (tflops * 3.6e15):,.1f}"
    assert eight_without == f"{(passes / 8 + max(memories)) / (tflops * 3.6e15):,.1f}"


def test_amounts_are_in_pflop_and_gb_and_hours(capacity: dict[str, Any]) -> None:
    kinds = ([36e15] * 8, [72e15, 36e15], [180e15], [7.2e12])
    assert capacity["_costs"](kinds, 10, 2) == [
        "288",
        "108",
        "180",
        "7,200",
        "1.0",
        "16.0",
        "6.0",
        "11.0",
        "3.0",
    ]


def test_the_longest_jobs_go_first_to_whoever_is_free(capacity: dict[str, Any]) -> None:
    assert capacity["makespan"]([2, 3, 2, 3, 2], 2) == 7  # 3 2 2 and 3 2; the best would be 6
    assert capacity["makespan"]([2, 3, 2, 3, 2], 1) == 12


def test_errors_of_the_simulation_have_the_ratio_and_the_overlap_that_it_says() -> None:
    script = runpy.run_path(str(BENCHMARKS / "dm_size.py"))
    block, blocks = 4, 20_000
    pair = script["error_pair"](np.random.default_rng(0), block, blocks)
    ours, reference = (errors.reshape(blocks, block) for errors in pair)
    assert ours.mean() / reference.mean() == pytest.approx(0.95, abs=0.005)
    assert np.corrcoef(ours[:, 0], reference[:, 0])[0, 1] == pytest.approx(0.9**2, abs=0.02)
    for apart in range(1, block):
        assert np.corrcoef(ours[:, 0], ours[:, apart])[0, 1] == pytest.approx(1 - apart / block, abs=0.02)
    assert np.corrcoef(ours[1:, 0], ours[:-1, 0])[0, 1] == pytest.approx(0, abs=4 / math.sqrt(blocks))


def test_the_simulation_counts_the_intervals_that_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(BENCHMARKS / "dm_size.py"))
    reference, noise = 10 + np.random.default_rng(0).standard_normal((2, 120))
    pairs = iter(
        [((ratio * reference + noise - noise.mean()), reference) for ratio in (0.95, 0.95, 0.5, 0.95)]
    )
    monkeypatch.setitem(script["coverage"].__globals__, "error_pair", lambda *drawn: next(pairs))
    assert script["coverage"](draws=4, block=4, blocks=30, seed=0) == "75.00"
