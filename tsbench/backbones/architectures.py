"""Architectures without weights: what the method `supervised` trains from scratch."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tsbench.backbones.base import BackboneOptions
from tsbench.models.dlinear import DLinear


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained on a data set.

    Attributes:
        learning_rate: Highest learning rate.
        batch_windows: Windows per step, each with all its channels.
        epochs: Passes over the train windows, at most.
        patience: Epochs without improvement on the validation split after which training stops.
        source: Where these values are from.
    """

    learning_rate: float
    batch_windows: int
    epochs: int
    patience: int
    source: str


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network to be trained from scratch.

    Attributes:
        name: Registry name.
        build: Lookback L, horizon H, channels C -> network of contexts [w, C, L] to forecasts [w, C, H].
        recipe: Data set -> how it is trained there.
        identity: Name and version of network and recipes.
    """

    name: str
    build: Callable[[int, int, int], nn.Module]
    recipe: Callable[[str], Recipe]
    identity: str


def load_dlinear(options: BackboneOptions) -> Architecture:
    """DLinear, whose channels share their weights."""
    return Architecture(
        options.name,
        lambda lookback, horizon, channels: DLinear(lookback, horizon),
        _dlinear_recipe,
        "dlinear-v1",
    )


_DLINEAR = {  # learning rate and windows per step
    "ETTh1": (1e-4, 8),
    "ETTh2": (0.05, 32),
    "ETTm1": (1e-4, 8),
    "ETTm2": (1e-3, 32),
    "Electricity": (1e-3, 16),
    "Exchange": (5e-4, 8),
    "ILI": (0.05, 32),
    "Traffic": (0.05, 16),
    "Weather": (1e-4, 16),
}


def _dlinear_recipe(dataset: str) -> Recipe:
    """The authors' values per data set at H = 96; 1e-3 and 32 windows where they have none."""
    known = dataset in _DLINEAR
    rate, windows = _DLINEAR.get(dataset, (1e-3, 32))
    source = "scripts of github.com/cure-lab/LTSF-Linear" if known else "ours"
    return Recipe(rate, windows, epochs=10, patience=3, source=source)
