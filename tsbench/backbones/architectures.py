"""Architectures without weights: what the method `supervised` trains from scratch."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tsbench.backbones.base import BackboneOptions
from tsbench.models.dlinear import DLinear


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained.

    Attributes:
        learning_rates: Each is tried; the validation split chooses.
        batch_windows: Windows per step, each with all its channels.
        epochs: Passes over the train windows, at most.
        patience: Epochs without improvement on the validation split after which training stops.
    """

    learning_rates: tuple[float, ...]
    batch_windows: int
    epochs: int
    patience: int


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network to be trained from scratch.

    Attributes:
        name: Registry name.
        build: Lookback L, horizon H, channels C -> network of contexts [w, C, L] to forecasts [w, C, H].
        recipe: How it is trained.
        identity: Name and version of the network.
    """

    name: str
    build: Callable[[int, int, int], nn.Module]
    recipe: Recipe
    identity: str


def load_dlinear(options: BackboneOptions) -> Architecture:
    """DLinear, whose channels share their weights.

    Its authors' scripts have one learning rate per data set, from 1e-4 to 0.05, and 8 to 32 windows per step;
    here the validation split chooses the rate, for any data set.
    """
    return Architecture(
        options.name,
        lambda lookback, horizon, channels: DLinear(lookback, horizon),
        Recipe(learning_rates=(1e-4, 5e-4, 1e-3, 5e-3), batch_windows=32, epochs=10, patience=3),
        "dlinear-v1",
    )
