"""Naive2, the forecast that the M4 competition measures all others against."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.base import BackboneOptions, RollOut, choose_rollout
from tsbench.errors import TsbenchError

_CRITICAL = 1.645  # standard normal quantile 0.95: a two-sided test at 90 %


@dataclass(frozen=True)
class Naive2:
    """Repeats the last value of the seasonally adjusted context, and puts the season back.

        q(h) = x[L] / s(L) · s(L + h)

    with the seasonal indices s of `seasonal_indices` where `is_seasonal` finds a season, and 1 elsewhere.

    Attributes:
        season: m, steps per season, at least 1.

    Source:
        Makridakis, Spiliotis and Assimakopoulos 2020, doi:10.1016/j.ijforecast.2019.04.014, and the R code of
        the competition's benchmarks.
    """

    season: int
    name: ClassVar[str] = "naive2"
    quantile_levels: ClassVar[tuple[float, ...]] = ()
    rollout: ClassVar[RollOut] = "direct"
    block: ClassVar[None] = None
    prefix_consistent: ClassVar[bool] = True

    @property
    def identity(self) -> str:
        """Name, season and version of the formula above."""
        return f"{self.name}-m{self.season}-v1"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast the `horizon` steps after each context.

        Args:
            context: [B, L] float32, oldest first, no NaN; any L from 1 on.
            horizon: H, steps ahead.

        Returns:
            [B, 1, H] float32 on the context's device; computed in float64.
        """
        values = context.double().cpu().numpy()
        length = values.shape[1]
        index = np.ones((len(values), self.season))
        seasonal = is_seasonal(values, self.season)
        if seasonal.any():
            index[seasonal] = seasonal_indices(values[seasonal], self.season)
        ahead = index[:, np.arange(length, length + horizon) % self.season]
        forecast = values[:, -1:] / index[:, [(length - 1) % self.season]] * ahead
        return torch.from_numpy(forecast).float().unsqueeze(1).to(context.device)

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Refuse: repeating values needs no encoder.

        Raises:
            TsbenchError: Always.
        """
        raise TsbenchError("backbone 'naive2' has no encoder to embed contexts; choose a pretrained backbone")


def load(options: BackboneOptions) -> Naive2:
    """Make Naive2 with the season of the data.

    Raises:
        TsbenchError: A roll-out other than `direct` is wanted.
    """
    choose_rollout(options, "direct")
    return Naive2(options.season)


def is_seasonal(values: NDArray[np.float64], season: int) -> NDArray[np.bool_]:
    """Test each series for a season, by its autocorrelation at lag m against Bartlett's limit at 90 %.

    |r(m)| > 1.645 sqrt((1 + 2 sum over k < m of r(k)^2) / L)

    Args:
        values: [B, L] float64, oldest first.
        season: m, steps per season.

    Returns:
        [B] bool. False for m = 1, for fewer than three seasons, for a constant series, and where a value is
        not above zero: multiplicative indices mean nothing there.

    Source:
        As for `Naive2`. The competition's series are all positive; refusing others is ours.
    """
    length = values.shape[1]
    if season == 1 or length < 3 * season:
        return np.zeros(len(values), dtype=np.bool_)
    centred = values - values.mean(axis=1, keepdims=True)
    products = [(centred[:, lag:] * centred[:, : length - lag]).sum(axis=1) for lag in range(season + 1)]
    variance = np.where(products[0] > 0, products[0], np.inf)
    correlation = np.stack(products[1:]) / variance  # [m, B]
    limit = _CRITICAL * np.sqrt((1 + 2 * np.square(correlation[:-1]).sum(axis=0)) / length)
    return np.asarray((np.abs(correlation[-1]) > limit) & (values > 0).all(axis=1))


def seasonal_indices(values: NDArray[np.float64], season: int) -> NDArray[np.float64]:
    """Multiplicative seasonal indices of the classical decomposition.

    The mean, phase by phase, of x[t] / trend[t], divided by the mean of the m results; the trend is the
    centred moving average over one season, its two end points at half weight where m is even.

    Args:
        values: [B, L] float64, above zero, oldest first; L at least 2 m.
        season: m, steps per season, at least 2.

    Returns:
        [B, m] float64 of mean 1; entry p belongs to the steps t with t mod m = p, counted from the oldest.

    Source:
        R's `decompose(type = "multiplicative")`.
    """
    half = season // 2
    weights = np.ones(season) if season % 2 else np.concatenate([[0.5], np.ones(season - 1), [0.5]])
    windows = np.lib.stride_tricks.sliding_window_view(values, len(weights), axis=1)
    ratio = values[:, half : values.shape[1] - half] / (windows @ (weights / season))
    phase = (half + np.arange(ratio.shape[1])) % season
    index = np.stack([ratio[:, phase == each].mean(axis=1) for each in range(season)], axis=1)
    return np.asarray(index / index.mean(axis=1, keepdims=True))
