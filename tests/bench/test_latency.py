"""Timing: every method gets the same queries in turn, on its real path, and readings survive the disk."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from tsbench.backbones.base import BackboneOptions, Forecaster
from tsbench.backbones.random_weights import random_backbone
from tsbench.bench.latency import autocast, prepare, queries, run_latency, time_rounds
from tsbench.bench.latency_grid import check_latency, latency_specs
from tsbench.bench.latency_records import Measurement, load_measurements, measurement_key, save_measurement
from tsbench.bench.runner import Bench
from tsbench.bench.stopwatch import Stopwatch
from tsbench.bench.store import ResultsStore
from tsbench.config import LatencySpec
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster, predict_in_stages

LOOKBACK = 48
SPEC = LatencySpec(
    methods=("origin", "raft", "ts-rag", "ts-memory"),
    backbone="toy",
    dataset="demo",
    horizon=12,
    lookback=LOOKBACK,
    batch=3,
    repeats=4,
    warm_up=2,
    plugmem="tiny",
    threads=1,
)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    toy.install(monkeypatch)
    return Bench(ResultsStore(tmp_path / "results"))


def clock() -> Stopwatch:
    """Every reading is a millisecond after the one before."""
    ticks = count(0, 1_000_000)
    return Stopwatch(torch.device("cpu"), lambda: next(ticks))


def forecasters(*names: str) -> dict[str, Forecaster]:
    return {name: toy.load(BackboneOptions(name)) for name in names}


def test_methods_take_turns_and_none_is_always_behind_the_same() -> None:
    order: list[tuple[int, str]] = []

    def once(forecaster: Forecaster, number: int, lap: Callable[[str], None]) -> None:
        order.append((number, forecaster.name))
        lap("forward")

    readings = time_rounds(forecasters("a", "b", "c"), once, clock(), warm_up=1, repeats=20)
    turns = ["".join(name for round_, name in order if round_ == number) for number in range(21)]
    assert {"".join(sorted(turn)) for turn in turns} == {"abc"}
    assert {turn[place : place + 2] for turn in turns for place in (0, 1)} == {
        first + second for first in "abc" for second in "abc" if first != second
    }
    assert {name: len(rounds) for name, rounds in readings.items()} == {"a": 20, "b": 20, "c": 20}
    assert readings["a"] == [{"forward": 1.0}] * 20
    first_time = list(order)
    order.clear()
    time_rounds(forecasters("a", "b", "c"), once, clock(), warm_up=1, repeats=20)
    assert order == first_time


def test_no_forecast_finds_what_another_left_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Remembering(toy.Toy):
        def forget(self) -> None:
            events.append("forget")

        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            events.append("forecast")
            return super().predict(context, horizon)

    monkeypatch.setattr(toy, "load", lambda options: Remembering(options.name, season=24))
    run_latency(bench, [SPEC.model_copy(update={"methods": ("origin", "ts-memory")})])
    rounds = SPEC.warm_up + SPEC.repeats
    assert events == ["forget", "forecast"] * 2 * rounds


def test_every_round_has_other_queries_and_they_are_test_windows(bench: Bench) -> None:
    task = prepare(bench, SPEC, toy.load(BackboneOptions("toy"))).task
    drawn = queries(task, SPEC, rounds=6, batch=3)
    assert drawn.shape == (6, 3, LOOKBACK)
    rows = drawn.flatten(0, 1).numpy()
    series = task.scaled[:, 0]
    ends = [start for row in rows for start in places(series, row)]
    assert len(set(ends)) == 18
    assert min(ends) >= task.borders.test[0]


def places(series: np.ndarray, context: np.ndarray) -> Iterator[int]:
    """First rows after each occurrence of a context in the series."""
    windows = np.lib.stride_tricks.sliding_window_view(series, len(context))
    yield from np.flatnonzero((windows == context).all(axis=1)) + len(context)


def test_stages_are_named_after_what_happens_in_them_and_forecasts_stay_the_same(bench: Bench) -> None:
    prepared = prepare(bench, SPEC, toy.load(BackboneOptions("toy")))
    context = queries(prepared.task, SPEC, rounds=1, batch=3)[0]
    stages: dict[str, list[str]] = {}
    for method, fitted in prepared.fitted.items():
        ended: list[str] = stages.setdefault(method, [])
        staged = predict_in_stages(fitted.forecaster, context, SPEC.horizon, ended.append)
        assert torch.equal(staged, fitted.forecaster.predict(context, SPEC.horizon))
        assert staged.shape == (3, 9, SPEC.horizon)
    assert stages == {
        "origin": ["forward"],
        "raft": ["forward", "retrieval", "fusion"],
        "ts-rag": ["forward", "retrieval", "fusion"],
        "ts-memory": ["forward", "forward", "fusion"],
    }


def test_retrieval_searches_every_train_window_of_the_channel(bench: Bench) -> None:
    prepared = prepare(bench, SPEC, toy.load(BackboneOptions("toy")))
    task = prepared.task
    first, end = task.borders.train
    windows = end - first - LOOKBACK - SPEC.horizon + 1
    assert task.channels == 1
    for method in ("raft", "ts-rag"):
        assert prepared.fitted[method].diagnostics["known_windows"] == windows
    fused = prepared.fitted["ts-memory"].forecaster
    assert isinstance(fused, FusedForecaster)
    assert fused.alpha == 0.5


def test_all_methods_forecast_equally_many_queries_and_stages_add_up(bench: Bench) -> None:
    evaluation = SPEC.model_copy(update={"batch": None, "repeats": 1, "warm_up": 0, "test_stride": 50})
    single, whole = run_latency(bench, [SPEC, evaluation])
    assert single.queries == 3
    rows = bench.dataset("demo").values.shape[0]
    first, end = prepare(bench, SPEC, toy.load(BackboneOptions("toy"))).task.borders.test
    assert whole.queries == len(range(first, end - SPEC.horizon + 1, 50))
    assert end <= rows
    for measured, rounds, stages in (
        (single, 4, {"retrieval", "forward", "fusion"}),
        (whole, 1, {"retrieval", "forward", "fusion", "other"}),
    ):
        assert tuple(measured.costs) == SPEC.methods
        for method, cost in measured.costs.items():
            assert set(cost.stages) == stages
            assert {len(spent) for spent in cost.stages.values()} == {rounds}
            assert cost.totals == [sum(parts) for parts in zip(*cost.stages.values(), strict=True)]
            assert all(total > 0 for total in cost.totals)
            assert (sum(cost.stages["retrieval"]) > 0) == (method in ("raft", "ts-rag"))
            assert cost.untrained == (method == "ts-memory")
        assert measured.provenance.device.startswith("cpu")
        assert measured.provenance.threads == 1


def test_a_measurement_survives_the_disk_and_a_rerun_replaces_it(bench: Bench, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"methods": ("origin", "ts-memory"), "repeats": 1, "warm_up": 0})
    (measured,) = run_latency(bench, [spec])
    assert load_measurements(bench.store.root) == [measured]
    (again,) = run_latency(bench, [spec])
    assert load_measurements(bench.store.root) == [again]
    assert measured.key == again.key


def test_another_device_setting_or_data_set_makes_another_file(bench: Bench) -> None:
    key = measurement_key(SPEC, "data", "cpu: A")
    assert key == measurement_key(SPEC.model_copy(), "data", "cpu: A")
    for other in (
        measurement_key(SPEC, "data", "cpu: B"),
        measurement_key(SPEC, "other", "cpu: A"),
        measurement_key(SPEC.model_copy(update={"threads": 2}), "data", "cpu: A"),
        measurement_key(SPEC.model_copy(update={"precision": "bf16"}), "data", "cpu: A"),
    ):
        assert other != key


def test_a_damaged_file_is_named(bench: Bench) -> None:
    spec = SPEC.model_copy(update={"methods": ("origin",), "repeats": 1, "warm_up": 0})
    (measured,) = run_latency(bench, [spec])
    path = save_measurement(bench.store.root, measured)
    path.write_text(path.read_text()[:100])
    with pytest.raises(TsbenchError, match=path.name):
        load_measurements(bench.store.root)


def test_lora_without_training_forecasts_as_its_backbone_and_counts_its_adapters(bench: Bench) -> None:
    pytest.importorskip("peft")
    spec = SPEC.model_copy(
        update={"methods": ("origin", "lora"), "backbone": "flame-small", "random_init": True, "repeats": 1}
    )
    (measured,) = run_latency(bench, [spec])
    origin, lora = measured.costs["origin"], measured.costs["lora"]
    assert origin.parameters is not None
    assert lora.parameters == origin.parameters + lora.settings["lora_parameters"]
    assert "random weights" in measured.provenance.backbone_identity
    backbone = random_backbone(BackboneOptions("flame-small"))
    prepared = prepare(bench, spec, backbone)
    context = queries(prepared.task, spec, 1, 2)[0]
    adapted = prepared.fitted["lora"].forecaster.predict(context, spec.horizon)
    assert torch.equal(adapted, backbone.predict(context, spec.horizon))


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_reduced_precision_reaches_the_backbone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    seen: set[torch.dtype | None] = set()

    class Watching(toy.Toy):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            seen.add(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None)
            return super().predict(context, horizon)

    monkeypatch.setattr(toy, "load", lambda options: Watching(options.name, season=24))
    for precision, expected in (("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        seen.clear()
        fresh = Bench(bench.store)
        asked = {"precision": precision, "device": device, "repeats": 1}
        run_latency(fresh, specs(**asked, end_to_end=True, test_stride=200))
        assert seen == {expected}


@pytest.mark.parametrize(("device", "kind"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda")])
def test_autocast_is_that_of_the_device_that_networks_run_on(device: str, kind: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # where there is no GPU
        chosen = autocast(SPEC.model_copy(update={"device": device, "precision": "bf16"}))
    assert (chosen.device, chosen.fast_dtype) == (kind, torch.bfloat16)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_reaches_the_memory_module(bench: Bench, precision: str) -> None:
    spec = SPEC.model_copy(
        update={"methods": ("origin", "ts-memory"), "backbone": "flame-small", "repeats": 1, "warm_up": 0}
    )
    exact = prepare(bench, spec, random_backbone(BackboneOptions("flame-small")))
    reduced = spec.model_copy(update={"precision": precision})
    coarse = prepare(bench, reduced, random_backbone(BackboneOptions("flame-small")))
    context = queries(exact.task, spec, 1, 2)[0]
    memory = [each.fitted["ts-memory"].forecaster.companion for each in (exact, coarse)]  # type: ignore[attr-defined]
    first, second = (each.predict(context, spec.horizon) for each in memory)
    assert not torch.equal(first, second)
    assert torch.allclose(first, second, atol=0.1)


def specs(**changed: object) -> list[LatencySpec]:
    asked = {
        "methods": ["origin"],
        "backbone": "toy",
        "datasets": ["demo"],
        "horizons": [12],
        "batches": [1],
        "end_to_end": False,
        "test_stride": 1,
        "threads": 1,
        **changed,
    }
    return latency_specs(**asked)  # type: ignore[arg-type]


def test_settings_are_every_combination_with_an_evaluation_per_horizon(bench: Bench) -> None:
    asked = specs(
        **{"horizons": [12, 24, 12], "batches": [1, 64, 1], "datasets": ["demo", "demo"]},
        **{"end_to_end": True, "test_stride": 7, "methods": ["raft", "raft"]},
    )
    assert [(spec.horizon, spec.batch, spec.repeats, spec.test_stride) for spec in asked] == [
        (12, 1, 50, 1),
        (12, 64, 50, 1),
        (12, None, 1, 7),
        (24, 1, 50, 1),
        (24, 64, 50, 1),
        (24, None, 1, 7),
    ]
    assert {spec.methods for spec in asked} == {("raft",)}


@pytest.mark.parametrize(
    ("compiled", "device", "first"), [(False, "cpu", 0), (True, "cpu", 1), (False, "cuda", 1)]
)
def test_an_evaluation_comes_after_one_that_does_not_count_where_first_calls_cost_more(
    bench: Bench, compiled: bool, device: str, first: int
) -> None:
    evaluation = specs(compiled=compiled, device=device, end_to_end=True)[-1]
    assert (evaluation.batch, evaluation.warm_up, evaluation.repeats) == (None, first, 1)
    assert evaluation.device == device


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"methods": ["origin", "f-llm"]}, "not f-llm"),
        ({"backbone": "smollm2"}, "forecasts no windows as it is"),
        ({"backbone": "naive-last", "methods": ["ts-rag"]}, "needs a backbone with an encoder"),
        ({"random_init": True}, "--random-init knows the shapes of chronos-bolt-tiny"),
        ({"backbone": "flame-base", "random_init": True, "checkpoint": "here"}, "exclude each other"),
        ({"horizons": [100_000]}, "longer than the test split"),
        ({"datasets": ["M4-Hourly"]}, "windows of a long data set"),
        ({"device": "tpu"}, "unknown device"),
        ({"compiled": True, "warm_up": 0}, "give --warm-up 1"),
    ],
)
def test_mistakes_are_found_before_any_work(bench: Bench, changed: dict[str, object], said: str) -> None:
    with pytest.raises(TsbenchError, match=said):
        check_latency(bench, specs(**changed))


def test_compiling_without_a_compiler_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TsbenchError, match="needs a C\\+\\+ compiler"):
        check_latency(bench, specs(compiled=True))


def test_compiling_reaches_each_network_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    backbone = random_backbone(BackboneOptions("flame-small"))
    spec = SPEC.model_copy(update={"methods": ("origin", "raft", "ts-memory"), "compiled": True})
    prepared = prepare(bench, spec, backbone)
    fused = prepared.fitted["ts-memory"].forecaster
    assert isinstance(fused, FusedForecaster)
    expected = {backbone.model, fused.companion.network}  # type: ignore[attr-defined]
    assert len(compiled) == 2
    assert set(compiled) == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"compiled": True}, r"with --compile \(no kernel for you\); leave out --compile"),
        ({"precision": "bf16"}, r"with --dtype bf16 \(no kernel for you\); leave out --dtype bf16"),
        ({"compiled": True, "precision": "fp16"}, "leave out --compile or --dtype fp16"),
    ],
)
def test_a_network_that_cannot_run_as_asked_is_one_line_and_other_errors_stay_what_they_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], said: str
) -> None:
    message = "no kernel\nfor you"

    class Failing(toy.Toy):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            raise RuntimeError(message)

    monkeypatch.setattr(toy, "load", lambda options: Failing(options.name, season=24))
    with pytest.raises(TsbenchError, match=said):
        run_latency(Bench(bench.store), specs(**changed))
    with pytest.raises(RuntimeError, match=r"^no kernel"):
        run_latency(Bench(bench.store), specs())
    message = "DefaultCPUAllocator: can't allocate memory"
    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"):
        run_latency(Bench(bench.store), specs(**changed))


def test_lora_on_a_backbone_that_it_cannot_adapt_is_refused_before_timing(bench: Bench) -> None:
    with pytest.raises(TsbenchError, match="method 'lora' adapts"):
        run_latency(bench, specs(methods=["origin", "lora"]))
    assert not load_measurements(bench.store.root)


def test_measurements_compare_by_content(bench: Bench) -> None:
    (measured,) = run_latency(bench, specs(repeats=1, warm_up=0))
    assert isinstance(measured, Measurement)
    assert replace(measured, queries=2) != measured
