"""Scores of a fused forecast for every fusion weight, in one pass over base and memory forecasts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.metrics.quantile import check_levels
from tsbench.metrics.streaming import check_batch, point_forecast, row_chunks, row_sums

FusionCriterion = Literal["crps", "mae", "mse"]

ALPHAS = tuple(step / 20 for step in range(21))  # TS-Memory's grid: 0, 0.05, ..., 1


@dataclass(frozen=True, eq=False)
class FusionScores:
    """Scores of (1 - α) base + α memory on the grid of fusion weights; entry 0 is the base alone."""

    alpha: NDArray[np.float64]  # [21]
    mse: NDArray[np.float64]  # [21]
    mae: NDArray[np.float64]  # [21]
    crps: NDArray[np.float64]  # [21] pooled; NaN for point-only forecasts or when every target is zero

    def best(self, criterion: FusionCriterion) -> float:
        """Fusion weight with the lowest score; the smallest of them when several tie.

        Raises:
            ValueError: The criterion is undefined (CRPS of point-only forecasts).
        """
        curve: NDArray[np.float64] = getattr(self, criterion)
        if np.isnan(curve).any():
            raise ValueError(
                f"no fusion weight can be chosen by {criterion}: it is undefined for these forecasts"
            )
        return float(self.alpha[np.argmin(curve)])


class FusionCurve:
    """Accumulates `FusionScores` over batches of windows.

    With e the base's error and d = memory - base, the fused error is e - α d. So

    - MSE(α) = mean e² - 2α mean e d + α² mean d², exact from three sums;
    - MAE(α) = mean |e - α d|, on the grid;
    - CRPS(α): 2 rho_q(e) = |e| + (2q - 1) e, whose second term is linear in α, so per level only
      |e - α d| needs the grid.

    A convex combination of sorted quantiles is sorted, so nothing is sorted again. The curve at α = 0 has
    exactly the scores that `ForecastScores` gives the base over the same batches.

    Args:
        levels: Quantile levels of both forecasters, ascending; () when point-only (batches have Q = 1).

    Source:
        TS-Memory (arXiv 2602.11550), Eqs. 22 and 29 to 32. The weight belongs to the validation split:
        by Eq. 30 the best α on any split cannot lose to the base on that same split.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self._levels = check_levels(levels)
        self._n_points = 0
        self._squares = np.zeros(3)  # sums of e², e d, d²
        self._absolute = np.zeros(len(ALPHAS))
        self._pinball = np.zeros(len(ALPHAS))
        self._abs_target = 0.0

    @torch.no_grad()
    def update(self, base: torch.Tensor, memory: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch of windows.

        Args:
            base: [W, C, Q, H] float32, sorted along Q; [W, C, 1, H] when point-only.
            memory: Same shape, units and device.
            target: [W, C, H] float32.

        Raises:
            ValueError: Wrong shape or dtype, or a NaN or infinite value (the message counts them); the
                batch is then not added.
        """
        check_batch({"base": base, "memory": memory}, target, self._levels)
        parts = [_reduce(self._levels, *chunk) for chunk in row_chunks(target, base, memory)]
        squares, absolute, pinball, size = (
            torch.cat(column, dim=-1).cpu().numpy().sum(-1) for column in zip(*parts, strict=True)
        )
        self._squares += squares
        self._absolute += absolute
        self._pinball += pinball
        self._abs_target += float(size)
        self._n_points += target.numel()

    def result(self) -> FusionScores:
        """Divide the sums by the counts.

        Raises:
            ValueError: No window was added.
        """
        if not self._n_points:
            raise ValueError("no window was scored")
        alpha = np.array(ALPHAS)
        base, cross, difference = self._squares / self._n_points
        mean_abs_target = self._abs_target / self._n_points
        return FusionScores(
            alpha=alpha,
            mse=np.maximum(base - 2 * alpha * cross + alpha**2 * difference, 0),
            mae=self._absolute / self._n_points,
            crps=self._pinball / self._n_points / (mean_abs_target or np.nan),
        )

    def best(self, criterion: FusionCriterion) -> float:
        """Fusion weight with the lowest score so far (`FusionScores.best`)."""
        return self.result().best(criterion)


def _reduce(
    levels: tuple[float, ...], base: torch.Tensor, memory: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reduce [R, Q, H] to sums over steps: squares [3, R], |e| [21, R], 2 rho [21, R] and |y| [R]."""
    base_point = point_forecast(base, levels)
    error, difference = target - base_point, point_forecast(memory, levels) - base_point
    squares = torch.stack(
        [row_sums(product) for product in (error.square(), error * difference, difference.square())]
    )
    absolute = _absolute_sums(error, difference)
    pinball = torch.full_like(absolute, 0.0 if levels else torch.nan)
    alpha = torch.tensor(ALPHAS, dtype=torch.float64, device=target.device).unsqueeze(-1)
    for index, level in enumerate(levels):
        error, difference = target - base[:, index], memory[:, index] - base[:, index]
        signed = row_sums(error) - alpha * row_sums(difference)
        pinball += _absolute_sums(error, difference) + (2 * level - 1) * signed
    return squares, absolute, pinball / max(1, len(levels)), row_sums(target.abs())


def _absolute_sums(error: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """[21, R] float64: sum over steps of |error - α difference|, from [R, H], in one reused buffer."""
    fused = torch.empty_like(error)
    sums = torch.empty(len(ALPHAS), len(error), dtype=torch.float64, device=error.device)
    for row, alpha in zip(sums, ALPHAS, strict=True):
        torch.add(error, difference, alpha=-alpha, out=fused)
        torch.sum(fused.abs_(), -1, dtype=torch.float64, out=row)
    return sums
