"""F-LLM trained on one collection of short series and used on another, which it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.base import hash_weights, resolve_device
from tsbench.backbones.language_model import LanguageModel
from tsbench.config import CellSpec, FLlmOptions, digest
from tsbench.data.windows import evenly_spaced
from tsbench.errors import TsbenchError
from tsbench.methods.f_llm import (
    VALIDATION_ROWS,
    FLlmForecaster,
    Stage,
    build_network,
    keep_observer,
    lipschitz_config,
    mean_over,
    observer_stage,
    plant_stage,
    train_stage,
)
from tsbench.methods.task import Fitted, SeriesTask
from tsbench.models.f_llm.lipschitz import LipschitzConfig, lipschitz_penalty
from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import Plant, split_patches
from tsbench.models.f_llm.rollout import RollOutConfig, roll_out
from tsbench.training.loop import ShuffledBatches, TrainingReport


def fit_transfer(task: SeriesTask, language: LanguageModel) -> Fitted:
    """Train F-LLM on the training parts of a collection, for zero-shot use on another.

    The stages are those of `tsbench.methods.f_llm.fit`, with SMAPE in place of the squared error: series are
    not scaled, so a squared error would be that of the largest ones. An epoch takes one window of every
    series, cut at a random place. Windows that begin before their series are padded on the left, with zeros
    where they are read and without weight where they are predicted. The last H values of every training part
    are held out, H being the target's horizon: how well they are forecast stops the training early and says
    whether the observer helps.

    Raises:
        TsbenchError: The lookback is not a multiple of the patch, no series is long enough, or training
            diverged.

    Source: F-LLM (arXiv 2602.12756), zero-shot transfer between M3 and M4, which follows AutoTimes (arXiv
    2402.02370). From the latter's code are SMAPE as the loss on M4, random cuts, zeros on the left, and that
    nothing is scaled. That code validates on the official test parts of the source; here no test part of the
    source is looked at. It cuts M4 within the last 1.5 H values of a series and takes every window of M3;
    here every place has the same chance, on both.
    """
    spec, options = task.spec, task.spec.f_llm or FLlmOptions()
    rolling = RollOutConfig(options.context, options.observer_seed)
    model = build_network(spec, language)
    penalty = lipschitz_config(options)

    def loss(network: Any, windows: Tensor) -> Tensor:
        if isinstance(network, Plant):
            return teacher_forced_smape(network, windows, penalty)
        context, target = _split(spec, windows)
        return smape_loss(network(context), target)

    def score(network: Any, windows: Tensor) -> Tensor:
        return _forecast_smape(FLlmForecaster(network, None, rolling), spec, windows)

    stage = plant_stage(spec)
    report = _train(task, model, stage, language.identity, loss, score)
    diagnostics = {
        "train_series": float(len(training_parts(task, stage.horizon))),
        "plant_steps": float(report.best_step),
        "val_smape_plant": report.best_score,
    }
    observer = None
    if isinstance(model, Plant) and options.form in ("closed-loop", "mlp"):
        observer, learned = _close_loop(task, model, language.identity, rolling)
        diagnostics |= learned
    return Fitted(FLlmForecaster(model, observer, rolling), diagnostics)


def smape_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Symmetric percentage error as a loss, a hundredth of the score: 0 to 2.

    mean of 2 |p - y| / (|p| + |y|), the denominator without gradient, a term 0/0 counting as 0

    Args:
        predicted: Forecast, any shape.
        target: Same shape; NaN = no target, without weight. At least one value is a target.

    Returns:
        Scalar; its value is that of `tsbench.metrics.scaled.smape` / 100.

    Source: the loss of AutoTimes on M4, which it has from N-BEATS. With a gradient in the denominator a
    forecast would gain from being far from zero.
    """
    observed = target.isfinite()
    truth = target.nan_to_num(0.0)
    size = predicted.detach().abs() + truth.abs()
    share = (predicted - truth).abs() / size.clamp_min(torch.finfo(size.dtype).tiny)
    return 2 * torch.where(observed, share, 0.0).sum() / observed.sum()


def teacher_forced_smape(plant: Plant, windows: Tensor, penalty: LipschitzConfig | None) -> Tensor:
    """Loss of stage 1: SMAPE of all N next-patch predictions / 100 + weight * L_lip.

    Args:
        plant: Plant in training.
        windows: [B, (N + 1) * P] float32, NaN = before the series: read as zero, and no target.
        penalty: On the de-embedding; None = none.

    Returns:
        Scalar.
    """
    patch = plant.config.patch
    predicted = plant(windows[:, :-patch].nan_to_num(0.0))
    error = smape_loss(predicted, split_patches(windows[:, patch:], plant.config))
    if penalty is None:
        return error
    return error + penalty.weight * lipschitz_penalty(cast("nn.Linear", plant.deembed).weight, penalty)


