"""TS-Memory as a method: teacher, distillation into PlugMem, fusion weight from the validation split."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tsbench.backbones.base import RollOut, resolve_device
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import PROTOCOL_VERSION, TimingPrecision, TsMemoryOptions, digest
from tsbench.data.windows import WindowGrid, gather_contexts, gather_targets, window_grid
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster, fusion_curve, median_levels
from tsbench.methods.task import Fitted, Task
from tsbench.methods.ts_memory.losses import RECIPES, ablate, distillation_loss
from tsbench.methods.ts_memory.retrieval import KnowledgeBase
from tsbench.methods.ts_memory.teacher import (
    Teacher,
    TeacherQuality,
    build_teacher,
    teacher_quality,
    write_card,
)
from tsbench.metrics.quantile import crossing_rate
from tsbench.models.plugmem import PlugMem, PlugMemConfig
from tsbench.training.loop import ShuffledBatches, TrainingConfig, TrainingReport, train

_EPOCHS = 20  # the authors' bound
_WEIGHT_DECAY = 0.01
_GRADIENT_CLIP = 1.0
_ROWS_PER_CALL = 256


@dataclass(frozen=True, eq=False)
class PlugMemForecaster:
    """A trained memory module as a forecaster.

    Attributes:
        network: PlugMem in eval mode.
        quantile_levels: Its levels.
        precision: Of the forward pass.
    """

    network: PlugMem
    quantile_levels: tuple[float, ...]
    precision: TimingPrecision = "fp32"
    name: str = "plugmem"
    rollout: RollOut = "direct"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast all steps at once; see `Forecaster.predict`."""
        return self.raw(context, horizon).sort(dim=1).values

    @torch.inference_mode()
    def raw(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """The network's own quantiles [B, Q, H], which may cross."""
        device = self.network.queries.device
        reduced = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(device.type, reduced, enabled=self.precision != "fp32"):
            parts = [
                self.network(context[first : first + _ROWS_PER_CALL].to(device), horizon)
                for first in range(0, len(context), _ROWS_PER_CALL)
            ]
        return torch.cat(parts).to(context.device)


@dataclass(frozen=True, eq=False)
class TrainWindows:
    """The train windows of a task: those that can be retrieved, and those that are trained on.

    Attributes:
        known: Windows of the knowledge base.
        queries: Every n-th of them, the training queries.
    """

    known: WindowGrid
    queries: WindowGrid


def train_windows(task: Task) -> TrainWindows:
    """Train windows within the bounds of the profile, or at the cell's own stride.

    Raises:
        TsbenchError: That stride leaves the knowledge base's grid.
    """
    spec, profile = task.spec, task.profile

    def grid(stride: int) -> WindowGrid:
        return window_grid(task.borders, "train", spec.lookback, spec.horizon, stride)

    rows = grid(1).total * task.channels
    known_stride = -(-rows // profile.max_knowledge_rows)
    pairs = min(profile.max_train_pairs, profile.max_train_values // spec.horizon)
    stride = spec.train_stride or known_stride * max(1, -(-rows // (known_stride * pairs)))
    if stride % known_stride:
        raise TsbenchError(
            f"--train-stride {stride} is not on the knowledge base's grid; use a multiple of {known_stride}"
        )
    return TrainWindows(grid(known_stride), grid(stride))


def load_or_build_teacher(task: Task, frozen: FrozenBackbone, options: TsMemoryOptions) -> Teacher:
    """The teacher's answers to the training queries, from disk where they were computed before."""
    windows = train_windows(task)
    content = _teacher_content(task, frozen, options, windows)
    directory = task.artifacts / "teachers" / digest(content)[:32]
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "lock"):
        return _load_or_build(task, frozen, options, windows, directory / "teacher.safetensors", content)


def _load_or_build(
    task: Task,
    frozen: FrozenBackbone,
    options: TsMemoryOptions,
    windows: TrainWindows,
    path: Path,
    content: dict[str, object],
) -> Teacher:
    if path.exists():
        task.progress("teacher: already built")
        return Teacher.load(path)
    task.progress(f"teacher: embedding {len(windows.known.starts)} train windows x {task.channels} channels")
    base = knowledge_base(task, frozen, windows.known)
    members = np.searchsorted(windows.known.starts, windows.queries.starts)
    task.progress(f"teacher: retrieving for {len(windows.queries.starts)} queries x {task.channels} channels")
    teacher = build_teacher(
        base,
        windows.queries.starts,
        base.embeddings[members],
        frozen.backbone.quantile_levels,
        options.teacher,
        queries_are_train=True,
        on_gpu=task.spec.device.startswith("cuda"),
    )
    teacher.save(path)
    write_card(path.with_suffix(".json"), content)
    return teacher


def knowledge_base(task: Task, frozen: FrozenBackbone, grid: WindowGrid) -> KnowledgeBase:
    """Embed train windows."""
    return KnowledgeBase(
        task.scaled, grid.starts, frozen.embeddings(grid.starts), grid.lookback, grid.horizon
    )


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train PlugMem for one task and choose the fusion weight on the validation split.

    Early stopping and the choice of α read the same validation windows (the former fewer of them); the
    test split is not opened.

    Raises:
        TsbenchError: The backbone forecasts no quantiles, or has no encoder to retrieve with.
    """
    options = task.spec.options or TsMemoryOptions()
    ablate(RECIPES[options.recipe], options.ablation)  # refuses combinations that do not exist
    levels = median_levels(frozen.backbone, "ts-memory")
    teacher = None
    diagnostics: dict[str, float] = {}
    if options.ablation != "no-retrieval":
        teacher = load_or_build_teacher(task, frozen, options)
        diagnostics |= _teacher_diagnostics(task, frozen, options, teacher)
    network, report = _train_plugmem(task, frozen, options, teacher)
    companion = PlugMemForecaster(network.eval(), levels, task.spec.precision)
    validation = task.windows("val", task.profile.max_val_values)
    task.progress(f"fusion weight: {len(validation.starts)} of {validation.total} validation windows")
    curve = fusion_curve(companion, frozen, validation.starts, task.spec.horizon)
    alpha = curve.best(options.alpha_criterion)
    diagnostics |= {
        "train_pairs": float(len(train_windows(task).queries.starts) * task.channels),
        "steps_trained": float(report.steps),
        "best_step": float(report.best_step),
        "memory_crossing_val": _crossing(companion, frozen, task),
        "val_windows": float(len(validation.starts)),
        "val_windows_total": float(validation.total),
    }
    return Fitted(FusedForecaster(frozen.backbone, companion, alpha), diagnostics, curve)


def _crossing(companion: PlugMemForecaster, frozen: FrozenBackbone, task: Task) -> float:
    """Share of neighbouring levels that PlugMem leaves crossed on the early-stopping windows."""
    starts = task.windows("val", task.profile.max_stop_values).starts
    context = torch.from_numpy(gather_contexts(task.scaled, starts, frozen.lookback)).flatten(0, 1)
    return float(crossing_rate(companion.raw(context, task.spec.horizon)))


def _train_plugmem(
    task: Task, frozen: FrozenBackbone, options: TsMemoryOptions, teacher: Teacher | None
) -> tuple[PlugMem, TrainingReport]:
    spec, profile = task.spec, task.profile
    levels = frozen.backbone.quantile_levels
    recipe = RECIPES[options.recipe]
    windows = train_windows(task)
    pairs = len(windows.queries.starts) * task.channels
    batch_size = min(profile.batch_size, max(1, profile.batch_values // spec.horizon))
    per_epoch = -(-pairs // batch_size)
    config = TrainingConfig(
        max_steps=min(profile.max_steps, _EPOCHS * per_epoch),
        eval_every=min(profile.eval_every, per_epoch),
        patience=profile.patience,
        learning_rate=profile.learning_rate,
        schedule=profile.schedule,
        weight_decay=_WEIGHT_DECAY,
        gradient_clip=_GRADIENT_CLIP,
        seed=spec.seed,
        precision=spec.precision,
    )
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        network = PlugMem(PlugMemConfig.preset(options.plugmem, spec.lookback, spec.horizon, len(levels)))
    network.to(resolve_device(spec.device))
    stop = task.windows("val", profile.max_stop_values)

    def validate(model: torch.nn.Module) -> float:
        companion = PlugMemForecaster(network, levels, spec.precision)
        curve = fusion_curve(companion, frozen, stop.starts, spec.horizon)
        return float(getattr(curve, options.alpha_criterion).min())

    def report_step(step: int, loss: float) -> None:
        if step % config.eval_every == 0:
            task.progress(f"plugmem: step {step}, loss {loss:.4f}")

    task.progress(f"plugmem: training on {pairs} pairs, at most {config.max_steps} steps")
    directory = task.artifacts / "plugmem" / _plugmem_key(task, frozen, options, windows)
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "lock"):  # a second process waits and finds the finished weights
        report = train(
            network,
            _pair_batches(
                task, frozen, windows.queries.starts, teacher, ShuffledBatches(pairs, batch_size, spec.seed)
            ),
            lambda model, batch: (
                distillation_loss(
                    model(batch.context),
                    batch.target,
                    batch.base,
                    batch.teacher,
                    batch.confidence,
                    levels,
                    recipe,
                    options.ablation,
                ).total
            ),
            validate,
            config,
            directory,
            report_step,
        )
    return network, report


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Training pairs: contexts [B, L], targets [B, H], base and teacher quantiles [B, Q, H]."""

    context: torch.Tensor
    target: torch.Tensor
    base: torch.Tensor | None
    teacher: torch.Tensor | None
    confidence: torch.Tensor | None


def _pair_batches(
    task: Task,
    frozen: FrozenBackbone,
    starts: NDArray[np.int64],
    teacher: Teacher | None,
    order: ShuffledBatches,
) -> Callable[[int], PairBatch]:
    """Batch of a step: random (window, channel) pairs, each once per epoch."""
    spec = task.spec
    device = resolve_device(spec.device)
    base = frozen.pair_forecasts(starts, spec.horizon) if teacher is not None else None
    contexts = sliding_window_view(task.scaled, spec.lookback, axis=0)
    targets = sliding_window_view(task.scaled, spec.horizon, axis=0)

    def batch(step: int) -> PairBatch:
        window, channel = np.divmod(order(step), task.channels)
        first = starts[window]

        def move(array: NDArray[np.float32]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return PairBatch(
            context=move(contexts[first - spec.lookback, channel]),
            target=move(targets[first, channel]),
            base=None if base is None else move(base(window, channel)),
            teacher=None if teacher is None else move(teacher.quantiles[window, channel]),
            confidence=None if teacher is None else move(teacher.confidence[window, channel]),
        )

    return batch


def _teacher_diagnostics(
    task: Task, frozen: FrozenBackbone, options: TsMemoryOptions, teacher: Teacher
) -> dict[str, float]:
    """The teacher's error beside the backbone's, on training queries and on validation queries."""
    windows = train_windows(task)
    validation = task.windows("val", task.profile.max_stop_values)
    base = knowledge_base(task, frozen, windows.known)
    asked = build_teacher(
        base,
        validation.starts,
        frozen.embeddings(validation.starts),
        frozen.backbone.quantile_levels,
        options.teacher,
        queries_are_train=False,
        on_gpu=task.spec.device.startswith("cuda"),
    )
    on_train = quality_beside_backbone(task, frozen, teacher)
    on_val = quality_beside_backbone(task, frozen, asked)
    return {
        f"{name}_{split}": getattr(quality, name)
        for split, quality in (("train", on_train), ("val", on_val))
        for name in ("teacher_mae", "base_mae", "gate_open", "confidence_mean")
    }


def quality_beside_backbone(task: Task, frozen: FrozenBackbone, teacher: Teacher) -> TeacherQuality:
    """The teacher's error beside the backbone's, on the queries it was asked about."""
    median = frozen.backbone.quantile_levels.index(0.5)
    horizon = task.spec.horizon
    base = np.concatenate(
        [chunk[:, :, median].numpy() for _, chunk in frozen.forecasts(teacher.query_starts, horizon)]
    )
    targets = gather_targets(task.scaled, teacher.query_starts, horizon)
    return teacher_quality(teacher, base, targets, median)


def _teacher_content(
    task: Task, frozen: FrozenBackbone, options: TsMemoryOptions, windows: TrainWindows
) -> dict[str, object]:
    return {
        "protocol": PROTOCOL_VERSION,
        "data_sha256": task.dataset.sha256,
        "borders": [task.borders.train, task.borders.val, task.borders.test],
        "backbone": frozen.backbone.identity,
        "lookback": task.spec.lookback,
        "horizon": task.spec.horizon,
        "known_stride": windows.known.stride,
        "query_stride": windows.queries.stride,
        "teacher": options.teacher.model_dump(),
    }


def _plugmem_key(task: Task, frozen: FrozenBackbone, options: TsMemoryOptions, windows: TrainWindows) -> str:
    """Everything the trained weights depend on; the choice of α is not part of it, its criterion is."""
    profile = task.profile
    content = _teacher_content(task, frozen, options, windows) | {
        "options": options.model_dump(exclude={"alpha_policy"}),
        "seed": task.spec.seed,
        "precision": task.spec.precision,
        "profile": profile.model_dump(exclude={"name", "max_test_values", "max_val_values", "plugmem"}),
    }
    return digest(content)[:32]
