"""Timing methods side by side: the same queries, one method after the other in every round, on one device."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from tsbench.backbones.base import Backbone, BackboneOptions, Forecaster, RollOut, resolve_device
from tsbench.backbones.batching import is_out_of_memory
from tsbench.backbones.chronos import Chronos2, ChronosBolt
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.random_weights import random_backbone
from tsbench.bench.evaluate import evaluate
from tsbench.bench.latency_records import (
    ColdStart,
    Measurement,
    MethodCost,
    measurement_key,
    save_measurement,
)
from tsbench.bench.networks import compiled, parameter_count, require_compilable
from tsbench.bench.provenance import device_name, peak_rss_mb, provenance
from tsbench.bench.runner import Bench, cache_budget
from tsbench.bench.stopwatch import Stopwatch
from tsbench.bench.store import ResultsStore
from tsbench.choices import TimingPrecision
from tsbench.config import PROFILES, CellSpec, LatencySpec
from tsbench.data.dataset import Dataset
from tsbench.data.paths import home
from tsbench.data.windows import evenly_spaced, gather_contexts
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import Lap, predict_in_stages
from tsbench.methods.lora import adaptable_family
from tsbench.methods.task import Fitted, Task, make_task
from tsbench.methods.untrained import untrained
from tsbench.registry import NOT_TRAINED

_STAGES = ("retrieval", "forward", "fusion")
_REDUCED: dict[TimingPrecision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

Once = Callable[[Forecaster, int, Callable[[str], None]], None]
"""Runs a forecaster in a round of this number and tells when its stages end."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that is ready before a clock starts.

    Attributes:
        task: The last channel of the data set, at one horizon.
        frozen: The backbone over it.
        fitted: The forecaster of each method, untrained.
    """

    task: Task
    frozen: FrozenBackbone
    fitted: dict[str, Fitted]


def run_latency(
    bench: Bench, specs: Iterable[LatencySpec], *, cold_starts: bool = False
) -> list[Measurement]:
    """Measure settings and store what was read, in place of earlier readings of the same on this device.

    Args:
        bench: Gives the data and says where to store.
        specs: Settings that share backbone, threads and device; those of one data set and horizon in a row
            share their preparation.
        cold_starts: Also start a process for each method, see `ColdStart`.

    Raises:
        TsbenchError: A method does not go with the backbone; see also `check_latency`.
    """
    measured = []
    for _, of_dataset in groupby(specs, key=lambda spec: spec.dataset):
        settings = list(of_dataset)
        set_threads(settings[0].threads)
        backbone = load(bench, settings[0])
        if "lora" in settings[0].methods:
            adaptable_family(backbone)
        if settings[0].compiled:
            require_compilable(backbone, settings[0].lookback)
        for horizon, at_horizon in groupby(settings, key=lambda spec: spec.horizon):
            group = list(at_horizon)
            bench.progress(f"{group[0].dataset} H={horizon}: preparing {', '.join(group[0].methods)}")
            prepared = prepare(bench, group[0], backbone)
            for spec in group:
                measured.append(_measurement(bench, spec, prepared, cold_starts))
                bench.progress(f"stored {save_measurement(bench.store.root, measured[-1])}")
    return measured


def set_threads(threads: int) -> None:
    """Pin the CPU threads of PyTorch and faiss."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)


def load(bench: Bench, spec: LatencySpec) -> Backbone:
    """Load the backbone, or make one with random weights, in the number format asked for.

    Networks run under autocast. Chronos, whose package loads such weights, also stores them in that format,
    so that they are not converted at every call.
    """
    backbone: Any
    if spec.random_init:
        options = BackboneOptions(spec.backbone, device=spec.device, rollout=spec.rollout)
        backbone = random_backbone(options)
    else:
        backbone = bench.backbone(_cell(spec, "origin"))
    if spec.precision != "fp32" and isinstance(backbone, ChronosBolt | Chronos2):
        backbone = replace(
            backbone,
            model=backbone.model.to(_REDUCED[spec.precision]),
            identity=f"{backbone.identity}-{spec.precision}",
        )
    return backbone  # type: ignore[no-any-return]


