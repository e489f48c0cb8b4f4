"""Supervised baselines: an architecture trained from scratch on the train split of a data set."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.architectures import Architecture
from tsbench.backbones.base import RollOut, resolve_device
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import digest
from tsbench.data.windows import WindowGrid, gather_contexts, window_grid
from tsbench.methods.task import Fitted, Task
from tsbench.training.loop import ShuffledBatches, TrainingConfig, train

_VALUES_PER_CALL = 2**22


@dataclass(frozen=True, eq=False)
class SupervisedForecaster:
    """A network trained for one data set and horizon; point forecasts.

    Attributes:
        network: Contexts [w, C, L] -> forecasts [w, C, H].
        name: Registry name of the architecture.
        channels: C.
    """

    network: nn.Module
    name: str
    channels: int
    quantile_levels: ClassVar[tuple[float, ...]] = ()
    rollout: ClassVar[RollOut] = "direct"

    @torch.no_grad()
    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Forecast [w * C, 1, H] of whole windows [w * C, L], channel by channel within each."""
        device = next(self.network.parameters()).device
        windows = context.view(-1, self.channels, context.shape[1]).to(device)
        return cast("Tensor", self.network(windows)).flatten(0, 1).unsqueeze(1).to(context.device)


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train the architecture by mean squared error; the validation split stops it.

    All train windows are used, or every `train_stride`-th; the profile bounds the epochs and the validation
    windows. Learning rate, batch and patience are the recipe's. Adam with a cosine schedule stands for the
    authors' halvings of the rate after each epoch.

    Raises:
        TsbenchError: Training diverged.
    """
    spec, profile = task.spec, task.profile
    architecture = cast("Architecture", cast("Any", frozen.backbone))
    recipe = architecture.recipe(spec.dataset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = architecture.build(spec.lookback, spec.horizon, task.channels)
    device = resolve_device(spec.device)
    grid = window_grid(task.borders, "train", spec.lookback, spec.horizon, spec.train_stride or 1)
    stop = task.windows("val", profile.max_val_values)
    order = ShuffledBatches(len(grid.starts), recipe.batch_windows, spec.seed)
    config = TrainingConfig(
        max_steps=min(recipe.epochs, profile.max_epochs) * order.steps_per_epoch,
        eval_every=order.steps_per_epoch,
        patience=recipe.patience,
        learning_rate=recipe.learning_rate,
        schedule="cosine",
        weight_decay=0.0,
        seed=spec.seed,
    )
    trained = spec.model_copy(update={"test_stride": None, "drop_last": None})
    content = [
        trained.content_hash(task.dataset.sha256),
        asdict(task.borders),
        architecture.identity,
        asdict(config),
        stop.stride,
    ]
    report = train(
        network.to(device),
        batches=lambda step: _windows(task, grid, grid.starts[order(step)]).to(device),
        loss_fn=lambda model, windows: _error(model, windows, spec.lookback),
        validate=lambda model: _mean_error(model, task, stop),
        config=config,
        checkpoint_dir=task.artifacts / "supervised" / digest(content)[:32],
        on_progress=lambda step, loss: (
            task.progress(f"{architecture.name}: epoch {step // order.steps_per_epoch}, loss {loss:.4f}")
            if step % order.steps_per_epoch == 0
            else None
        ),
    )
    return Fitted(
        SupervisedForecaster(network, architecture.name, task.channels),
        {
            "train_windows": float(len(grid.starts)),
            "epochs": report.best_step / order.steps_per_epoch,
            "val_mse": report.best_score,
        },
    )


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
