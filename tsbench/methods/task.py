"""What a method is given to learn from, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tsbench.backbones.base import Forecaster
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import CellSpec, Profile
from tsbench.data.dataset import Dataset, SeriesCollection
from tsbench.data.pretraining import PretrainingWindows
from tsbench.data.splits import Borders, Scaler, split_borders
from tsbench.data.windows import Split, WindowGrid, window_grid
from tsbench.metrics.fusion import FusionScores
from tsbench.stages import Stages
from tsbench.training.loop import ShuffledBatches, Trainer, train


@dataclass(frozen=True, eq=False)
class Task:
    """One data set at one horizon, standardised, with the windows that a profile uses.

    Attributes:
        spec: The cell this task belongs to.
        profile: How much of the protocol is run.
        dataset: The data.
        borders: Row ranges of the splits.
        scaler: Fitted on the train rows.
        scaled: [T, C] float32, standardised.
        artifacts: Directory for what the cell learns; one per content.
        progress: Called with one line at each stage.
        stages: Where the time goes.
        sources: What is learned from in place of this data set and the cell's backbone; empty: these.
        train: Called to train a network; another one than `train` is for estimates.
    """

    spec: CellSpec
    profile: Profile
    dataset: Dataset
    borders: Borders
    scaler: Scaler
    scaled: NDArray[np.float32]
    artifacts: Path
    progress: Callable[[str], None] = field(default=lambda line: None)
    stages: Stages = field(default_factory=Stages)
    sources: tuple["Source", ...] = ()
    train: Trainer = train

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.scaled.shape[1])

    def windows(self, split: Split, max_values: int) -> WindowGrid:
        """Windows of a split at the smallest stride within `max_values` windows x channels x steps."""
        spec = self.spec
        every = window_grid(self.borders, split, spec.lookback, spec.horizon)
        stride = -(-every.total * self.channels * spec.horizon // max_values)
        return window_grid(self.borders, split, spec.lookback, spec.horizon, stride)

    def fine_tuning_windows(self) -> WindowGrid:
        """The train windows a backbone is fine-tuned on: at the cell's own stride, else the profile's."""
        spec = self.spec
        stride = spec.train_stride or self.windows("train", self.profile.max_train_values).stride
        return window_grid(self.borders, "train", spec.lookback, spec.horizon, stride)

    def pairs(self, grid: WindowGrid, numbers: NDArray[np.int64]) -> PretrainingWindows:
        """Context and target of (window, channel) pairs [B] of a grid, numbered window by window."""
        windows, channels = np.divmod(numbers, self.channels)
        starts = grid.starts[windows]
        contexts = sliding_window_view(self.scaled, grid.lookback, axis=0)
        targets = sliding_window_view(self.scaled, grid.horizon, axis=0)
        return PretrainingWindows(contexts[starts - grid.lookback, channels], targets[starts, channels])

    def test_windows(self) -> WindowGrid:
        """The test windows the cell is scored on."""
        spec = self.spec
        stride = spec.test_stride or self.windows("test", self.profile.max_test_values).stride
        return window_grid(self.borders, "test", spec.lookback, spec.horizon, stride, spec.drop_last)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set that is learned from, and the frozen backbone over it.

    Attributes:
        task: The data set as a task of its own; beside other sources with its share of the profile.
        frozen: The backbone over `task.scaled`.
    """

    task: Task
    frozen: FrozenBackbone


def make_task(
    spec: CellSpec,
    profile: Profile,
    dataset: Dataset,
    artifacts: Path,
    progress: Callable[[str], None],
) -> Task:
    """Split and standardise a data set for a cell.

    Raises:
        TsbenchError: The horizon or lookback does not fit the splits.
    """
    borders = split_borders(dataset.split, len(dataset.values))
    scaler = Scaler.fit(dataset.values[slice(*borders.train)])
    task = Task(
        spec=spec,
        profile=profile,
        dataset=dataset,
        borders=borders,
        scaler=scaler,
        scaled=scaler.transform(dataset.values),
        artifacts=artifacts,
        progress=progress,
    )
    task.test_windows()
    return task


@dataclass(frozen=True, eq=False)
class SeriesTask:
    """A collection of series to learn from, for forecasting another one zero-shot.

    Attributes:
        spec: The cell this task belongs to.
        profile: How much of the protocol is run.
        source: What is learned from; only its training parts may be looked at.
        artifacts: Directory for what the cell learns; one per content.
        progress: Called with one line at each stage.
        stages: Where the time goes.
        train: As in `Task`.
    """

    spec: CellSpec
    profile: Profile
    source: SeriesCollection
    artifacts: Path
    progress: Callable[[str], None] = field(default=lambda line: None)
    stages: Stages = field(default_factory=Stages)
    train: Trainer = train


def step_report(
    task: Task | SeriesTask, order: ShuffledBatches, every: int, name: str, rows_per_item: int = 1
) -> Callable[[int, float], None]:
    """What a training calls after each step: counts the rows of the step, and tells the loss now and then."""

    def report(step: int, loss: float) -> None:
        task.stages.count("train", len(order(step - 1)) * rows_per_item)
        if step % every == 0:
            task.progress(f"{name}: step {step}, loss {loss:.4f}")

    return report


@dataclass(frozen=True, eq=False)
class Fitted:
    """A method after fitting.

    Attributes:
        forecaster: What is evaluated.
        diagnostics: Figures about the fit for the record, such as the teacher's error.
        validation_curve: Scores against the fusion weight on the validation split; None when nothing is
            fused.
    """

    forecaster: Forecaster
    diagnostics: dict[str, float] = field(default_factory=dict)
    validation_curve: FusionScores | None = None


class Method(Protocol):
    """A way of adapting a frozen backbone to a task."""

    def __call__(self, task: Task, frozen: FrozenBackbone) -> Fitted:
        """Learn from train and validation rows only, resuming from and saving to ``task.artifacts``."""
