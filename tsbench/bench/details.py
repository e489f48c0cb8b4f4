"""Errors by step, calibration and a few forecasts to look at, small enough to lie beside every record."""

import numpy as np
from numpy.typing import NDArray

from tsbench.bench.evaluate import Evaluation
from tsbench.bench.records import Details, SampleForecasts
from tsbench.data.windows import WindowGrid, gather_contexts, gather_targets
from tsbench.methods.task import Task

_PARTS = 512  # of a standard deviation: finer than any picture; binary, so half of every value compresses


def cell_details(task: Task, grid: WindowGrid, evaluation: Evaluation) -> Details:
    """Details of a cell.

    Args:
        task: The data that were forecast.
        grid: The windows that were scored.
        evaluation: Of the forecaster.
    """
    scores, samples = evaluation.scores, evaluation.samples
    starts, channels = grid.starts[samples.windows], samples.channels
    context = gather_contexts(task.scaled, starts, samples.context)[:, channels]
    target = gather_targets(task.scaled, starts, grid.horizon)[:, channels]
    return Details(
        **{name: errors.astype(np.float32) for name, errors in vars(scores.steps).items()},
        levels=np.array(scores.levels),
        below=scores.below,
        samples=SampleForecasts(
            start=starts,
            time=task.dataset.timestamps[starts].astype("datetime64[s]"),
            channels=tuple(task.dataset.channels[place] for place in channels),
            context=_rounded(context),
            target=_rounded(target),
            forecast=_rounded(samples.forecast),
        ),
    )


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.round(values * _PARTS) / np.float32(_PARTS)
