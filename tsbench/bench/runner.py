"""Running cells: what is done is reused, what is missing is computed, what fails is recorded."""

import math
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tsbench.bench.records import Failure, Record, WindowScores
from tsbench.bench.store import ResultsStore
from tsbench.config import WHOLE_SERIES, CellSpec, TsMemoryOptions, profile
from tsbench.data.catalog import find as find_dataset
from tsbench.data.catalog import find_collection
from tsbench.data.dataset import Dataset, SeriesCollection
from tsbench.data.load import load_collection, load_dataset, source_sha256
from tsbench.data.paths import home
from tsbench.errors import TsbenchError
from tsbench.registry import Kind, find, load
from tsbench.stages import Stages

if TYPE_CHECKING:
    from tsbench.backbones.base import BackboneOptions
    from tsbench.backbones.forecast_cache import FrozenBackbone
    from tsbench.bench.executor import Workers
    from tsbench.methods.task import Fitted, Task

Outcome = TypeVar("Outcome")

_DEFAULT_CACHE_GB = 20.0
NAIVE_BACKBONES = ("naive-last", "naive-seasonal")
_BACKBONE_ALONE = {
    "method": "origin",
    "options": None,
    "f_llm": None,
    "train_dataset": None,
    "plugmem_from": None,
    "seed": 0,
    "precision": "fp32",
    "train_stride": None,
}


@dataclass(eq=False)
class Bench:
    """Everything cells share within one process.

    Attributes:
        store: Where records go.
        mirror: Local mirror of the public data sets; None reads TSBENCH_MIRROR or the network.
        own_data: Data sets that are not in the catalogue, by name (a user's CSV file).
        progress: Called with one line at each stage.
        workers: Where cells run; None: here, one after the other.
        writes: Whether results will be stored, so that it is checked that they can.
    """

    store: ResultsStore
    mirror: Path | None = None
    own_data: dict[str, Dataset] = field(default_factory=dict)
    progress: Callable[[str], None] = field(default=lambda line: None)
    workers: "Workers | None" = None
    writes: bool = True

    @cached_property
    def _datasets(self) -> dict[str, Dataset]:
        return dict(self.own_data)

    @cached_property
    def _collections(self) -> dict[str, SeriesCollection]:
        return {}

    @cached_property
    def _backbones(self) -> "dict[BackboneOptions, Any]":
        return {}

    def dataset(self, name: str) -> Dataset:
        """Load a data set once."""
        if name not in self._datasets:
            self._datasets[name] = load_dataset(name, self.mirror)
        return self._datasets[name]

    def collection(self, name: str) -> SeriesCollection:
        """Load one frequency of M3 or M4 once."""
        if name not in self._collections:
            self._collections[name] = load_collection(name, self.mirror)
        return self._collections[name]

    def key(self, spec: CellSpec) -> str:
        """Content hash of a cell: its specification and the checksums of its data and of those trained on.

        A user's own data can be split in several ways, so there the split and the season count too, and
        so does a method or backbone of a later revision. The checksums of the catalogue's data are known
        without reading them.
        """
        dataset = self.own_data.get(spec.dataset)
        own = (repr(dataset.split), str(dataset.season)) if dataset else ()
        trained_on = map(self._sha256, spec.train_datasets)
        return spec.content_hash(self._sha256(spec.dataset), *own, *trained_on, *revisions(spec))

    def _sha256(self, name: str) -> str:
        if name in self.own_data:
            return self.own_data[name].sha256
        entry = find_dataset(name)
        return source_sha256(entry) if entry.files else self.dataset(name).sha256

    def backbone(self, spec: CellSpec) -> Any:
        """Load a backbone once per options."""
        from tsbench.backbones.base import BackboneOptions
        from tsbench.registry import load_backbone

        data = find_collection(spec.dataset) or self.dataset(spec.dataset)
        role = find("backbone", spec.backbone).role
        seasonal = spec.backbone in NAIVE_BACKBONES or role == "statistical"
        options = BackboneOptions(
            name=spec.backbone,
            checkpoint=spec.checkpoint,
            device=spec.device,
            rollout=None if seasonal else spec.rollout,
            season=data.season if seasonal else 1,
            channels=self.dataset(spec.dataset).values.shape[1] if role == "multivariate" else 1,
            layers=spec.f_llm.layers if spec.f_llm else None,
            precision=spec.precision if spec.f_llm else "fp32",
        )
        if options not in self._backbones:
            self._backbones[options] = load_backbone(options)
        return self._backbones[options]

    def task(self, spec: CellSpec) -> "Task":
        """Split and standardise the data set of a cell, and those that it is trained on instead."""
        from tsbench.methods.task import Source, make_task

        task = make_task(
            spec, profile(spec.profile), self.dataset(spec.dataset), home() / "artifacts", self.progress
        )
        sources = []
        for cell in spec.sources():
            own = self.task(cell)
            shared = replace(own, profile=own.profile.share(len(spec.sources())), stages=task.stages)
            sources.append(Source(shared, self.frozen(cell, shared)))
        return replace(task, sources=tuple(sources))

    def frozen(self, spec: CellSpec, task: "Task") -> "FrozenBackbone":
        """The backbone of a cell over its data; its outputs are cached unless they cost next to nothing."""
        from tsbench.backbones.forecast_cache import FrozenBackbone

        backbone = self.backbone(spec)
        cached = spec.backbone not in NAIVE_BACKBONES
        return FrozenBackbone(
            backbone=backbone,
            scaled=task.scaled,
            lookback=spec.lookback,
            directory=home() / "forecasts" if cached else None,
            budget_bytes=cache_budget(),
            stages=task.stages,
            device=spec.device,
        )


