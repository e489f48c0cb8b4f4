"""LoRA: low-rank adapters on all attention projections of a pretrained forecaster, everything else frozen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from tsbench.backbones.base import Backbone, Forecaster
from tsbench.backbones.chronos import Chronos2, ChronosBolt
from tsbench.backbones.flame import CONTEXT_LIMIT, FlameBackbone
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.pretraining import PretrainingWindows
from tsbench.data.windows import WindowGrid, gather_targets
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import predict_windows
from tsbench.methods.pool import pooled_key, sources_of, split_numbers
from tsbench.methods.task import Fitted, Source, Task, step_report
from tsbench.metrics.quantile import pinball_loss
from tsbench.models.lora import adapted_copy, nearest_rank
from tsbench.models.plugmem import PlugMemConfig, parameter_count
from tsbench.training.loop import ShuffledBatches, TrainingConfig
from tsbench.training.pretrain import window_loss

_LEARNING_RATES = (1e-4, 1e-3)
_QUICK_LEARNING_RATES = (1e-3,)
_ALPHA_PER_RANK = 2
_EPOCHS = 20

Chunks = Iterator[tuple[slice, Tensor]]
"""Consecutive slices of a grid's windows, each with forecasts [w, C, Q, H]."""


@dataclass(frozen=True)
class Family:
    """How backbones of one kind are adapted.

    Attributes:
        projections: Ends of the names of all attention projections.
        loss: Training loss of the network on windows whose targets fit into one pass.
    """

    projections: tuple[str, ...]
    loss: Callable[[nn.Module, PretrainingWindows], Tensor]


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train adapters of PlugMem's size on the train split; the validation split chooses rate and step.

    Windows x channels of the profile's training grid are drawn in shuffled order. The loss is the network's
    own in its normalised units, over the horizon or as much of it as one pass reaches: the pinball loss of
    Chronos, the pre-training loss of FLAME. Validation is the pinball loss of the forecast that is
    evaluated, roll-out included, in fp32, over the profile's early-stopping grid; `precision` is that of the
    training steps. The step-0 weights compete: where training does not help, the backbone itself is given
    back.

    Where the task has sources, their pairs are shuffled together and the validation score is the mean over
    sources; nothing is learned from, nor chosen by, the task's own data set.

    Raises:
        TsbenchError: The backbone cannot be adapted, or training diverged.

    Source:
        LoRA baseline of TS-Memory (arXiv 2602.11550), appendix C.4: rank chosen to match PlugMem's size,
        zero initialisation, learning rate and epochs from validation. What it leaves open is ours; see
        docs/ts-memory.md.
    """
    adaptable_family(frozen.backbone)
    sources = sources_of(task, frozen)
    levels = frozen.backbone.quantile_levels
    rank = matched_rank(task, frozen.backbone)
    before = _validation_score(
        sources, lambda source, stop: source.frozen.forecasts(stop.starts, stop.horizon), levels
    )
    candidates = train_candidates(sources, rank)
    best = min(candidates, key=lambda candidate: candidate.score)
    helped = best.score < before
    if not helped:
        task.progress("lora: training did not help on the validation split; the backbone stays as it is")
    return Fitted(
        best.forecaster if helped else frozen.backbone,
        {
            "lora_rank": float(rank),
            "lora_parameters": float(best.parameters),
            "lora_steps": float(best.steps if helped else 0),
            "learning_rate": best.learning_rate,
            "val_pinball_before": before,
            "val_pinball_after": min(best.score, before),
        },
    )


def matched_rank(task: Task, backbone: Backbone) -> int:
    """The rank whose adapters come nearest to the parameters of the profile's PlugMem.

    Raises:
        TsbenchError: The backbone cannot be adapted.
    """
    spec, levels = task.spec, len(backbone.quantile_levels)
    plugmem = PlugMemConfig.preset(task.profile.plugmem, spec.lookback, spec.horizon, levels)
    projections = adaptable_family(backbone).projections
    return nearest_rank(_network(backbone), projections, parameter_count(plugmem))


def adapted_network(task: Task, backbone: Backbone, rank: int) -> nn.Module:
    """The backbone's network with fresh adapters of that rank, not merged into its weights.

    Raises:
        TsbenchError: The backbone cannot be adapted.
    """
    projections = adaptable_family(backbone).projections
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.spec.seed)
        return adapted_copy(_network(backbone), projections, rank, _ALPHA_PER_RANK * rank)


def with_network(backbone: Backbone, network: nn.Module, key: str) -> Backbone:
    """The backbone around an adapted copy of its network; `key` tells its weights from others."""
    return cast(
        "Backbone",
        replace(cast("Any", backbone), model=network, identity=f"{backbone.identity}-lora-{key}"),
    )


def adaptable_family(backbone: Backbone) -> Family:
    """How a backbone is adapted.

    Raises:
        TsbenchError: It is none that can be.
    """
    if isinstance(backbone, FlameBackbone):
        return _FLAME
    if isinstance(backbone, ChronosBolt):
        return _CHRONOS_BOLT
    if isinstance(backbone, Chronos2) and backbone.channels == 1:
        return _CHRONOS_2
    raise TsbenchError(
        f"method 'lora' adapts chronos-bolt-*, chronos-2 and FLAME, not {backbone.name}; use --backbone "
        "flame-small"
    )


@dataclass(frozen=True, eq=False)
class Candidate:
    """An adapted backbone after training at one learning rate, with its score on the validation windows."""

    forecaster: Forecaster
    learning_rate: float
    parameters: int
    steps: int
    score: float


def train_candidates(sources: Sequence[Source], rank: int) -> list[Candidate]:
    """Train adapters of a rank on all sources, at each learning rate that is tried."""
    quick = sources[0].task.profile.name == "quick"
    rates = _QUICK_LEARNING_RATES if quick else _LEARNING_RATES
    return [_train(sources, rank, rate) for rate in rates]


def _train(sources: Sequence[Source], rank: int, learning_rate: float) -> Candidate:
    task, backbone = sources[0].task, sources[0].frozen.backbone
    spec, profile = task.spec, task.profile
    family, network = adaptable_family(backbone), adapted_network(task, backbone, rank)
    grids = [source.task.fine_tuning_windows() for source in sources]
    pairs = [len(grid.starts) * source.task.channels for source, grid in zip(sources, grids, strict=True)]
    order = ShuffledBatches(sum(pairs), profile.batch_size, spec.seed)
    config = TrainingConfig(
        max_steps=min(profile.max_steps, _EPOCHS * order.steps_per_epoch),
        eval_every=min(profile.eval_every, order.steps_per_epoch),
        patience=profile.patience,
        learning_rate=learning_rate,
        schedule=profile.schedule,
        weight_decay=0.0,
        seed=spec.seed,
        precision=spec.precision,
    )
    contents = [
        [
            source.task.spec.model_copy(
                update={"samples": None, "test_stride": None, "drop_last": None}
            ).content_hash(source.task.dataset.sha256),
            asdict(source.task.borders),
            backbone.identity,
            rank,
            asdict(config),
            profile.batch_size,
            grid.stride,
            _stop(source.task).stride,
        ]
        for source, grid in zip(sources, grids, strict=True)
    ]
    key = pooled_key(contents)
    forecaster = with_network(backbone, network, key[:16])

    def batch(step: int) -> PretrainingWindows:
        numbers = split_numbers(order(step), pairs)
        parts = [
            source.task.pairs(grid, own) for source, grid, own in zip(sources, grids, numbers, strict=True)
        ]
        return PretrainingWindows(
            np.concatenate([part.context for part in parts]),
            np.concatenate([part.target for part in parts])[:, : backbone.block],
        )

    task.progress(f"lora: rank {rank}, at most {config.max_steps} steps at {learning_rate:g}")
    directory = task.artifacts / "lora" / key
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / "lock")  # a second process waits and finds the finished weights
    with lock, task.stages("train"):
        report = task.train(
            network,
            batches=batch,
            loss_fn=family.loss,
            validate=lambda _: _validation_score(
                sources,
                lambda source, stop: _forecasts(forecaster, source.frozen, stop),
                backbone.quantile_levels,
            ),
            config=config,
            checkpoint_dir=directory,
            on_progress=step_report(task, order, config.eval_every, f"lora at {learning_rate:g}"),
        )
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return Candidate(forecaster, learning_rate, parameters, report.best_step, report.best_score)


def _stop(task: Task) -> WindowGrid:
    """Validation windows that choose rate and step."""
    return task.windows("val", task.profile.max_stop_values)


def _validation_score(
    sources: Sequence[Source], forecasts: Callable[[Source, WindowGrid], Chunks], levels: tuple[float, ...]
) -> float:
    """Mean over sources of the pinball loss of forecasts of their validation windows."""
    scores = []
    for source in sources:
        stop = _stop(source.task)
        scores.append(_pinball(source.task, stop, forecasts(source, stop), levels))
    return sum(scores) / len(scores)


def _forecasts(forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid) -> Chunks:
    """Forecasts of a grid in fp32, as they are evaluated; nothing is cached."""
    for part in frozen.chunks(len(grid.starts), len(forecaster.quantile_levels) * grid.horizon):
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            forecast = predict_windows(forecaster, frozen, grid.starts[part], grid.horizon)
        yield part, forecast


def _pinball(task: Task, grid: WindowGrid, forecasts: Chunks, levels: tuple[float, ...]) -> float:
    """Twice the pinball loss, mean over levels and the whole grid, in the data's standardised units."""
    total = 0.0
    for part, forecast in forecasts:
        target = torch.from_numpy(gather_targets(task.scaled, grid.starts[part], grid.horizon))
        total += (2 * pinball_loss(target, forecast, levels)).mean(-2).sum(dtype=torch.float64).item()
    return total / (len(grid.starts) * task.channels * grid.horizon)


