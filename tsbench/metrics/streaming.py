"""Scores of millions of forecasts in one pass: batches are folded into sums and forgotten."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.metrics.quantile import check_levels, interpolate_levels, median_forecast, spans
from tsbench.metrics.scaled import DefinedMean, mean_defined

_INTERVAL = (0.1, 0.9)  # the central 80 % interval

# Rows of the table of sums over steps that each batch is reduced to, per (window, channel).
_N_SUMS = 8
_SQUARED, _ABSOLUTE, _SMAPE, _PINBALL, _TARGET, _COVERED, _WIDTH, _DATA_TARGET = range(_N_SUMS)

_N_STEP_SUMS = 4  # squared, absolute, pinball and |y|, per step


class Units(Protocol):
    """How standardised values read in data units: value * std + mean, per channel. A `Scaler` is one."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """[C] in data units."""

    @property
    def std(self) -> NDArray[np.float64]:
        """[C] in data units, positive."""


@dataclass(frozen=True, eq=False)
class WindowErrors:
    """Errors of each window, averaged over channels and steps, in the order the windows were seen.

    The pooled CRPS of any set of windows is sum(pinball) / sum(abs_target).
    """

    mse: NDArray[np.float32]  # [W]
    mae: NDArray[np.float32]  # [W]
    pinball: NDArray[np.float32]  # [W] mean of 2 rho, also over levels; NaN for point-only forecasts
    abs_target: NDArray[np.float32]  # [W] mean of |y|


@dataclass(frozen=True, eq=False)
class StepErrors:
    """Errors of each horizon step, averaged over windows and channels.

    The weighted quantile loss (pooled CRPS) of a step is pinball / abs_target.
    """

    mse: NDArray[np.float64]  # [H]
    mae: NDArray[np.float64]  # [H]
    pinball: NDArray[np.float64]  # [H] mean of 2 rho, also over levels; NaN for point-only forecasts
    abs_target: NDArray[np.float64]  # [H] mean of |y|


@dataclass(frozen=True, eq=False)
class Scores:
    """Every figure of one pass over W windows of C channels and H steps.

    Point-only forecasts have NaN for all CRPS figures, coverage and width. The two ``probts`` scores are in
    data units, all others in the units of the batches; without `Units` they are undefined for every window.
    """

    levels: tuple[float, ...]  # CRPS figures on different levels do not compare
    n_windows: int
    n_points: int  # W * C * H
    mse: float
    mae: float
    smape: float  # 0 to 200, pooled over points
    crps: float  # pooled weighted quantile loss; NaN when every target is zero
    crps_unnormalised: float  # mean of 2 rho
    crps_per_window: DefinedMean
    crps_per_channel: DefinedMean
    nmae: float  # sum of |e| / sum of |y|, e the error of the median; NaN when every target is zero
    nmae_per_window: DefinedMean
    probts_nmae: DefinedMean  # nmae_per_window in data units
    probts_crps: DefinedMean  # crps_per_window in data units
    coverage: float  # share of targets inside the 80 % interval; NaN when the levels do not reach it
    width: float  # mean width of that interval
    mean_abs_target: float  # crps_unnormalised / crps
    below: NDArray[np.float64]  # [Q] share of targets at or below each quantile; its level when calibrated
    mse_by_channel: NDArray[np.float64]  # [C]
    mae_by_channel: NDArray[np.float64]  # [C]
    pinball_by_channel: NDArray[np.float64]  # [C] mean of 2 rho; over `seasonal_error` it gives the SQL
    steps: StepErrors
    windows: WindowErrors


class ForecastScores:
    """Accumulates the scores of one forecaster over batches of windows.

    Elementwise work runs in float32 on the device of the batch, sums in float64, so the result does not
    depend on the batch size or the order of windows. Memory grows by six float32 per window only. The point
    forecast is the median (`median_forecast`); the CRPS is the ``pooled`` variant of
    `weighted_quantile_loss`, over the forecaster's own levels.

    NMAE and CRPS in data units are those of ProbTS: per window over channels and steps, normalised by that
    window's sum of |y|, then averaged over windows. |e| and the pinball loss scale with the channel's
    standard deviation; |y| does not, so it has a sum of its own. Zeros of the data survive standardisation
    only up to rounding: a value within float32's resolution of its channel's mean counts as zero.

    Args:
        levels: Quantile levels, ascending; () for a point-only forecaster, whose batches have Q = 1.
        channels: C.
        horizon: H, steps.
        units: Of the data, [C]; None leaves the scores in data units undefined.

    Source:
        NMAE and CRPS in data units: ProbTS (arXiv 2310.07446). It scores levels 0.05 to 0.95 of samples on
        windows at its own stride, and counts NaN targets as 0; here the levels are the forecaster's, the
        windows the caller's, and no target is NaN.
    """

    def __init__(
        self, levels: Sequence[float], channels: int, horizon: int, units: Units | None = None
    ) -> None:
        self._levels = check_levels(levels)
        self._shape = (channels, horizon)
        unknown = np.full(channels, np.nan)
        mean, std = (unknown, unknown) if units is None else (units.mean, units.std)
        if not mean.shape == std.shape == (channels,):
            raise ValueError(f"units must be [{channels}], got {mean.shape} and {std.shape}")
        self._std = std
        self._units = torch.from_numpy(np.stack([mean, std], axis=1))
        self._totals = np.zeros(_N_SUMS)
        self._by_channel = np.zeros((_N_SUMS, channels))
        self._by_step = np.zeros((_N_STEP_SUMS, horizon))
        self._below = np.zeros(len(self._levels))
        self._windows: list[NDArray[np.float32]] = []

    @torch.no_grad()
    def update(self, forecast: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch of windows.

        Args:
            forecast: [W, C, Q, H] float32, sorted along Q; [W, C, 1, H] when point-only.
            target: [W, C, H] float32, same units and device.

        Raises:
            ValueError: Wrong shape or dtype, or a NaN or infinite value (the message counts them); the
                batch is then not added.
        """
        check_batch({"forecast": forecast}, target, self._levels)
        n_windows, channels, horizon = target.shape
        if (channels, horizon) != self._shape:
            raise ValueError(f"target has (channels, horizon) {(channels, horizon)}, not {self._shape}")
        tables = []
        units = self._units.to(target.device).expand(n_windows, -1, -1)
        for chunk in row_chunks(target, forecast, units):
            sums, by_step, below = _reduce(self._levels, *chunk)
            tables.append(sums)
            self._by_step += by_step.cpu().numpy()
            self._below += below.cpu().numpy()
        table: NDArray[np.float64] = torch.cat(tables, dim=-1).cpu().numpy()
        self._totals += table.sum(-1)
        cube = table.reshape(_N_SUMS, n_windows, channels)
        self._by_channel += cube.sum(1)
        per_window = cube[[_SQUARED, _ABSOLUTE, _PINBALL, _TARGET]].sum(2) / (channels * horizon)
        in_data_units = (cube[[_ABSOLUTE, _PINBALL]] * self._std).sum(2)
        ratios = _ratio(in_data_units, cube[_DATA_TARGET].sum(1))
        self._windows.append(np.concatenate([per_window, ratios]).astype(np.float32))

    def result(self) -> Scores:
        """Divide the sums by the counts.

        Returns:
            The scores of all windows so far; more batches may follow.

        Raises:
            ValueError: No window was added.
        """
        if not self._windows:
            raise ValueError("no window was scored")
        mse, mae, pinball, abs_target, *probts = np.concatenate(self._windows, axis=1)
        channels, horizon = self._shape
        n_windows = len(mse)
        n_points = n_windows * channels * horizon
        means = self._totals / n_points
        step_mse, step_mae, step_pinball, step_size = self._by_step / (n_windows * channels)
        by_channel = self._by_channel / (n_windows * horizon)
        return Scores(
            levels=self._levels,
            n_windows=n_windows,
            n_points=n_points,
            mse=float(means[_SQUARED]),
            mae=float(means[_ABSOLUTE]),
            smape=float(means[_SMAPE]),
            crps=mean_defined(_ratio(means[_PINBALL], means[_TARGET])).mean,
            crps_unnormalised=float(means[_PINBALL]),
            crps_per_window=mean_defined(_ratio(pinball, abs_target)),
            crps_per_channel=mean_defined(_ratio(by_channel[_PINBALL], by_channel[_TARGET])),
            nmae=mean_defined(_ratio(means[_ABSOLUTE], means[_TARGET])).mean,
            nmae_per_window=mean_defined(_ratio(mae, abs_target)),
            probts_nmae=mean_defined(probts[0]),
            probts_crps=mean_defined(probts[1]),
            coverage=float(means[_COVERED]),
            width=float(means[_WIDTH]),
            mean_abs_target=float(means[_TARGET]),
            below=self._below / n_points,
            mse_by_channel=by_channel[_SQUARED],
            mae_by_channel=by_channel[_ABSOLUTE],
            pinball_by_channel=by_channel[_PINBALL],
            steps=StepErrors(mse=step_mse, mae=step_mae, pinball=step_pinball, abs_target=step_size),
            windows=WindowErrors(mse=mse, mae=mae, pinball=pinball, abs_target=abs_target),
        )