def revisions(spec: CellSpec) -> list[str]:
    """Of the method and the backbones of a cell, where they are no longer the first; part of its key.

    Raises:
        TsbenchError: One of them is not registered.
    """
    named: list[tuple[Kind, str]] = [("method", spec.method), ("backbone", spec.backbone)]
    if spec.plugmem_from:
        named.append(("backbone", spec.plugmem_from))
    found = [(name, find(kind, name).revision) for kind, name in named]
    return [f"{name} revision {revision}" for name, revision in found if revision > 1]


def cache_budget() -> int:
    """Bound of the forecast cache in bytes: TSBENCH_CACHE_GB, 20 GB unless set.

    Raises:
        TsbenchError: The variable is not a number.
    """
    text = os.environ.get("TSBENCH_CACHE_GB", str(_DEFAULT_CACHE_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise TsbenchError(f"TSBENCH_CACHE_GB is '{text}'; set it to a number of gigabytes")
    return int(gigabytes * 1e9)


def with_baselines(specs: Iterable[CellSpec]) -> list[CellSpec]:
    """Put the rows in front that every table needs: both naive forecasts, the backbone alone, the control.

    The control of a TS-Memory cell trains the same memory module on the same pairs without a teacher; of a
    transferred one it is transferred likewise. A
    language model or an architecture forecasts nothing alone: with F-LLM's closed loop comes the open one.
    The naive forecasts draw no paths, so theirs are cells without sampled paths. On a collection they see
    whole training parts, and Naive2 stands with them.
    """
    ordered: dict[CellSpec, None] = {}
    for spec in specs:
        plain = spec.model_copy(update=_BACKBONE_ALONE)
        collection = find_collection(spec.dataset)
        whole = {"lookback": WHOLE_SERIES} if collection else {}
        for naive in (*NAIVE_BACKBONES, "naive2") if collection else NAIVE_BACKBONES:
            update = {"backbone": naive, "checkpoint": None, "rollout": "median", "samples": None, **whole}
            ordered[plain.model_copy(update=update)] = None
        if spec.f_llm is None and spec.method != "supervised":
            ordered[plain] = None
        elif spec.f_llm is not None and spec.f_llm.form == "closed-loop":
            without = spec.f_llm.model_copy(update={"form": "open-loop"})
            ordered[spec.model_copy(update={"f_llm": without})] = None
        if spec.method == "ts-memory":
            options = spec.options or TsMemoryOptions()
            control = TsMemoryOptions(
                ablation="no-retrieval", plugmem=options.plugmem, alpha_criterion=options.alpha_criterion
            )
            ordered[spec.model_copy(update={"options": control})] = None
        ordered[spec] = None
    return list(ordered)


def run_cell(bench: Bench, spec: CellSpec) -> Record:
    """Return a cell's record, computing what is missing.

    Raises:
        TsbenchError: The cell cannot run.
    """
    key = bench.key(spec)
    done = bench.store.load(key)
    if done is not None:
        bench.progress("already done")
        return done
    if find_collection(spec.dataset):
        from tsbench.bench.collections import collection_record

        record = collection_record(bench, spec, key)
    else:
        record = _window_record(bench, spec, key)
    bench.store.save(record)
    return record


def _window_record(bench: Bench, spec: CellSpec, key: str) -> Record:
    """Fit and evaluate a cell on a long data set."""
    from tsbench.bench.details import cell_details
    from tsbench.bench.evaluate import evaluate, evaluate_samples
    from tsbench.bench.provenance import provenance
    from tsbench.bench.scores import cell_metrics, fusion_curves, sample_metrics

    started = time.perf_counter()
    task = bench.task(spec)
    frozen = bench.frozen(spec, task)
    fitted = load("method", spec.method)(task, frozen)
    grid = task.test_windows()
    bench.progress(f"evaluating on {len(grid.starts)} of {grid.total} test windows")
    evaluation = evaluate(fitted.forecaster, frozen, grid, task.scaler)
    alpha = getattr(fitted.forecaster, "alpha", None)
    if spec.options is not None and spec.options.alpha_policy == "oracle" and evaluation.curve is not None:
        alpha = evaluation.curve.best(spec.options.alpha_criterion)
        evaluation = evaluate(_with_alpha(fitted, alpha), frozen, grid, task.scaler)
    metrics = cell_metrics(task, fitted, evaluation)
    if spec.samples is not None:
        bench.progress(f"drawing {spec.samples} paths per window and channel")
        drawn = evaluate_samples(fitted.forecaster, frozen, grid, spec.samples, spec.seed)
        metrics |= sample_metrics(spec.samples, drawn)
    return Record(
        key=key,
        spec=spec,
        metrics=metrics,
        costs=task.stages.costs(),
        windows=len(grid.starts),
        windows_total=grid.total,
        test_stride=grid.stride,
        levels=tuple(fitted.forecaster.quantile_levels),
        alpha=alpha,
        provenance=provenance(
            task.dataset.sha256, frozen.backbone.identity, spec.device, time.perf_counter() - started
        ),
        window_scores=WindowScores(
            start=grid.starts,
            mse=evaluation.scores.windows.mse,
            mae=evaluation.scores.windows.mae,
            pinball=evaluation.scores.windows.pinball,
            abs_target=evaluation.scores.windows.abs_target,
        ),
        curves=fusion_curves(fitted, evaluation),
        details=cell_details(task, grid, evaluation),
    )


def run_cells(bench: Bench, specs: Iterable[CellSpec]) -> list[Record | Failure]:
    """Run cells, on the workers of `bench`; a failed one is recorded and does not stop the rest."""
    return _each(bench, specs, run_cell)


def build_teachers(bench: Bench, specs: Iterable[CellSpec]) -> list[Failure | None]:
    """Build the teachers of TS-Memory cells; failures as in `run_cells`.

    Raises:
        TsbenchError: A cell's method has no teacher.
    """
    cells = list(specs)
    for spec in cells:
        if spec.options is None:
            raise TsbenchError(f"method '{spec.method}' has no teacher; use --method ts-memory")
        if spec.options.ablation == "no-retrieval":
            raise TsbenchError("ablation 'no-retrieval' has no teacher; leave it out, or train it right away")
    return _each(bench, cells, _build_teacher)


def train_cells(bench: Bench, specs: Iterable[CellSpec]) -> list[Failure | None]:
    """Fit cells without opening the test split; failures as in `run_cells`."""
    return _each(bench, specs, _train_cell)


def _each(
    bench: Bench, specs: Iterable[CellSpec], act: Callable[[Bench, CellSpec], Outcome]
) -> list[Outcome | Failure]:
    cells = list(specs)
    if bench.workers is not None:
        from tsbench.bench.executor import run_parallel

        return run_parallel(bench, bench.workers, cells, act)
    outcomes: list[Outcome | Failure] = []
    for number, spec in enumerate(cells, start=1):
        bench.progress(f"[{number}/{len(cells)}] {describe(spec)}")
        outcomes.append(attempt(bench, spec, act))
    return outcomes


def attempt(bench: Bench, spec: CellSpec, act: Callable[[Bench, CellSpec], Outcome]) -> Outcome | Failure:
    """Act on a cell in this process; if it fails, write that down."""
    try:
        return act(bench, spec)
    except Exception as error:
        trace = "" if isinstance(error, TsbenchError) else traceback.format_exc()
        failure = Failure(bench.key(spec), spec, str(error) or type(error).__name__, trace)
        bench.store.save_failure(failure)
        bench.progress(f"failed: {failure.error}")
        return failure


def _build_teacher(bench: Bench, spec: CellSpec) -> None:
    from tsbench.methods.pool import sources_of
    from tsbench.methods.ts_memory.teaching import load_or_build_teacher

    task = bench.task(spec)
    for source in sources_of(task, bench.frozen(spec, task)):
        load_or_build_teacher(source.task, source.frozen, spec.options or TsMemoryOptions())


def _train_cell(bench: Bench, spec: CellSpec) -> None:
    if find_collection(spec.dataset):
        from tsbench.bench.collections import fit_collection

        fitted = fit_collection(bench, spec, Stages())
    else:
        task = bench.task(spec)
        fitted = load("method", spec.method)(task, bench.frozen(spec, task))
    alpha = getattr(fitted.forecaster, "alpha", None)
    outcome = "trained" if fitted.diagnostics else "nothing to train"
    bench.progress(outcome if alpha is None else f"fusion weight {alpha:g} (validation)")


def describe(spec: CellSpec) -> str:
    """One line naming a cell."""
    options = spec.options
    variant = f" ({spec.f_llm.form})" if spec.f_llm else ""
    if options is not None:
        name = options.ablation if options.ablation != "none" else f"exclusion {options.teacher.exclusion}"
        variant = f" ({name})"
    if spec.plugmem_from:
        variant += f" from {spec.plugmem_from}"
    if spec.train_dataset:
        variant += f" trained on {spec.train_dataset}"
    return f"{spec.dataset} H={spec.horizon}: {spec.method}{variant} on {spec.backbone}, seed {spec.seed}"


def _with_alpha(fitted: "Fitted", alpha: float) -> Any:
    from tsbench.methods.fusion import FusedForecaster

    assert isinstance(fitted.forecaster, FusedForecaster)
    return replace(fitted.forecaster, alpha=alpha)