def prepare(bench: Bench, spec: LatencySpec, backbone: Backbone) -> Prepared:
    """Make the forecaster of every method over the data set's last channel, with all its train windows.

    Raises:
        TsbenchError: A method does not go with the backbone.
    """
    profile = PROFILES["paper"].model_copy(update={"plugmem": spec.plugmem})
    dataset = _last_channel(bench.dataset(spec.dataset))
    tasks = {
        method: make_task(_cell(spec, method), profile, dataset, home() / "artifacts", bench.progress)
        for method in spec.methods
    }
    task = next(iter(tasks.values()))
    cache = home() / "forecasts"
    frozen = FrozenBackbone(backbone, task.scaled, spec.lookback, cache, cache_budget(), device=spec.device)
    fitted = {method: untrained(tasks[method], frozen, spec.precision) for method in spec.methods}
    if spec.compiled:
        run = compiled({method: each.forecaster for method, each in fitted.items()})
        fitted = {method: replace(each, forecaster=run[method]) for method, each in fitted.items()}
    return Prepared(task, frozen, fitted)


def time_rounds(
    forecasters: Mapping[str, Forecaster],
    once: Once,
    watch: Stopwatch,
    warm_up: int,
    repeats: int,
    forget: Callable[[], None] = lambda: None,
) -> dict[str, list[dict[str, float]]]:
    """Run every forecaster once per round, so that whatever drifts hits all of them.

    Every round has an order of its own, so that none is always behind the same; they repeat at each call.

    Args:
        forecasters: By name.
        once: What is timed.
        watch: Times it.
        warm_up: Rounds that are not recorded.
        repeats: Rounds after them.
        forget: Called before every run, outside the clock, so that none finds what another left behind.

    Returns:
        By name, milliseconds of each stage in each recorded round.
    """
    orders = np.random.default_rng(0)
    readings: dict[str, list[dict[str, float]]] = {name: [] for name in forecasters}
    for number in range(warm_up + repeats):
        for name in orders.permutation(list(forecasters)):
            forget()
            watch.start()
            once(forecasters[name], number, watch.lap)
            spent = watch.stop()
            if number >= warm_up:
                readings[name].append(spent)
    return readings


def queries(task: Task, spec: LatencySpec, rounds: int, batch: int) -> torch.Tensor:
    """Contexts [rounds, B, L] from evenly spaced test windows, on the device.

    Every round has other windows, as long as there are enough.
    """
    starts = task.test_windows().starts
    spread = starts[evenly_spaced(len(starts), rounds * batch)]
    contexts = gather_contexts(task.scaled, np.resize(spread, rounds * batch), spec.lookback)
    return torch.from_numpy(contexts).view(rounds, batch, spec.lookback).to(resolve_device(spec.device))


def _measurement(bench: Bench, spec: LatencySpec, prepared: Prepared, cold_starts: bool) -> Measurement:
    started = time.perf_counter()
    task, backbone = prepared.task, prepared.frozen.backbone
    forecasters = {method: fitted.forecaster for method, fitted in prepared.fitted.items()}
    per_round, once = _query(prepared, spec) if spec.batch else _evaluation(prepared, spec)
    bench.progress(
        f"{spec.dataset} H={spec.horizon}: {spec.warm_up} + {spec.repeats} rounds of {per_round} queries, "
        f"{len(forecasters)} methods"
    )
    if spec.compiled:
        torch.compiler.reset()  # what was compiled for the shapes of earlier settings would serve these too
    watch, forget = Stopwatch(resolve_device(spec.device)), getattr(backbone, "forget", lambda: None)
    try:
        readings = time_rounds(forecasters, once, watch, spec.warm_up, spec.repeats, forget)
    except RuntimeError as error:
        asked = ["--compile"] if spec.compiled else []
        asked += [f"--dtype {spec.precision}"] if spec.precision != "fp32" else []
        if not asked or is_out_of_memory(error):
            raise
        cause = " ".join(str(error).split())[:200]
        raise TsbenchError(
            f"forecasts fail with {' '.join(asked)} ({cause}); leave out {' or '.join(asked)}"
        ) from error
    stages = _STAGES if spec.batch else (*_STAGES, "other")
    costs = {
        method: MethodCost(
            stages={stage: [spent.get(stage, 0.0) for spent in rounds] for stage in stages},
            parameters=parameter_count(forecasters[method]),
            untrained=method not in NOT_TRAINED,
            settings=prepared.fitted[method].diagnostics,
            cold_start=cold_start(bench, spec, method) if cold_starts and spec.batch else None,
        )
        for method, rounds in readings.items()
    }
    sha256 = task.dataset.sha256
    return Measurement(
        key=measurement_key(spec, sha256, device_name(spec.device)),
        spec=spec,
        queries=per_round,
        costs=costs,
        provenance=provenance(sha256, backbone.identity, spec.device, time.perf_counter() - started),
    )


