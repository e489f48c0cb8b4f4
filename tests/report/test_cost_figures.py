"""Which measurement stands beside which record in the figures of costs."""

from dataclasses import replace
from pathlib import Path

import figure_results as fake
import numpy as np
import pytest

from tsbench.bench.latency_records import Measurement, MethodCost
from tsbench.bench.store import ResultsStore
from tsbench.errors import TsbenchError
from tsbench.report.figures.costs import prepare_accuracy_latency, prepare_retrieval_scaling
from tsbench.report.figures.settings import Results

MSE = dict(fake.CELLS)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("results")
    fake.write_results(root)
    return Results(root, tuple(ResultsStore(root).records()))


def test_a_record_goes_with_the_measurement_of_the_same_setting(results: Results) -> None:
    (picture,) = prepare_accuracy_latency(results)
    assert "1 thread, fp32" in picture.note
    horizon, points = picture.panels[0]
    found = {point.label: point for point in points}
    assert horizon == 24
    assert "TS-Memory, PlugMem small" not in found  # timed with the tiny one
    assert [found[label].median_ms for label in ("Origin", "RAFT")] == [20, 25]
    assert found["TS-Memory, PlugMem tiny"].median_ms == 30
    assert found["TS-Memory, PlugMem tiny"].high_ms == pytest.approx(np.percentile([30, 30, 33], 90))
    assert found["RAFT"].mse == MSE[fake.cell("raft", 24)]


def timed(created: str, milliseconds: float, methods: tuple[str, ...], **fields: object) -> Measurement:
    """A measurement of its own in which every method takes that long."""
    usual = fake.measurement(24, methods=methods, **fields)
    rounds = [milliseconds] * 3
    cost = MethodCost({"retrieval": [0.0] * 3, "forward": rounds, "fusion": [0.0] * 3}, 1000, False, {})
    made = replace(usual.provenance, created=created)
    return replace(usual, key=f"{milliseconds}" * 12, costs=dict.fromkeys(methods, cost), provenance=made)


def test_methods_of_a_backbone_are_from_the_newest_measurement_of_most_of_them(
    results: Results, tmp_path: Path
) -> None:
    three = ("origin", "raft", "ts-memory")
    for measured in (
        timed("2026-01-01T00:00:00Z", 10, three),
        timed("2026-01-02T00:00:00Z", 11, three),
        timed("2026-01-03T00:00:00Z", 12, ("origin", "ts-memory")),
        timed("2026-01-04T00:00:00Z", 13, ("origin", "raft"), threads=2),
    ):
        fake.save_measurement(tmp_path, measured)
    one, two = sorted(
        prepare_accuracy_latency(Results(tmp_path, results.records)), key=lambda each: each.note
    )
    assert "1 thread," in one.note and "2 threads," in two.note
    (_, points), (_, others) = one.panels[0], two.panels[0]
    assert {point.label for point in points} >= {"Origin", "RAFT", "TS-Memory, PlugMem tiny"}
    assert {point.median_ms for point in points} == {11}
    assert {(point.label, point.median_ms) for point in others} == {("Origin", 13), ("RAFT", 13)}


def test_a_method_that_keeps_origins_forecast_is_not_drawn_at_a_time_of_its_own(tmp_path: Path) -> None:
    records = (
        fake.record(fake.cell("origin", 24), 0.4),
        fake.record(fake.cell("raft", 24), 0.39),
        fake.record(fake.memory(24), 0.4, alpha=0.0),
        fake.record(fake.cell("lora", 24), 0.4, metrics={"mse": 0.4, "lora_rank": 8.0, "lora_steps": 0.0}),
        *(fake.record(fake.memory(24, ablation="no-gate", seed=s), 0.4, alpha=0.1 * s) for s in (0, 1)),
    )
    fake.save_measurement(
        tmp_path, timed("2026-01-01T00:00:00Z", 10, ("origin", "raft", "lora", "ts-memory"))
    )
    (picture,) = prepare_accuracy_latency(Results(tmp_path, records))
    ((_, points),) = picture.panels
    assert [point.label for point in points] == ["Origin", "RAFT", "TS-Memory, no-gate"]
    assert picture.note.endswith("MSE and time are Origin's: LoRA, TS-Memory on flame-small at H = 24.")
    (picture,) = prepare_accuracy_latency(Results(tmp_path, records[:2]))
    assert "Validation kept" not in picture.note


@pytest.mark.parametrize(
    "changed", [{"lookback": 96}, {"rollout": "expand"}, {"backbone": "fracast"}, {"batch": 8}]
)
def test_a_measurement_of_another_setting_goes_with_no_record(
    changed: dict[str, object], results: Results, tmp_path: Path
) -> None:
    fake.save_measurement(tmp_path, fake.measurement(24, **changed))
    assert prepare_accuracy_latency(Results(tmp_path, results.records)) == []


def test_retrieval_is_drawn_as_the_benchmark_writes_it(results: Results) -> None:
    (picture,) = prepare_retrieval_scaling(results)
    assert picture.lines == {
        "flat, exact, 64 values": {1_000: 1, 10_000: 10, 100_000: 100},
        "flat, exact, 768 values": {1_000: 9, 10_000: 90, 100_000: 900},
        "RAFT, exact, 896 values": {1_000: 12, 10_000: 120, 100_000: 1200},
    }


def test_a_damaged_file_of_readings_is_named(tmp_path: Path) -> None:
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency" / "retrieval-scaling-a.json").write_text("[]")
    with pytest.raises(TsbenchError, match=r"cannot read .*retrieval-scaling-a.json"):
        prepare_retrieval_scaling(Results(tmp_path, ()))
