"""Whether F-LLM's roll-out is stable: its errors step by step, beside the figures its theory rests on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator
from torch import Tensor
from torch.nn import functional as F

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import FLlmOptions
from tsbench.data.windows import evenly_spaced, gather_contexts
from tsbench.methods.f_llm import FLlmForecaster, fit
from tsbench.methods.task import Task
from tsbench.metrics.bootstrap import moving_block_weights
from tsbench.metrics.overlap import disjoint_block
from tsbench.models.f_llm.lipschitz import (
    JacobianSpectrum,
    LipschitzConfig,
    closed_loop_bound,
    jacobian_spectrum,
)
from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import Moments, Plant, split_patches
from tsbench.models.f_llm.rollout import RollOutConfig, roll_out

_MOST_ROWS, _LEAST_WINDOWS, _POINTS = 512, 24, 8
_ROWS_PER_CALL = 128

Numbers = Annotated[
    NDArray[np.float64],
    PlainValidator(lambda stored: np.array(stored, dtype=np.float64)),
    PlainSerializer(lambda array: array.tolist()),
]
"""An array that JSON holds as lists, NaN as null."""


@dataclass(frozen=True, eq=False)
class Band:
    """A figure for each of the n roll-out steps with its 95 % confidence band, [n] float64 each.

    Attributes:
        value: On all windows measured.
        low: 2.5 % quantile of the resamples; NaN where the windows make fewer than two blocks.
        high: 97.5 % quantile.
    """

    value: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True, eq=False)
class Loop:
    """One way of rolling out; errors in standardised units.

    Attributes:
        error: Root mean squared error of each step.
        one_step: The same had the plant been fed the truth up to each step, [n] float64: epsilon_t of Eq. 3.
            Where there is an observer, its corrections are those of the roll-out.
        radius: Spectral radius of the context's Jacobian, [S, K] float64: steps x contexts.
        gain: Largest singular value of the step's Jacobian, [S, K] float64.
    """

    error: Band
    one_step: Numbers
    radius: Numbers
    gain: Numbers


@dataclass(frozen=True)
class Slope:
    """Steepness of a de-embedding W [P, d].

    Attributes:
        penalty: What its plant was trained with.
        spectral: Largest slope, sigma_max(W).
        probed: Root mean squared slope in random directions, ||W||_F / sqrt(d).
    """

    penalty: str
    spectral: float
    probed: float


@dataclass(frozen=True, eq=False)
class Stability:
    """The stability of one cell.

    Attributes:
        windows: Test windows measured.
        windows_total: Test windows there are.
        channels: Channels measured.
        channels_total: Channels there are.
        block: Windows in a bootstrap block.
        open_loop: Without observer.
        closed_loop: With it.
        difference: Error of the closed loop less that of the open one, on the same resamples.
        steps: Roll-out steps at which the Jacobians were taken, [S], counted from 1.
        observer_gain: Largest singular value of the observer. None where it did not help on the validation
            split, so that the closed loop is the open one.
        slopes: De-embedding without penalty and, where the cell has one, with it.
        limit: Slope from which on the penalty counts, K_lip.
        rho: Largest gain of the closed loop.
        epsilon: Largest one-step error of the closed loop.
        bound: Theorem 4.1 with both, [n] float64; its premise is a rho below 1.
    """

    windows: int
    windows_total: int
    channels: int
    channels_total: int
    block: int
    open_loop: Loop
    closed_loop: Loop
    difference: Band
    steps: tuple[int, ...]
    observer_gain: float | None
    slopes: tuple[Slope, ...]
    limit: float
    rho: float
    epsilon: float
    bound: Numbers


def diagnose(task: Task, frozen: FrozenBackbone, forecaster: FLlmForecaster) -> Stability:
    """Measure on test windows how errors grow along the roll-out of a trained F-LLM, and why.

    Errors: of at most 512 windows x channels of the cell's test windows, both spread evenly; of many channels
    only so many are used that 24 windows remain. See `error_bands` for the confidence.

    Jacobians: of `corrected_step` on the first and the last step of either loop, at eight contexts spread
    evenly over those windows and channels.

    Slopes: the same plant is also trained without penalty, and kept like any other.

    Bound: Theorem 4.1 with the largest gain found, the largest one-step error by root mean square, hence in
    the unit of the root mean squared error, and e_0 = 0, for the lookback is the truth.

    Args:
        task: The cell's.
        frozen: Its language model.
        forecaster: What `fit` made of both.

    Raises:
        TsbenchError: Training without penalty diverged.
        ValueError: The forecaster does not roll out.

    Source: F-LLM, Eq. 3, 7 and 11. The theorem's state is the error of the last patch, ours those of all
    patches of the context; and its gain is a bound, ours the largest of a few: the result is no certificate.
    """
    plant, observer, rolling = forecaster.model, forecaster.observer, forecaster.rolling
    if not isinstance(plant, Plant):
        raise ValueError("only a plant rolls out")
    grid = task.test_windows()
    starts, channels = _thinned(grid.starts, task.channels)
    both = gather_contexts(task.scaled, starts + grid.horizon, grid.lookback + grid.horizon)[:, channels]
    rows = torch.from_numpy(both).flatten(0, 1).to(next(plant.parameters()).device)
    task.progress(f"f-llm stability: errors of {len(rows)} rows, step by step")
    squared = _squared_errors(plant, observer, rolling, rows).reshape(4, len(starts), len(channels), -1)
    open_errors, closed_errors, *one_steps = squared.mean(2)
    block = disjoint_block(starts, grid.horizon)
    open_band, closed_band, difference = error_bands(open_errors, closed_errors, block)
    open_one_step, closed_one_step = (np.sqrt(each.mean(0)) for each in one_steps)
    steps = tuple(sorted({1, squared.shape[-1]}))
    contexts = rows[evenly_spaced(len(rows), _POINTS), : grid.lookback]
    opened = closed = _spectrum(task, plant, None, rolling, contexts, steps)
    if observer is not None:
        closed = _spectrum(task, plant, observer, rolling, contexts, steps)
    rho, epsilon = float(closed.gain.max()), float(closed_one_step.max())
    return Stability(
        windows=len(starts),
        windows_total=grid.total,
        channels=len(channels),
        channels_total=task.channels,
        block=block,
        open_loop=Loop(open_band, open_one_step, opened.radius, opened.gain),
        closed_loop=Loop(closed_band, closed_one_step, closed.radius, closed.gain),
        difference=difference,
        steps=steps,
        observer_gain=None if observer is None else _largest_slope(observer.linear.weight),
        slopes=_slopes(task, frozen, plant),
        limit=LipschitzConfig().limit,
        rho=rho,
        epsilon=epsilon,
        bound=np.array([closed_loop_bound(step, rho, epsilon, 0) for step in range(1, steps[-1] + 1)]),
    )


def corrected_step(
    plant: Plant, observer: Observer | None, residuals: Tensor, moments: Moments | None = None
) -> Callable[[Tensor], Tensor]:
    """One step of the roll-out as a differentiable map of the context, for `jacobian_spectrum`.

    ytil(s) = yhat(s) + std(s) g(r / std(s))

    The residuals r are held: beyond the lookback the observer sees its own estimates, which errors of the
    context do not reach. So this Jacobian is the factor by which such errors pass to the next patch. Where
    the theorem's observer, which sees the true error, takes K off J, this one adds the gradient of std times
    its bias; it lowers the one-step error instead.

    Args:
        plant: Trained plant.
        observer: Trained observer; None = open loop.
        residuals: [1, k, P] float32, what the observer sees.
        moments: Of the lookback, where the context grows; None = those of the context itself.

    Returns:
        Map of contexts [B, M * P] of any number of patches to the next patch [B, P], float32.

    Source: F-LLM, Eq. 3, 6 and 10.
    """

    def step(state: Tensor) -> Tensor:
        patches = torch.unflatten(state, 1, (-1, plant.config.patch))
        scale = moments or Moments.of(patches)
        prediction = scale.restore(plant.advance(scale.normalise(patches))[0][:, -1:])
        if observer is not None:
            prediction = prediction + scale.std * observer(residuals / scale.std).unsqueeze(1)
        return prediction.squeeze(1)

    return step


def error_bands(
    opened: NDArray[np.float64], closed: NDArray[np.float64], block: int
) -> tuple[Band, Band, Band]:
    """Root mean squared errors of two loops by step, and the second less the first, with 95 % bands.

    The bands are percentiles of resamples of the windows, the same for both loops: see
    `moving_block_weights`.

    Args:
        opened: Mean squared errors of the open loop, [W, n] float64, windows in time order.
        closed: Those of the closed loop.
        block: Windows in a block, l; 1 = the ordinary bootstrap.

    Returns:
        Open loop, closed loop, difference. The bands are NaN where W < 2 l.
    """
    weights = moving_block_weights(len(opened), block)
    whole = [np.sqrt(errors.mean(0)) for errors in (opened, closed)]
    resampled = [np.sqrt(weights @ errors) for errors in (opened, closed)]
    pairs = zip([*whole, whole[1] - whole[0]], [*resampled, resampled[1] - resampled[0]], strict=True)
    bands = [Band(value, *np.quantile(draws, (0.025, 0.975), axis=0)) for value, draws in pairs]
    return bands[0], bands[1], bands[2]


def _thinned(starts: NDArray[np.int64], channels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows and channels, each spread evenly, whose product stays within the bound."""
    chosen = evenly_spaced(channels, _MOST_ROWS // min(len(starts), _LEAST_WINDOWS))
    return starts[evenly_spaced(len(starts), _MOST_ROWS // len(chosen))], chosen


@torch.no_grad()
def _squared_errors(
    plant: Plant, observer: Observer | None, rolling: RollOutConfig, rows: Tensor
) -> NDArray[np.float64]:
    """Squared errors [4, R, n] of rows [R, L + H]: open, closed, one-step open, one-step closed."""
    patch, lookback = plant.config.patch, plant.config.lookback
    missing = -(rows.shape[1] - lookback) % patch
    parts = []
    for part in torch.split(F.pad(rows, (0, missing), value=math.nan), _ROWS_PER_CALL):
        context, truth = part[:, :lookback], torch.unflatten(part[:, lookback:], 1, (-1, patch))
        steps = truth.shape[1]
        opened = closed = roll_out(plant, None, context, steps, rolling)
        if observer is not None:
            closed = roll_out(plant, observer, context, steps, rolling)
        residuals = truth - _fed_truth(plant, part, steps, rolling)
        errors = truth - opened.corrected, truth - closed.corrected, residuals, residuals - closed.corrections
        parts.append(torch.stack([error.double().square().nanmean(2) for error in errors]))
    return np.asarray(torch.cat(parts, dim=1).cpu())


def _fed_truth(plant: Plant, rows: Tensor, steps: int, rolling: RollOutConfig) -> Tensor:
    """Predictions [R, n, P] of the patches after the lookback, each from the true patches before it."""
    patch, lookback = plant.config.patch, plant.config.lookback
    if rolling.context == "sliding":
        contexts = [rows[:, first : first + lookback] for first in range(0, steps * patch, patch)]
        return torch.stack([plant(context)[:, -1] for context in contexts], dim=1)
    patches = torch.unflatten(rows[:, : lookback + (steps - 1) * patch], 1, (-1, patch))
    moments = Moments.of(patches[:, : plant.config.tokens])
    return moments.restore(plant.advance(moments.normalise(patches))[0][:, -steps:])


def _spectrum(
    task: Task,
    plant: Plant,
    observer: Observer | None,
    rolling: RollOutConfig,
    contexts: Tensor,
    steps: tuple[int, ...],
) -> JacobianSpectrum:
    """Figures [S, K] of the Jacobians at some steps of the roll-outs of contexts [K, L]."""
    lookback, growing = split_patches(contexts, plant.config), rolling.context == "growing"
    with torch.no_grad():
        rolled = roll_out(plant, observer, contexts, steps[-1], rolling)
        seeds = lookback[:, 1:] - plant(contexts)[:, :-1] if rolling.seed == "lookback" else lookback[:, :0]
    fed = torch.cat([lookback, rolled.corrected], dim=1)
    seen = torch.cat([seeds, rolled.corrections], dim=1)
    found: list[JacobianSpectrum] = []
    for step, row in product(steps, range(len(contexts))):
        number = f"{len(found) + 1} of {len(steps) * len(contexts)}"
        task.progress(f"f-llm stability: {'open' if observer is None else 'closed'} Jacobian {number}")
        one, new = slice(row, row + 1), step - 1
        residuals = seen[one, : seeds.shape[1] + new]
        at = corrected_step(plant, observer, residuals, Moments.of(lookback[one]) if growing else None)
        state = fed[one, 0 if growing else new : plant.config.tokens + new]
        found.append(jacobian_spectrum(at, state.flatten(1)))
    radius, gain = np.array([(each.radius, each.gain) for each in found]).squeeze(2).T
    return JacobianSpectrum(radius.reshape(len(steps), -1), gain.reshape(len(steps), -1))


def _slopes(task: Task, frozen: FrozenBackbone, plant: Plant) -> tuple[Slope, ...]:
    """Of the de-embedding trained without penalty, and of the cell's own where it has one."""
    options = task.spec.f_llm or FLlmOptions()
    free = options.model_copy(update={"form": "open-loop", "lipschitz": "none"})
    fitted = fit(replace(task, spec=task.spec.model_copy(update={"f_llm": free})), frozen)
    plants = {"none": cast("FLlmForecaster", fitted.forecaster).model, options.lipschitz: plant}
    matrices = {penalty: cast("Any", each).deembed.weight for penalty, each in plants.items()}
    return tuple(
        Slope(penalty, _largest_slope(matrix), (matrix.norm() / math.sqrt(matrix.shape[1])).item())
        for penalty, matrix in matrices.items()
    )


def _largest_slope(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.detach(), ord=2))