def check_batch(forecasts: dict[str, torch.Tensor], target: torch.Tensor, levels: Sequence[float]) -> None:
    """Check shape, dtype and finiteness of the named forecasts [W, C, Q, H] and of the target [W, C, H].

    Raises:
        ValueError: Something does not fit; the message names it.
    """
    if target.dim() != 3 or target.numel() == 0:
        raise ValueError(f"target must be [W, C, H] and not empty, got {tuple(target.shape)}")
    expected = (*target.shape[:2], max(1, len(levels)), target.shape[2])
    for name, forecast in forecasts.items():
        if forecast.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {tuple(forecast.shape)}")
    for name, values in {"target": target, **forecasts}.items():
        if values.dtype != torch.float32:
            raise ValueError(f"{name} must be float32, got {values.dtype}")
        if not torch.isfinite(values.sum()):  # one cheap pass; the exact count only when it fails
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise ValueError(f"{name} holds {bad} NaN or infinite values of {values.numel()}")


def row_chunks(target: torch.Tensor, *forecasts: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield (*forecasts [R, Q, H], target [R, H]) over windows x channels.

    On a CPU, R keeps an [R, H] slice in the core's cache and below the size from which PyTorch shares an
    operation among threads: on a busy machine their barriers cost more than they gain. On an accelerator a
    slice fills the device.
    """
    values = 2**15 if target.device.type == "cpu" else 2**24
    rows = max(1, values // target.shape[-1])
    yield from zip(*(torch.split(t.flatten(0, 1), rows) for t in (*forecasts, target)), strict=True)


def point_forecast(forecast: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """[..., H] point forecast of [..., Q, H]: the median, or the only row when there are no levels."""
    return median_forecast(forecast, levels) if levels else forecast[..., 0, :]


def row_sums(values: torch.Tensor) -> torch.Tensor:
    """[R, H] float32 to [R] float64."""
    return values.sum(-1, dtype=torch.float64)


def _reduce(
    levels: tuple[float, ...], forecast: torch.Tensor, units: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reduce [R, Q, H] and [R, H] to the tables of sums [8, R] and, per step, [4, H], and counts below [Q].

    `units` [R, 2] float64 has the mean and the standard deviation of each row's channel.
    """
    point = point_forecast(forecast, levels)
    error = target - point
    squared, absolute, size = error.square(), error.abs(), target.abs()
    smape = 200 * absolute / (point.abs() + size).clamp_min(torch.finfo(torch.float32).tiny)
    undefined = torch.full_like(absolute[:, 0], torch.nan, dtype=torch.float64)
    covered = width = undefined
    if all(spans(levels, level) for level in _INTERVAL):
        lower, upper = interpolate_levels(forecast, levels, _INTERVAL)[0].unbind(-2)
        covered = row_sums(((lower <= target) & (target <= upper)).float())
        width = row_sums(upper - lower)
    pinball, by_step, below = _pinball_sums(forecast, target, levels)
    table = [
        row_sums(squared),
        row_sums(absolute),
        row_sums(smape),
        pinball if levels else undefined,
        row_sums(size),
        covered,
        width,
        _data_size_sums(target, *units.unsqueeze(-1).unbind(1)),
    ]
    steps = [
        _step_sums(squared),
        _step_sums(absolute),
        by_step if levels else torch.full_like(by_step, torch.nan),
        _step_sums(size),
    ]
    return torch.stack(table), torch.stack(steps), below


def _pinball_sums(
    forecast: torch.Tensor, target: torch.Tensor, levels: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """2 rho averaged over levels, summed over steps [R] and over rows [H], and targets below levels [Q].

    By 2 rho_q(e) = |e| + (2q - 1) e; all float64.
    """
    by_row = torch.zeros(len(target), dtype=torch.float64, device=target.device)
    losses = torch.zeros_like(target)
    below = torch.zeros(len(levels), dtype=torch.float64, device=target.device)
    for index, level in enumerate(levels):
        error = target - forecast[:, index]
        below[index] = (error <= 0).sum()
        signed = row_sums(error)
        losses.add_(error, alpha=2 * level - 1)
        by_row += row_sums(error.abs_()) + (2 * level - 1) * signed
        losses += error
    count = max(1, len(levels))
    return by_row / count, _step_sums(losses) / count, below


def _step_sums(values: torch.Tensor) -> torch.Tensor:
    """[R, H] float32 to [H] float64."""
    return values.sum(0, dtype=torch.float64)


def _data_size_sums(target: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """[R] float64: |y| in data units, summed over steps, of the standardised `target` [R, H]."""
    size = (target * std + mean).abs()
    resolution = torch.finfo(target.dtype).eps * mean.abs()
    return torch.where(size <= resolution, 0, size).sum(-1)


def _ratio(numerator: NDArray[np.floating], denominator: NDArray[np.floating]) -> NDArray[np.float64]:
    """Divide in float64, NaN where the denominator is zero."""
    undefined = np.full(np.shape(numerator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))
