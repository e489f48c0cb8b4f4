"""What each method does with a cell on a long data set, counted as `fit` and the evaluation do it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.base import Forecaster, resolve_device
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.bench.cost.rates import first_contexts, instantly, one_channel
from tsbench.bench.cost.work import Work, embedding_width, validations
from tsbench.bench.evaluate import evaluate, evaluate_samples
from tsbench.config import TeacherOptions, TsMemoryOptions
from tsbench.methods import f_llm, flame, supervised
from tsbench.methods.fusion import FusedForecaster, fusion_curve
from tsbench.methods.lora import matched_rank, train_candidates
from tsbench.methods.online_retrieval import OnlineMemory, granular_keys
from tsbench.methods.pool import sources_of
from tsbench.methods.retrieval_fusion import (
    RAFT_TEMPERATURES,
    candidates,
    raft_memory,
    ts_rag_memory,
    validation_curves,
)
from tsbench.methods.task import Fitted, Source, Task
from tsbench.methods.ts_memory.distillation import PlugMemForecaster, plugmem_directory, train_plugmem
from tsbench.methods.ts_memory.retrieval import KnowledgeBase
from tsbench.methods.ts_memory.teacher import build_teacher
from tsbench.methods.ts_memory.teaching import teacher_path, train_windows
from tsbench.models.plugmem import PlugMem, PlugMemConfig
from tsbench.training.checkpoint import TrainingReport
from tsbench.training.loop import TrainingConfig

_SAMPLE = 256  # queries that a search is measured on
_RECORD_BYTES = 3 * 4096  # the record, and the errors of each window
_CURVE_BYTES = 4096


def window_work(work: Work, task: Task, frozen: FrozenBackbone) -> None:
    """Add up the work of a cell on a long data set, of a method in `METHODS`.

    Args:
        work: Gets the sum.
        task: The cell. What it trains is counted, not trained; what it writes goes to `work.scratch`.
        frozen: Its backbone over its data.
    """
    spec, grid = task.spec, task.test_windows()
    METHODS[spec.method](work, task, frozen)
    work.done.new_bytes += _RECORD_BYTES + 40 * len(grid.starts)
    paths = spec.samples
    if paths is not None:
        few = replace(grid, starts=grid.starts[:1])
        work.spend(
            ("paths", spec.backbone, spec.horizon, paths, task.channels),
            len(grid.starts),
            1,
            lambda: evaluate_samples(frozen.backbone, frozen, few, paths, spec.seed),
        )


def _origin(work: Work, task: Task, frozen: FrozenBackbone) -> None:
    free = instantly(frozen)
    work.forecasts(Source(task, frozen), task.test_windows().starts)
    _score(work, task, ("base",), free.backbone, free)


def _ts_memory(work: Work, task: Task, frozen: FrozenBackbone) -> None:
    options, spec, sources = task.spec.options or TsMemoryOptions(), task.spec, sources_of(task, frozen)
    levels = frozen.backbone.quantile_levels
    for source in sources:
        if options.ablation != "no-retrieval":
            _teach(work, source, options)
        work.forecasts(source, _stop(source.task))
    config = PlugMemConfig.preset(options.plugmem, spec.lookback, spec.horizon, len(levels))
    network = PlugMem(config).eval().to(resolve_device(spec.device))
    companion, free = PlugMemForecaster(network, levels, spec.precision), instantly(frozen)
    kind = ("plugmem", options.plugmem, spec.precision)
    validation = task.windows("val", task.profile.max_val_values).starts

    def curves(windows: float) -> None:
        part = validation[next(free.chunks(len(validation)))]
        work.spend(
            ("fusion curve", *kind, spec.horizon, len(levels), task.channels),
            windows,
            len(part),
            lambda: fusion_curve(companion, free, part, spec.horizon),
        )

    directory = plugmem_directory(sources, options)
    counting = _Counting(work, directory)
    # The task loss alone is measured; what a teacher adds to a step is small beside the network.
    control = TsMemoryOptions(ablation="no-retrieval", plugmem=options.plugmem)
    train_plugmem(counting.instead(sources), control, [None for _ in sources])
    stops = sum(len(_stop(source.task)) * source.task.channels for source in sources)
    curves(counting.validations * stops / task.channels)
    work.forecasts(Source(task, frozen), validation)
    curves(len(validation))
    _fused(work, task, frozen, kind, FusedForecaster(free.backbone, companion, 0.5), free)


def _teach(work: Work, source: Source, options: TsMemoryOptions) -> None:
    """Build the teacher unless it is there, and see how good it is, as every fit does."""
    task, frozen, windows, stop = source.task, source.frozen, train_windows(source.task), _stop(source.task)
    levels, width = frozen.backbone.quantile_levels, embedding_width(frozen)
    known, queries = windows.known, windows.queries.starts
    neighbours = min(options.teacher.neighbours, len(known.starts))
    size = len(queries) * task.channels * (4 * len(levels) * task.spec.horizon + 12 * neighbours + 4)
    missing = work.teacher(teacher_path(task, frozen, options), size)
    work.embeddings(source, known.starts, copies=2)
    work.embeddings(source, stop, copies=1)
    work.forecasts(source, queries)
    vectors = np.random.default_rng(0).normal(size=(len(known.starts), 1, width)).astype(np.float32)
    kind = ("search", "teacher", task.spec.horizon, len(vectors), width, len(levels), options.teacher)
    base = KnowledgeBase(one_channel(task).scaled, known.starts, vectors, known.lookback, known.horizon)
    for starts, are_train in ((queries, True), (stop, False)):
        asked = starts[:_SAMPLE]
        work.spend(
            (*kind, len(asked)),
            (missing if are_train else 1) * task.channels * len(starts),
            len(asked),
            partial(
                build_teacher,
                base,
                asked,
                vectors[np.arange(len(asked)) % len(vectors)],
                levels,
                options.teacher,
                queries_are_train=are_train,
                on_gpu=task.spec.device.startswith("cuda"),
            ),
        )


def _raft(work: Work, task: Task, frozen: FrozenBackbone) -> None:
    known = train_windows(task).known.starts
    context = first_contexts(frozen, known)
    width = granular_keys(context[:1]).shape[1]
    work.done.held_bytes += 4 * 2 * len(known) * task.channels * width
    work.spend(("keys", "raft"), len(known) * task.channels, len(context), lambda: granular_keys(context))
    _retrieve(work, task, frozen, raft_memory, RAFT_TEMPERATURES, width)


def _ts_rag(work: Work, task: Task, frozen: FrozenBackbone) -> None:
    backbone, grids = frozen.backbone, [task.test_windows().starts, _stop(task)]
    work.embeddings(Source(task, frozen), train_windows(task).known.starts, copies=2)
    asked = sum(map(len, (*grids, task.windows("val", task.profile.max_val_values).starts)))
    context = first_contexts(frozen, grids[0])
    work.spend(
        ("embed", backbone.name, "", backbone.identity),
        asked * task.channels,
        len(context),
        lambda: backbone.embed(context).cpu(),
    )
    temperatures = (TeacherOptions().temperature,)
    _retrieve(work, task, frozen, ts_rag_memory, temperatures, embedding_width(frozen))


def _retrieve(
    work: Work,
    task: Task,
    frozen: FrozenBackbone,
    memory_of: Callable[[Task, FrozenBackbone], OnlineMemory],
    temperatures: tuple[float, ...],
    width: int,
) -> None:
    """Make the memory, choose its settings on validation windows, and forecast with it.

    Channels are searched separately, so one of them is measured; embedding the queries is counted apart.
    """
    name, horizon, levels = task.spec.method, task.spec.horizon, frozen.backbone.quantile_levels
    source, stop = Source(task, frozen), _stop(task)
    validation = task.windows("val", task.profile.max_val_values)
    alone = one_channel(task)
    free = instantly(replace(frozen, scaled=alone.scaled), width)
    memory = memory_of(alone, free)
    kind = (name, horizon, len(memory.base.starts), width, len(levels))
    work.spend(("remember", *kind), task.channels, 1, lambda: memory_of(alone, free))
    settings = candidates(memory, levels, name, temperatures)
    few = replace(validation, starts=validation.starts[:_SAMPLE])
    work.forecasts(source, validation.starts)
    work.spend(
        ("choose neighbours", *kind, len(few.starts)),
        len(validation.starts) * task.channels,
        len(few.starts),
        lambda: validation_curves(settings, free, few),
    )
    middle, context = settings[len(settings) // 2], first_contexts(free, stop)
    work.forecasts(source, stop)
    work.spend(
        ("search", *kind), len(stop) * task.channels, len(context), lambda: middle.predict(context, horizon)
    )
    _fused(work, task, frozen, kind, FusedForecaster(free.backbone, middle, 0.5, "retrieval"), free)


def _lora(work: Work, task: Task, frozen: FrozenBackbone) -> None:
    sources, rank, horizon = sources_of(task, frozen), matched_rank(task, frozen.backbone), task.spec.horizon
    for source in sources:
        work.forecasts(source, _stop(source.task))
    counting = _Counting(work)
    adapted = train_candidates(counting.instead(sources), rank)[0].forecaster
    context = first_contexts(frozen, task.test_windows().starts)
    work.spend(
        ("forecast", "lora", horizon, frozen.backbone.identity, rank),
        counting.validations * sum(len(_stop(source.task)) * source.task.channels for source in sources),
        len(context),
        lambda: adapted.predict(context, horizon),
    )
    _score(work, task, ("lora", frozen.backbone.identity, rank), adapted, frozen)


def _trained(
    fit: Callable[[Task, FrozenBackbone], Fitted], work: Work, task: Task, frozen: FrozenBackbone
) -> None:
    """A method whose fit is hardly more than its training: it is gone through, with that counted instead."""
    fitted, spec = fit(task, frozen), task.spec
    if fitted.forecaster is frozen.backbone:  # training did not help
        _origin(work, task, frozen)
        return
    _score(work, task, (spec.method, spec.backbone, spec.dataset, spec.f_llm), fitted.forecaster, frozen)


@dataclass(eq=False)
class _Counting:
    """Takes the place of `train` where validations are counted apart, since they can take long.

    Attributes:
        work: Gets the training steps.
        directory: Where a run keeps the weights, if not where `train` is told to.
        validations: How many there are.
    """

    work: Work
    directory: Path | None = None
    validations: int = 0

    def instead(self, sources: Iterable[Source]) -> list[Source]:
        """The sources with this in the place of `train`."""
        return [Source(replace(each.task, train=self.rehearse), each.frozen) for each in sources]

    def rehearse(
        self,
        model: nn.Module,
        batches: Callable[[int], Any],
        loss_fn: Callable[[nn.Module, Any], Tensor],
        validate: Callable[[nn.Module], float],
        config: TrainingConfig,
        checkpoint_dir: Path,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> TrainingReport:
        """As `Work.rehearse`, without the validations."""
        before = self.work.done.steps
        report = self.work.rehearse(model, batches, loss_fn, None, config, self.directory or checkpoint_dir)
        if self.work.done.steps > before:
            self.validations += validations(config)
        return report


def _fused(
    work: Work,
    task: Task,
    frozen: FrozenBackbone,
    kind: tuple[object, ...],
    fused: FusedForecaster,
    free: FrozenBackbone,
) -> None:
    """Forecast the test windows with the backbone, and score them fused with a companion."""
    options = task.spec.options
    work.done.new_bytes += _CURVE_BYTES
    work.forecasts(Source(task, frozen), task.test_windows().starts)
    for _ in range(2 if options is not None and options.alpha_policy == "oracle" else 1):
        _score(work, task, kind, fused, free)


def _score(
    work: Work, task: Task, kind: tuple[object, ...], forecaster: Forecaster, frozen: FrozenBackbone
) -> None:
    """Forecast and score the test windows; one channel of them is measured where `frozen` has no more."""
    grid, channels = task.test_windows(), frozen.scaled.shape[1]
    part = replace(grid, starts=grid.starts[next(frozen.chunks(len(grid.starts)))])
    units = task.scaler if channels == task.channels else None
    work.spend(
        ("evaluate", *kind, task.spec.horizon, len(forecaster.quantile_levels), channels),
        len(grid.starts) * task.channels / channels,
        len(part.starts),
        lambda: evaluate(forecaster, frozen, part, units),
    )


def _stop(task: Task) -> NDArray[np.int64]:
    """Validation windows that stop a training early."""
    return task.windows("val", task.profile.max_stop_values).starts


METHODS: Mapping[str, Callable[[Work, Task, FrozenBackbone], None]] = {
    "origin": _origin,
    "ts-memory": _ts_memory,
    "raft": _raft,
    "ts-rag": _ts_rag,
    "lora": _lora,
    "flame": partial(_trained, flame.fit),
    "supervised": partial(_trained, supervised.fit),
    "f-llm": partial(_trained, f_llm.fit),
}
"""Methods whose work is known."""
