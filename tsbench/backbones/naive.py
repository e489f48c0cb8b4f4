"""The forecasts every model must beat: the last value, and the last season."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from tsbench.backbones.base import DECILES, BackboneOptions, RollOut, choose_rollout
from tsbench.errors import TsbenchError

_RESIDUAL_ROWS = 4096  # rows whose residuals are sorted together: some tens of MB at a lookback of 512


@dataclass(frozen=True)
class SeasonalNaive:
    """Repeats the last season; with a season of one step, the last value.

    Step h repeats the value observed m steps before it, or the last observed season again once h > m:

        q_j(h) = x[L - m + (h-1) mod m] + sqrt(k) · (r_j - r_0.5),   k = floor((h-1) / m) + 1

    where r_j is the empirical quantile (linear interpolation) of the context's own one-season errors
    x[t] - x[t-m]. k seasons ahead the error is the sum of k such steps, so its spread grows with sqrt(k)
    when they are uncorrelated, and less where values revert to a mean: there the intervals are too wide.
    Subtracting r_0.5 makes the level-0.5 forecast the repeated value itself, bit for bit. A context of
    exactly one season has no errors to learn from and gets zero width.

    Attributes:
        name: Registry name.
        season: m, steps per season, at least 1.

    Source:
        Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.5 (spread of the
        naive and seasonal naive methods; residuals in place of a normal law). We scale the quantiles of the
        one-season errors rather than take errors k seasons apart: those do not exist for horizons beyond the
        lookback, and would need one sort per step.
    """

    name: str
    season: int
    quantile_levels: ClassVar[tuple[float, ...]] = DECILES
    rollout: ClassVar[RollOut] = "direct"
    block: ClassVar[None] = None
    prefix_consistent: ClassVar[bool] = True

    @property
    def identity(self) -> str:
        """Name, season and version of the formula above."""
        return f"{self.name}-m{self.season}-v1"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Repeat the last season over the horizon.

        Args:
            context: [B, L] float32, oldest first.
            horizon: H, steps ahead.

        Returns:
            [B, 9, H] float32 at the deciles, ascending, on the context's device; the only array of that size
            that is made.

        Raises:
            TsbenchError: The context is shorter than one season.
        """
        lookback = context.shape[-1]
        if lookback < self.season:
            raise TsbenchError(
                f"backbone '{self.name}' repeats a season of {self.season} steps but the lookback is "
                f"{lookback}; use a lookback of at least {self.season}"
            )
        step = torch.arange(horizon, device=context.device)
        point = context[:, lookback - self.season + step % self.season]  # [B, H]
        seasons_ahead = step // self.season + 1
        offsets = _residual_offsets(context, self.season, self.quantile_levels)
        forecast = offsets[:, :, None] * seasons_ahead.sqrt()
        forecast += point[:, None, :]
        return forecast

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Refuse: repeating values needs no encoder.

        Raises:
            TsbenchError: Always.
        """
        raise TsbenchError(
            f"backbone '{self.name}' has no encoder to embed contexts; choose a pretrained backbone"
        )


def load(options: BackboneOptions) -> SeasonalNaive:
    """Make `naive-last`, or `naive-seasonal` with the season of the data.

    Args:
        options: `season` counts for `naive-seasonal` only.

    Raises:
        TsbenchError: A roll-out other than `direct` is wanted.
    """
    choose_rollout(options, "direct")
    return SeasonalNaive(options.name, season=1 if options.name == "naive-last" else options.season)


def _residual_offsets(context: torch.Tensor, season: int, levels: tuple[float, ...]) -> torch.Tensor:
    """Quantiles [B, Q] of x[t] - x[t-season], less their median."""
    offsets = context.new_zeros(len(context), len(levels))
    if context.shape[-1] == season:
        return offsets
    probabilities = torch.tensor(levels, dtype=context.dtype, device=context.device)
    for start in range(0, len(context), _RESIDUAL_ROWS):
        rows = context[start : start + _RESIDUAL_ROWS]
        quantiles = torch.quantile(rows[:, season:] - rows[:, :-season], probabilities, dim=-1)  # [Q, rows]
        offsets[start : start + _RESIDUAL_ROWS] = (quantiles - quantiles[levels.index(0.5)]).T
    return offsets
