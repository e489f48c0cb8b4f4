"""The corpus: which families, in which shares, and how a batch of series is drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tsbench.data.synthetic.effects import apply_effects, mix
from tsbench.data.synthetic.gaussian_process import gaussian_process
from tsbench.data.synthetic.intermittent import intermittent
from tsbench.data.synthetic.load import load
from tsbench.data.synthetic.primitives import Series, chosen, standardise, white
from tsbench.data.synthetic.seasonal import calendar, seasonal_mixture
from tsbench.data.synthetic.stochastic import autoregression, random_walk
from tsbench.data.synthetic.weather import weather


@dataclass(frozen=True)
class Family:
    """One kind of series.

    Attributes:
        name: Short name, as the model card lists it.
        weight: Share of the corpus.
        touched: Share of this family's series that may be mixed with others and go through effects.
        generate: Draws series: (rng, count, length) -> [count, length] float32, not scaled.
    """

    name: str
    weight: float
    touched: float
    generate: Callable[[np.random.Generator, int, int], Series]


FAMILIES = (
    Family("seasonal", 0.26, 0.6, seasonal_mixture),
    Family("calendar", 0.08, 0.5, calendar),
    Family("load", 0.19, 0.4, load),
    Family("weather", 0.14, 0.3, weather),
    Family("random_walk", 0.16, 0.15, random_walk),
    Family("autoregression", 0.06, 0.4, autoregression),
    Family("gaussian_process", 0.06, 0.4, gaussian_process),
    Family("intermittent", 0.05, 0.3, intermittent),
)

_MIXED = 0.2


def generate(rng: np.random.Generator, count: int, length: int) -> Series:
    """Draw series from the corpus.

    Each series gets a family by weight; some are mixed with others of the same call or pass through
    effects (trend, shift, outliers, saturation, ...); all are standardised.

    Args:
        rng: Source of randomness; the result is a pure function of its state.
        count: Number of series.
        length: Steps per series, at least 2.

    Returns:
        [count, length] float32, finite, each row with mean 0 and standard deviation 1.
    """
    family = rng.choice(len(FAMILIES), count, p=[member.weight for member in FAMILIES])
    series = np.empty((count, length), np.float32)
    touched = np.zeros(count, bool)
    for index, member in enumerate(FAMILIES):
        rows = np.flatnonzero(family == index)
        series[rows] = _usable(rng, standardise(member.generate(rng, len(rows), length)))
        touched[rows] = rng.random(len(rows)) < member.touched
    candidates = series[touched]
    mixed = chosen(rng, _MIXED, len(candidates))
    candidates[mixed] = standardise(mix(rng, candidates[mixed], series))
    apply_effects(rng, candidates)
    series[touched] = _usable(rng, candidates)
    return series


def _usable(rng: np.random.Generator, series: Series) -> Series:
    """White noise in place of the rows that `standardise` found constant."""
    dead = np.flatnonzero(~series.any(axis=1))
    series[dead] = standardise(white(rng, len(dead), series.shape[1]))
    return series