def training_parts(task: SeriesTask, steps: int) -> list[NDArray[np.float64]]:
    """The source's training parts without their last H values, where a context precedes `steps` values.

    Raises:
        TsbenchError: None is so long.
    """
    held_out = task.spec.horizon
    parts = [series[:-held_out] for series in task.source.train if len(series) > held_out + steps]
    if not parts:
        raise TsbenchError(
            f"no series of {task.source.name} has more than {held_out} + {steps} values, to validate and "
            "train on; use another --train-dataset"
        )
    return parts


def cut_windows(series: Sequence[NDArray[np.float64]], ends: NDArray[np.int64], width: int) -> Tensor:
    """The values before one place of each series.

    Args:
        series: n series, oldest value first.
        ends: [n], index of the first value after each window.
        width: Length of the windows.

    Returns:
        [n, width] float32, NaN where a series has not begun.
    """
    windows = np.full((len(series), width), np.nan, dtype=np.float32)
    for window, values, end in zip(windows, series, ends, strict=True):
        known = values[max(0, end - width) : end]
        window[width - len(known) :] = known
    return torch.from_numpy(windows)


def _close_loop(
    task: SeriesTask, plant: Plant, identity: str, rolling: RollOutConfig
) -> tuple[Observer | None, dict[str, float]]:
    """Train the observer; None where it does not help on the held-out values."""
    plant.requires_grad_(False).eval()
    spec, options = task.spec, task.spec.f_llm or FLlmOptions()
    patches = -(-spec.horizon // options.patch)
    observer = Observer(options.patch, options.observer_window).to(resolve_device(spec.device))

    def loss(network: Any, windows: Tensor) -> Tensor:
        context, target = _split(spec, windows)
        return smape_loss(roll_out(plant, network, context, patches, rolling).corrected.flatten(1), target)

    def score(network: Any, windows: Tensor) -> Tensor:
        return _forecast_smape(FLlmForecaster(plant, network, rolling), spec, windows)

    weights = digest([identity, hash_weights(plant, asdict(plant.config))])
    open_loop = mean_over(observer, score, _held_out(task))
    report = _train(task, observer, observer_stage(spec, patches), weights, loss, score)
    return keep_observer(task, observer, report.best_step, open_loop, report.best_score, "smape")


def _train(
    task: SeriesTask,
    model: nn.Module,
    stage: Stage,
    identity: str,
    loss: Callable[[Any, Tensor], Tensor],
    score: Callable[[Any, Tensor], Tensor],
) -> TrainingReport:
    spec = task.spec
    parts, held_out = training_parts(task, stage.horizon), _held_out(task)
    order = ShuffledBatches(len(parts), task.profile.batch_size, spec.seed)

    def windows(step: int) -> Tensor:
        series = [parts[place] for place in order(step)]
        lengths = np.array([len(values) for values in series])
        ends = np.random.default_rng([spec.seed, step, 1]).integers(stage.horizon + 1, lengths + 1)
        return cut_windows(series, ends, spec.lookback + stage.horizon)

    return train_stage(
        task,
        model,
        stage,
        order,
        rows=windows,
        loss=loss,
        validate=lambda network: mean_over(network, score, held_out),
        content=[task.source.sha256, spec.horizon, identity],
    )


def _held_out(task: SeriesTask) -> Tensor:
    """The last H values of the training parts with their contexts [n, L + H], thinned evenly to a bound."""
    usable = [series for series in task.source.train if len(series) > task.spec.horizon]
    series = [usable[place] for place in evenly_spaced(len(usable), VALIDATION_ROWS)]
    ends = np.array([len(values) for values in series])
    return cut_windows(series, ends, task.spec.lookback + task.spec.horizon)


def _forecast_smape(forecaster: FLlmForecaster, spec: CellSpec, windows: Tensor) -> Tensor:
    """SMAPE, 0 to 200, of the forecast of complete targets [n, L + H]."""
    context, target = _split(spec, windows)
    return 100 * smape_loss(forecaster.predict(context, spec.horizon).squeeze(1), target)


def _split(spec: CellSpec, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts, zero before their series, and what follows them."""
    return windows[:, : spec.lookback].nan_to_num(0.0), windows[:, spec.lookback :]