def _network(backbone: Backbone) -> nn.Module:
    return cast("nn.Module", cast("Any", backbone).model)


def _tensors(network: nn.Module, windows: PretrainingWindows) -> tuple[Tensor, Tensor]:
    """Context [B, L] and target [B, h] on the network's device."""
    device = next(network.parameters()).device
    context, target = (np.ascontiguousarray(part) for part in (windows.context, windows.target))
    return torch.from_numpy(context).to(device), torch.from_numpy(target).to(device)


def _bolt_loss(network: nn.Module, windows: PretrainingWindows) -> Tensor:
    """Steps of the block beyond the target are masked by the network itself."""
    context, target = _tensors(network, windows)
    return cast("Tensor", network(context=context, target=target).loss)


def _chronos2_loss(network: nn.Module, windows: PretrainingWindows) -> Tensor:
    """As many future patches as the target needs; what the last one has beyond it is masked."""
    context, target = _tensors(network, windows)
    patches = -(-target.shape[1] // cast("Any", network).chronos_config.output_patch_size)
    return cast("Tensor", network(context=context, future_target=target, num_output_patches=patches).loss)


def _flame_loss(network: nn.Module, windows: PretrainingWindows) -> Tensor:
    return window_loss(network, replace(windows, context=windows.context[:, -CONTEXT_LIMIT:]))


_FLAME = Family(
    tuple(f"{layer}.{part}" for layer in ("attention", "cross") for part in ("query", "key_value", "out")),
    _flame_loss,
)
_CHRONOS_BOLT = Family(("q", "k", "v", "o"), _bolt_loss)
_CHRONOS_2 = Family(("q", "k", "v", "o"), _chronos2_loss)
