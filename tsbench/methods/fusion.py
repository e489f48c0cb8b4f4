"""Blending a frozen backbone's forecast with another one's by a single weight."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.base import Backbone, Forecaster, RollOut
from tsbench.backbones.batching import RowLimit
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.windows import gather_contexts, gather_targets
from tsbench.errors import TsbenchError
from tsbench.metrics.fusion import FusionCurve, FusionScores

Stage = Literal["retrieval", "forward", "fusion"]
"""What the time of a forecast goes into: looking up train windows, running networks, blending."""

Lap = Callable[[Stage], None]
"""Called when a stage of a forecast ends."""


@dataclass(frozen=True, eq=False)
class FusedForecaster:
    """(1 - α) base + α companion, per quantile level and step.

    At α = 0 the result is the base's forecast bit for bit and the companion is not called.

    Attributes:
        base: The frozen backbone.
        companion: Forecaster with the same quantile levels.
        alpha: Weight α in [0, 1], chosen on validation windows.
        stage: What the companion's time goes into.

    Source:
        TS-Memory (arXiv 2602.11550), Eqs. 21, 22.
    """

    base: Backbone
    companion: Forecaster
    alpha: float
    stage: Stage = "forward"

    @property
    def name(self) -> str:
        """Names of both parts."""
        return f"{self.base.name} + {self.companion.name}"

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """The backbone's levels."""
        return self.base.quantile_levels

    @property
    def rollout(self) -> RollOut:
        """The backbone's."""
        return self.base.rollout

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast with both parts; see `Forecaster.predict`."""
        return predict_in_stages(self, context, horizon, lambda stage: None)


def predict_in_stages(forecaster: Forecaster, context: torch.Tensor, horizon: int, lap: Lap) -> torch.Tensor:
    """Forecast as `Forecaster.predict` does, and tell when each stage ends.

    The parts of a fused forecaster run one after the other. Any other forecaster is all "forward".
    """
    if not isinstance(forecaster, FusedForecaster):
        forecast = forecaster.predict(context, horizon)
        lap("forward")
        return forecast
    base = forecaster.base.predict(context, horizon)
    lap("forward")
    if forecaster.alpha == 0:
        return base
    companion = forecaster.companion.predict(context, horizon)
    lap(forecaster.stage)
    fused = fuse(base, companion, forecaster.alpha)
    lap("fusion")
    return fused


def fuse(base: torch.Tensor, companion: torch.Tensor, alpha: float) -> torch.Tensor:
    """(1 - α) base + α companion; exactly the base at α = 0 and the companion at α = 1."""
    if alpha == 0:
        return base
    if alpha == 1:
        return companion
    return (1 - alpha) * base + alpha * companion


def median_levels(backbone: Backbone, method: str) -> tuple[float, ...]:
    """The backbone's quantile levels, which a method needs the median among.

    Raises:
        TsbenchError: There is no level 0.5.
    """
    if 0.5 not in backbone.quantile_levels:
        raise TsbenchError(
            f"{method} needs a backbone with a median forecast, and '{backbone.name}' has none; "
            "choose another backbone"
        )
    return backbone.quantile_levels


def predict_windows(
    forecaster: Forecaster, frozen: FrozenBackbone, starts: NDArray[np.int64], horizon: int
) -> torch.Tensor:
    """Forecast windows of the frozen backbone's data set with another forecaster.

    Args:
        forecaster: What forecasts.
        frozen: Gives the scaled data and the lookback.
        starts: [W] first target rows.
        horizon: Steps H.

    Returns:
        [W, C, Q, H] float32 on the CPU.
    """
    context = torch.from_numpy(gather_contexts(frozen.scaled, starts, frozen.lookback))
    windows, channels, lookback = context.shape
    forecast = RowLimit(forecaster.name, channels).call(
        lambda rows: forecaster.predict(rows, horizon), context.view(windows * channels, lookback)
    )
    return forecast.view(windows, channels, *forecast.shape[1:]).cpu()


def fusion_curve(
    companion: Forecaster, frozen: FrozenBackbone, starts: NDArray[np.int64], horizon: int
) -> FusionScores:
    """Scores of the frozen backbone fused with a companion at every weight, over the given windows alone.

    Args:
        companion: Forecaster to fuse with the backbone.
        frozen: The backbone over the scaled data set, with its cache.
        starts: [W] first target rows.
        horizon: Steps H.
    """
    curve = FusionCurve(frozen.backbone.quantile_levels)
    for part, base in frozen.forecasts(starts, horizon):
        memory = predict_windows(companion, frozen, starts[part], horizon)
        curve.update(base, memory, torch.from_numpy(gather_targets(frozen.scaled, starts[part], horizon)))
    return curve.result()
