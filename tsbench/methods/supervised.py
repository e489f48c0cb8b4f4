"""Supervised baselines: an architecture trained from scratch on the train split of a data set."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.architectures import Architecture, Shape
from tsbench.backbones.base import RollOut, resolve_device
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import digest
from tsbench.data.windows import WindowGrid, gather_contexts, window_grid
from tsbench.methods.task import Fitted, Task, step_report
from tsbench.training.loop import Precision, ShuffledBatches, TrainingConfig

_VALUES_PER_CALL = 2**22
_AVERAGE_DECAY = 0.999


@dataclass(frozen=True, eq=False)
class SupervisedForecaster:
    """A network trained for one data set and horizon; point forecasts.

    Attributes:
        network: Contexts [w, C, L] -> forecasts [w, C, H].
        name: Registry name of the architecture.
        channels: C.
        precision: Of the forward pass.
    """

    network: nn.Module
    name: str
    channels: int
    precision: Precision = "fp32"
    quantile_levels: ClassVar[tuple[float, ...]] = ()
    rollout: ClassVar[RollOut] = "direct"

    @torch.no_grad()
    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Forecast [w * C, 1, H] of whole windows [w * C, L], channel by channel within each."""
        device = next(self.network.parameters()).device
        windows = context.view(-1, self.channels, context.shape[1]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):  # as in training
            forecast = cast("Tensor", self.network(windows))
        return forecast.float().flatten(0, 1).unsqueeze(1).to(context.device)


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train the architecture by mean squared error; the validation split stops it and chooses the rate.

    All train windows are used, or every `train_stride`-th; the profile bounds the epochs and the validation
    windows. The optimiser is AdamW without weight decay, that is, Adam. What is validated and kept is a
    moving average of the weights: at the literature's rates the validation error of the weights themselves
    jumps from epoch to epoch, so that its lowest value, and with it the stopping epoch, is luck.

    Raises:
        TsbenchError: Training diverged.
    """
    architecture = cast("Architecture", cast("Any", frozen.backbone))
    grid = window_grid(
        task.borders, "train", task.spec.lookback, task.spec.horizon, task.spec.train_stride or 1
    )
    shape = Shape(task.spec.lookback, task.spec.horizon, task.channels, task.dataset.name)
    rates = architecture.recipe(shape).learning_rates
    trained = [_train(task, architecture, shape, grid, rate) for rate in rates]
    best = min(trained, key=lambda candidate: candidate.score)
    return Fitted(
        SupervisedForecaster(best.network, architecture.name, task.channels, task.spec.precision),
        {
            "train_windows": float(len(grid.starts)),
            "learning_rate": best.learning_rate,
            "epochs": best.epochs,
            "val_mse": best.score,
        },
    )


@dataclass(frozen=True, eq=False)
class _Trained:
    """A network after training at one learning rate, with its mean squared error on validation windows."""

    network: nn.Module
    learning_rate: float
    epochs: float
    score: float


def _train(
    task: Task, architecture: Architecture, shape: Shape, grid: WindowGrid, learning_rate: float
) -> _Trained:
    spec, recipe = task.spec, architecture.recipe(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = architecture.build(shape)
    device = resolve_device(spec.device)
    stop = task.windows("val", task.profile.max_test_values)  # a forward pass each, so many are cheap
    order = ShuffledBatches(len(grid.starts), recipe.batch_windows, spec.seed)
    epoch = order.steps_per_epoch
    config = TrainingConfig(
        max_steps=min(recipe.epochs, task.profile.max_epochs) * epoch,
        eval_every=epoch,
        patience=recipe.patience,
        learning_rate=learning_rate,
        schedule=recipe.schedule,
        weight_decay=0.0,
        average_decay=_AVERAGE_DECAY,
        seed=spec.seed,
        precision=spec.precision,
    )
    content = [
        spec.model_copy(update={"test_stride": None, "drop_last": None}).content_hash(task.dataset.sha256),
        asdict(task.borders),
        architecture.identity,
        recipe.batch_windows,
        asdict(config),
        stop.stride,
    ]

    name = f"{architecture.name} at {learning_rate:g}, {epoch} steps an epoch"
    with task.stages("train"):
        report = task.train(
            network.to(device),
            batches=lambda step: _windows(task, grid, grid.starts[order(step)]).to(device),
            loss_fn=lambda model, windows: _error(model, windows, spec.lookback),
            validate=lambda model: _mean_error(model, task, stop),
            config=config,
            checkpoint_dir=task.artifacts / "supervised" / digest(content)[:32],
            on_progress=step_report(task, order, epoch, name, task.channels),
        )
    return _Trained(network, learning_rate, report.best_step / epoch, report.best_score)


def _windows(task: Task, grid: WindowGrid, starts: NDArray[np.int64]) -> Tensor:
    """Context and target [w, C, L + H] of windows."""
    both = gather_contexts(task.scaled, starts + grid.horizon, grid.lookback + grid.horizon)
    return torch.from_numpy(both)


def _error(model: nn.Module, windows: Tensor, lookback: int) -> Tensor:
    return nn.functional.mse_loss(model(windows[..., :lookback]), windows[..., lookback:])


def _mean_error(model: nn.Module, task: Task, grid: WindowGrid) -> float:
    """Mean squared error over a grid of windows."""
    device = next(model.parameters()).device
    size = max(1, _VALUES_PER_CALL // (task.channels * (grid.lookback + grid.horizon)))
    parts = [grid.starts[first : first + size] for first in range(0, len(grid.starts), size)]
    total = sum(
        _error(model, _windows(task, grid, part).to(device), grid.lookback).item() * len(part)
        for part in parts
    )
    return total / len(grid.starts)