def _query(prepared: Prepared, spec: LatencySpec) -> tuple[int, Once]:
    """Queries per round, and the forecast of a batch of them."""
    assert spec.batch is not None
    contexts = queries(prepared.task, spec, spec.warm_up + spec.repeats, spec.batch)

    def once(forecaster: Forecaster, number: int, lap: Callable[[str], None]) -> None:
        _forecast(forecaster, contexts[number], spec, lap)

    return spec.batch, once


def _evaluation(prepared: Prepared, spec: LatencySpec) -> tuple[int, Once]:
    """Test windows, and their evaluation: contexts are cut out and forecasts scored, nothing is cached."""
    task = prepared.task
    task = replace(task, spec=task.spec.model_copy(update={"test_stride": spec.test_stride}))
    frozen = replace(prepared.frozen, directory=None)
    grid = task.test_windows()

    def once(forecaster: Forecaster, number: int, lap: Callable[[str], None]) -> None:
        evaluate(_Timed(forecaster, spec, lap), frozen, grid, task.scaler)
        lap("other")

    return len(grid.starts), once


def _forecast(forecaster: Forecaster, context: torch.Tensor, spec: LatencySpec, lap: Lap) -> torch.Tensor:
    with autocast(spec):
        return predict_in_stages(forecaster, context, spec.horizon, lap)


def autocast(spec: LatencySpec) -> torch.autocast:
    """Autocast of the device that networks run on, wherever contexts come from."""
    reduced = _REDUCED.get(spec.precision, torch.bfloat16)
    return torch.autocast(torch.device(spec.device).type, reduced, enabled=spec.precision != "fp32")


@dataclass(frozen=True, eq=False)
class _Timed:
    """A forecaster that tells an evaluation's stopwatch when its stages begin and end."""

    forecaster: Forecaster
    spec: LatencySpec
    lap: Callable[[str], None]

    @property
    def name(self) -> str:
        return self.forecaster.name

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        return self.forecaster.quantile_levels

    @property
    def rollout(self) -> RollOut:
        return self.forecaster.rollout

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        self.lap("other")
        return _forecast(self.forecaster, context, self.spec, self.lap)


def cold_start(bench: Bench, spec: LatencySpec, method: str) -> ColdStart:
    """Load the backbone and forecast once with a method, in a process of its own."""
    bench.progress(f"{spec.dataset} H={spec.horizon}: {method} in a fresh process")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        alone = spec.model_copy(update={"methods": (method,)})
        return pool.submit(_start_cold, bench.mirror, bench.own_data, alone).result()


def _start_cold(mirror: Path | None, own_data: dict[str, Dataset], spec: LatencySpec) -> ColdStart:
    set_threads(spec.threads)
    bench = Bench(ResultsStore(Path()), mirror, own_data)
    bench.dataset(spec.dataset)  # no part of the backbone; read once
    started = time.perf_counter()
    backbone = load(bench, spec)
    loaded = time.perf_counter()
    prepared = prepare(bench, spec, backbone)
    prepared_at = time.perf_counter()
    context = queries(prepared.task, spec, 1, spec.batch or 1)[0]
    watch = Stopwatch(context.device)
    watch.start()
    _forecast(prepared.fitted[spec.methods[0]].forecaster, context, spec, watch.lap)
    on_gpu = context.device.type == "cuda"
    return ColdStart(
        load_s=loaded - started,
        prepare_s=prepared_at - loaded,
        first_forecast_s=sum(watch.stop().values()) / 1e3,
        peak_rss_mb=peak_rss_mb(),
        peak_device_mb=torch.cuda.max_memory_allocated(context.device) / 2**20 if on_gpu else None,
    )


def _last_channel(dataset: Dataset) -> Dataset:
    return replace(dataset, values=dataset.values[:, -1:], channels=dataset.channels[-1:])


def _cell(spec: LatencySpec, method: str) -> CellSpec:
    """The cell whose forecaster is timed."""
    shared = {"backbone", "dataset", "horizon", "lookback", "rollout", "checkpoint", "device"}
    return CellSpec(method=method, profile="paper", **spec.model_dump(include=shared))
