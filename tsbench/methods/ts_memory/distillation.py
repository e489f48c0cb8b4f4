"""Distillation: PlugMem trained on windows of one data set or of several, with their teachers or without."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tsbench.backbones.base import RollOut, resolve_device
from tsbench.choices import TimingPrecision
from tsbench.config import TsMemoryOptions
from tsbench.methods.fusion import fusion_curve
from tsbench.methods.pool import pooled_key, split_numbers
from tsbench.methods.task import Source, step_report
from tsbench.methods.ts_memory.losses import RECIPES, distillation_loss
from tsbench.methods.ts_memory.teacher import Teacher
from tsbench.methods.ts_memory.teaching import teacher_content, train_windows
from tsbench.models.plugmem import PlugMem, PlugMemConfig
from tsbench.training.loop import ShuffledBatches, TrainingConfig, TrainingReport

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


def train_plugmem(
    sources: Sequence[Source], options: TsMemoryOptions, teachers: Sequence[Teacher | None]
) -> tuple[PlugMem, TrainingReport]:
    """Train PlugMem on the pairs of all sources, each pair once per epoch in one shuffled order.

    Training stops early by the best fusion with the sources' own backbone on their validation windows: the
    mean over sources of the lowest score over α. Weights that were trained before are read from disk.

    Args:
        sources: One or more data sets under one backbone, at one lookback, horizon, profile and seed.
        options: Settings.
        teachers: One for each source; None for the ablation "no-retrieval".

    Returns:
        The network with its best weights, on the cell's device, and the report of the training.

    Raises:
        TsbenchError: Training diverged.
    """
    task, backbone = sources[0].task, sources[0].frozen.backbone
    spec, profile, levels = task.spec, task.profile, backbone.quantile_levels
    recipe = RECIPES[options.recipe]
    pairs = training_pairs(sources)
    batch_size = min(profile.batch_size, max(1, profile.batch_values // spec.horizon))
    per_epoch = -(-sum(pairs) // batch_size)
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
    stops = [source.task.windows("val", source.task.profile.max_stop_values).starts for source in sources]

    def validate(model: torch.nn.Module) -> float:
        companion = PlugMemForecaster(network, levels, spec.precision)
        curves = [
            fusion_curve(companion, source.frozen, starts, spec.horizon)
            for source, starts in zip(sources, stops, strict=True)
        ]
        return float(np.mean([getattr(curve, options.alpha_criterion).min() for curve in curves]))

    order = ShuffledBatches(sum(pairs), batch_size, spec.seed)

    task.progress(f"plugmem: training on {sum(pairs)} pairs, at most {config.max_steps} steps")
    directory = plugmem_directory(sources, options)
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / "lock")  # a second process waits and finds the finished weights
    with lock, task.stages("train"):
        report = task.train(
            network,
            _pair_batches(sources, teachers, order),
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
            step_report(task, order, config.eval_every, "plugmem"),
        )
    return network, report


def training_pairs(sources: Sequence[Source]) -> list[int]:
    """Training pairs of each source, windows x channels."""
    return [len(train_windows(source.task).queries.starts) * source.task.channels for source in sources]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Training pairs: contexts [B, L], targets [B, H], base and teacher quantiles [B, Q, H]."""

    context: torch.Tensor
    target: torch.Tensor
    base: torch.Tensor | None
    teacher: torch.Tensor | None
    confidence: torch.Tensor | None


def _pair_batches(
    sources: Sequence[Source], teachers: Sequence[Teacher | None], order: ShuffledBatches
) -> Callable[[int], PairBatch]:
    """Batch of a step: random pairs of all sources, each once per epoch, in the order of the sources."""
    sizes = training_pairs(sources)
    readers = [_pair_reader(source, teacher) for source, teacher in zip(sources, teachers, strict=True)]

    def batch(step: int) -> PairBatch:
        numbers = split_numbers(order(step), sizes)
        parts = [read(own) for read, own in zip(readers, numbers, strict=True)]
        return PairBatch(
            **{name: _joined([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        )

    return batch


def _joined(parts: Sequence[Any]) -> Any:
    """Rows of all parts; None where they have none."""
    return None if parts[0] is None else torch.cat(list(parts))


def _pair_reader(source: Source, teacher: Teacher | None) -> Callable[[NDArray[np.int64]], PairBatch]:
    """Pairs of a source by number, window by window."""
    task, spec = source.task, source.task.spec
    device = resolve_device(spec.device)
    starts = train_windows(task).queries.starts
    base = source.frozen.pair_forecasts(starts, spec.horizon) if teacher is not None else None
    contexts = sliding_window_view(task.scaled, spec.lookback, axis=0)
    targets = sliding_window_view(task.scaled, spec.horizon, axis=0)

    def read(numbers: NDArray[np.int64]) -> PairBatch:
        window, channel = np.divmod(numbers, task.channels)
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

    return read


def plugmem_directory(sources: Sequence[Source], options: TsMemoryOptions) -> Path:
    """Where the weights are kept, named after all they depend on: α's criterion, not its split."""
    contents = []
    for source in sources:
        task, frozen = source.task, source.frozen
        profile = task.profile
        contents.append(
            teacher_content(task, frozen, options, train_windows(task))
            | {
                "options": options.model_dump(exclude={"alpha_policy"}),
                "seed": task.spec.seed,
                "precision": task.spec.precision,
                "profile": profile.model_dump(
                    exclude={"name", "max_test_values", "max_val_values", "plugmem"}
                ),
            }
        )
    return sources[0].task.artifacts / "plugmem" / pooled_key(contents)
