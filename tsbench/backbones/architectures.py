"""Architectures without weights: what the method `supervised` trains from scratch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tsbench.backbones.base import BackboneOptions
from tsbench.choices import Schedule
from tsbench.models.dlinear import DLinear


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained.

    Attributes:
        learning_rates: Each is tried; the validation split chooses.
        batch_windows: Windows per step, each with all its channels.
        schedule: Of the rate. "late-halving" halves it after each epoch from the second on, as the code of
            Informer and its heirs does (their "type1").
        epochs: Passes over the train windows, at most.
        patience: Epochs without improvement on the validation split after which training stops.
    """

    learning_rates: tuple[float, ...]
    batch_windows: int
    schedule: Schedule
    epochs: int
    patience: int


@dataclass(frozen=True)
class Shape:
    """What a network is built for.

    Attributes:
        lookback: Context steps L.
        horizon: Forecast steps H.
        channels: C.
        dataset: Name of the data set, whose settings in the literature are taken where there are any.
    """

    lookback: int
    horizon: int
    channels: int
    dataset: str


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network to be trained from scratch.

    Attributes:
        name: Registry name.
        build: Shape -> network of contexts [w, C, L] to forecasts [w, C, H], its weights those of torch's
            current seed.
        recipe: Shape -> how it is trained.
        identity: Name and version of the network.
    """

    name: str
    build: Callable[[Shape], nn.Module]
    recipe: Callable[[Shape], Recipe]
    identity: str


LINEAR_RECIPE = Recipe(
    learning_rates=(5e-4, 1e-3, 5e-3), batch_windows=32, schedule="late-halving", epochs=10, patience=3
)
"""Of DLinear and NLinear on data sets of which their authors have no script."""


def _script(learning_rate: float, batch_windows: int) -> dict[str, Any]:
    return {"learning_rates": (learning_rate,), "batch_windows": batch_windows}


LINEAR_RECIPE_OF = {
    "ETTh1": _script(5e-3, 32),
    "ETTh2": _script(5e-2, 32),
    "ETTm1": _script(1e-4, 8),
    "ETTm2": _script(1e-3, 32),
    "Exchange": _script(5e-4, 8),
    "Weather": _script(1e-4, 16),
    "Electricity": _script(1e-3, 16),
    "Traffic": _script(5e-2, 16),
    "ILI": _script(1e-2, 32),
}
"""The authors' scripts for H = 96, by data set: scripts/EXP-LongForecasting/Linear of LTSF-Linear."""


def load_dlinear(options: BackboneOptions) -> Architecture:
    """DLinear, whose channels share their weights."""
    return Architecture(
        options.name,
        lambda shape: DLinear(shape.lookback, shape.horizon),
        lambda shape: replace(LINEAR_RECIPE, **LINEAR_RECIPE_OF.get(shape.dataset, {})),
        "dlinear-v2",
    )
