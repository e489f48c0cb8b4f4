"""Statistical models that are fitted to each series: Theta, ETS and ARIMA, by the package statsforecast."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.base import BackboneOptions, RollOut, choose_rollout
from tsbench.errors import TsbenchError

CLASSES = {"theta": "Theta", "auto-ets": "AutoETS", "auto-arima": "AutoARIMA"}
"""The class of statsforecast behind each name."""


@dataclass(frozen=True, eq=False)
class StatisticalModel:
    """A model chosen and fitted anew for every context; point forecasts.

    `theta` is the standard Theta method behind a test for a season; `auto-ets` and `auto-arima` choose the
    form of the model by an information criterion. Fitting takes from a millisecond (Theta) to seconds (ARIMA
    with a season) a series.

    Attributes:
        name: Registry name.
        identity: Name, season, version of statsforecast, adapter version.
        fit_and_forecast: Context [L] float64 and horizon to a forecast [H].
    """

    name: str
    identity: str
    fit_and_forecast: Callable[[NDArray[np.float64], int], NDArray[np.float64]]
    quantile_levels: ClassVar[tuple[float, ...]] = ()
    rollout: ClassVar[RollOut] = "direct"
    block: ClassVar[None] = None
    prefix_consistent: ClassVar[bool] = True

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast [B, 1, H] float32 of contexts [B, L] without NaN, one after the other in float64."""
        rows = context.double().cpu().numpy()
        forecast = np.stack([self.fit_and_forecast(row, horizon) for row in rows])
        return torch.from_numpy(forecast).float().unsqueeze(1).to(context.device)

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Refuse: a statistical model has no encoder.

        Raises:
            TsbenchError: Always.
        """
        raise TsbenchError(
            f"backbone '{self.name}' has no encoder to embed contexts; choose a pretrained backbone"
        )


def load(options: BackboneOptions) -> StatisticalModel:
    """Make one of the models of `CLASSES`, with the season of the data.

    Raises:
        TsbenchError: A roll-out other than `direct` is wanted, or statsforecast cannot be imported.
    """
    choose_rollout(options, "direct")
    try:
        models: Any = importlib.import_module("statsforecast.models")
    except ImportError as error:
        raise TsbenchError(
            f"backbone '{options.name}' cannot import statsforecast ({error}); pip install 'tsbench[stats]'"
        ) from error
    model = getattr(models, CLASSES[options.name])(season_length=options.season)

    def fit_and_forecast(context: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        return np.asarray(model.forecast(y=context, h=horizon)["mean"], dtype=np.float64)

    identity = f"{options.name}-m{options.season}-statsforecast-{version('statsforecast')}-v1"
    return StatisticalModel(options.name, identity, fit_and_forecast)
