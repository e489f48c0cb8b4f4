"""Scores of quantile forecasts and of samples (PyTorch).

Forecasts are [..., Q, H], quantile level before horizon step; targets [..., H]. "CRPS" names a family whose
members differ by up to a factor of two on one forecast, so every function here says which one it is.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
import torch
from numpy.typing import ArrayLike

from tsbench.metrics.scaled import DefinedMean, mean_defined

CrpsVariant = Literal["pooled", "per-window", "per-channel", "unnormalised", "sql"]

_SAME_LEVEL = 1e-6  # two levels closer than this are one level written in two ways


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return the levels as a tuple after checking that they ascend strictly inside (0, 1).

    Raises:
        ValueError: They do not.
    """
    checked = tuple(float(level) for level in levels)
    steps = np.diff([0.0, *checked, 1.0])
    if checked and not (steps > 0).all():
        raise ValueError(f"quantile levels must ascend strictly between 0 and 1, got {checked}")
    return checked


def pinball_loss(y: torch.Tensor, quantiles: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Pinball (quantile) loss of every forecast value.

    rho_q(e) = max(q e, (q - 1) e),  e = y - quantile

    Args:
        y: [..., H] targets.
        quantiles: [..., Q, H], same units, any order along Q that matches `levels`.
        levels: Q quantile levels in (0, 1).

    Returns:
        [..., Q, H], dtype and device of the inputs. The mean over levels of 2 rho approximates the CRPS.

    Raises:
        ValueError: The shapes do not fit.

    Source:
        Koenker and Bassett 1978, doi:10.2307/1913643.
    """
    _check_quantiles(y, quantiles, levels)
    error = y.unsqueeze(-2) - quantiles
    level = torch.tensor(levels, dtype=error.dtype, device=error.device).unsqueeze(-1)
    return torch.maximum(level * error, (level - 1) * error)


def weighted_quantile_loss(
    y: torch.Tensor,
    quantiles: torch.Tensor,
    levels: Sequence[float],
    variant: CrpsVariant = "pooled",
    scale: ArrayLike | None = None,
) -> DefinedMean:
    """Quantile CRPS: 2 rho averaged over levels, normalised as `variant` says.

    - ``pooled``: sum of 2 rho over windows, steps and channels / sum of |y|, mean over levels. The primary
      score: of the variants only this one fits the published TS-Memory rows (arXiv 2602.11550).
    - ``per-window``: that ratio in each window over its own sum of |y|, then the mean over windows (ProbTS).
    - ``per-channel``: that ratio in each channel, then the mean over channels (`WQL` of fev).
    - ``unnormalised``: mean of 2 rho, in the units of y; approximates the CRPS integral. Nine levels
      0.1..0.9 read 9 % above it for a normal target, so scores on different levels do not compare.
    - ``sql``: scaled quantile loss, 2 rho / `scale` of the channel, mean over channels (`SQL` of fev).

    Args:
        y: [W, C, H] targets, standardised where scores are to be compared with published ones.
        quantiles: [W, C, Q, H], same units.
        levels: Q quantile levels in (0, 1).
        variant: Normalisation, see above.
        scale: [C], for ``sql`` only: in-sample `seasonal_error` of each channel.

    Returns:
        The score, a mean over groups (one group, the windows, or the channels). Groups whose normaliser is
        zero or NaN are left out and counted.

    Raises:
        ValueError: The shapes do not fit, or `scale` is missing for ``sql`` or given for another variant.
    """
    if y.dim() != 3:
        raise ValueError(f"y must be [W, C, H], got {tuple(y.shape)}")
    if (scale is not None) != (variant == "sql"):
        raise ValueError(f"scale belongs to the variant 'sql' and only to it, got variant {variant!r}")
    loss = 2 * pinball_loss(y, quantiles, levels).mean(dim=-2, dtype=torch.float64)
    size = y.abs().double()
    if variant == "pooled":
        return _mean_of_ratios(loss.sum(), size.sum())
    if variant == "per-window":
        return _mean_of_ratios(loss.sum((1, 2)), size.sum((1, 2)))
    if variant == "per-channel":
        return _mean_of_ratios(loss.sum((0, 2)), size.sum((0, 2)))
    if variant == "unnormalised":
        return mean_defined(float(loss.mean()))
    if variant == "sql":
        return _mean_of_ratios(loss.mean((0, 2)), torch.as_tensor(np.asarray(scale, dtype=np.float64)))
    assert_never(variant)


def interpolate_levels(
    quantiles: torch.Tensor, levels: Sequence[float], wanted: Sequence[float]
) -> tuple[torch.Tensor, tuple[float, ...]]:
    """Forecast at other quantile levels: linear in q between neighbours, clamped outside the range.

    Args:
        quantiles: [..., Q, H].
        levels: Q quantile levels, ascending.
        wanted: V levels in (0, 1), in any order.

    Returns:
        The forecast [..., V, H], and those of `wanted` that lie outside `levels`, which got the nearest
        level's values: an interval between two of them is narrower than its nominal level says.

    Raises:
        ValueError: The levels do not ascend, or do not match `quantiles`.
    """
    checked = check_levels(levels)
    if not checked or quantiles.dim() < 2 or quantiles.shape[-2] != len(checked):
        raise ValueError(f"{len(checked)} levels do not fit quantiles of shape {tuple(quantiles.shape)}")
    forecast = torch.stack([_at_level(quantiles, checked, level) for level in wanted], dim=-2)
    return forecast, tuple(level for level in wanted if not spans(checked, level))


def spans(levels: Sequence[float], level: float) -> bool:
    """Say whether `level` lies within the range of the ascending `levels`."""
    return bool(levels) and levels[0] - _SAME_LEVEL <= level <= levels[-1] + _SAME_LEVEL


def median_forecast(quantiles: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Point forecast of a quantile forecast: level 0.5, interpolated when there is none.

    Args:
        quantiles: [..., Q, H].
        levels: Q quantile levels, ascending, on both sides of 0.5.

    Returns:
        [..., H]; a view of `quantiles` when 0.5 is one of the levels.

    Raises:
        ValueError: The levels do not reach 0.5, or do not match `quantiles`.

    Source:
        TS-Memory (arXiv 2602.11550), Eq. 31. Not the mean of the quantiles, as in some public wrappers.
    """
    checked = check_levels(levels)
    if not spans(checked, 0.5):
        raise ValueError(f"no median between the quantile levels {checked}")
    if quantiles.shape[-2] != len(checked):
        raise ValueError(f"{len(checked)} levels do not fit quantiles of shape {tuple(quantiles.shape)}")
    return _at_level(quantiles, checked, 0.5)


def interval_coverage(y: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor) -> float:
    """Share of targets inside the closed interval [lower, upper].

    Args:
        y: [..., H] targets.
        lower: [..., H], such as level 0.1.
        upper: [..., H], such as level 0.9.

    Returns:
        0 to 1; 0.8 is right for the levels 0.1 and 0.9.
    """
    return float(((lower <= y) & (y <= upper)).double().mean())


def interval_width(lower: torch.Tensor, upper: torch.Tensor) -> float:
    """Mean of upper - lower, in the units of the forecast.

    Args:
        lower: [..., H], such as level 0.1.
        upper: [..., H], such as level 0.9.

    Returns:
        The mean, summed in float64; negative contributions of crossed bounds are kept.
    """
    return float((upper - lower).mean(dtype=torch.float64))


def crossing_rate(raw: torch.Tensor) -> float:
    """Share of neighbouring quantile pairs in the wrong order, before any sorting.

    Args:
        raw: [..., Q, H], Q of 2 or more, ordered by ascending level as the network gave them. `predict`
            returns sorted quantiles, whose rate is 0.

    Returns:
        0 to 1: pairs (level j, level j+1) with a strictly decreasing value, over all pairs and steps.

    Raises:
        ValueError: Fewer than two levels.
    """
    if raw.shape[-2] < 2:
        raise ValueError("a crossing needs two quantile levels or more")
    return float((raw.diff(dim=-2) < 0).double().mean())


def sample_crps(
    y: torch.Tensor, samples: torch.Tensor, estimator: Literal["fair", "plain"] = "fair"
) -> torch.Tensor:
    """CRPS of an ensemble, in its energy form.

    mean_s |x_s - y| - 1/2 sum_{s,r} |x_s - x_r| / N,  N = S (S - 1) for ``fair`` and S^2 for ``plain``

    The plain estimator is biased upwards by E|X - X'| / (2 S), so its value falls with more samples; the
    fair one is unbiased and can be negative.

    Args:
        y: [..., H] targets.
        samples: [..., S, H], same units, in any order.
        estimator: Which N.

    Returns:
        [..., H], dtype and device of the inputs.

    Raises:
        ValueError: The shapes do not fit, or ``fair`` with a single sample.

    Source:
        Gneiting and Raftery 2007, doi:10.1198/016214506000001437, Eq. 21; fair: Ferro 2014,
        doi:10.1002/qj.2270. Sorted, the double sum takes S log S steps.
    """
    if samples.shape[:-2] + samples.shape[-1:] != y.shape:
        raise ValueError(f"samples {tuple(samples.shape)} do not fit targets {tuple(y.shape)}")
    return ordered_crps(y, samples.sort(dim=-2).values, estimator)


def ordered_crps(y: torch.Tensor, ordered: torch.Tensor, estimator: Literal["fair", "plain"]) -> torch.Tensor:
    """`sample_crps` of samples [..., S, H] that ascend along S already."""
    n = ordered.shape[-2]
    if estimator == "fair" and n < 2:
        raise ValueError("the fair estimator needs two samples or more")
    pairs = n * (n - 1) if estimator == "fair" else n * n
    deviation = ordered - y.unsqueeze(-2)
    rank = torch.arange(1, n + 1, dtype=deviation.dtype, device=deviation.device)
    half_spread = ((2 * rank - n - 1).unsqueeze(-1) * deviation).sum(-2) / pairs
    return deviation.abs().mean(-2) - half_spread


def crps_sum(
    y: torch.Tensor, samples: torch.Tensor, levels: Sequence[float], variant: CrpsVariant = "pooled"
) -> DefinedMean:
    """CRPS-sum: `weighted_quantile_loss` of the channels' sum, which also scores their dependence.

    Args:
        y: [W, C, H] targets.
        samples: [W, C, S, H] joint samples: sample s of all channels is one draw.
        levels: Quantile levels at which the summed samples are read (linear between order statistics).
        variant: Any but ``sql``, whose per-channel scale has no meaning after summing.

    Returns:
        As `weighted_quantile_loss`.

    Source:
        Salinas et al. 2019 (arXiv 1910.03002); ProbTS.
    """
    total = samples.sum(1, keepdim=True)
    at_levels = torch.quantile(total, torch.tensor(levels, dtype=total.dtype, device=total.device), dim=-2)
    return weighted_quantile_loss(y.sum(1, keepdim=True), at_levels.movedim(0, -2), levels, variant)


def _at_level(quantiles: torch.Tensor, levels: tuple[float, ...], level: float) -> torch.Tensor:
    """[..., H] at one level: itself, between its neighbours, or the nearest when outside."""
    above = bisect_left(levels, level - _SAME_LEVEL)
    if above == len(levels):
        return quantiles[..., -1, :]
    if above == 0 or levels[above] - level <= _SAME_LEVEL:
        return quantiles[..., above, :]
    low, high = quantiles[..., above - 1, :], quantiles[..., above, :]
    return low + (level - levels[above - 1]) / (levels[above] - levels[above - 1]) * (high - low)


def _mean_of_ratios(loss: torch.Tensor, normaliser: torch.Tensor) -> DefinedMean:
    """Mean of loss / normaliser over groups; a group with normaliser 0 or NaN is undefined."""
    if loss.shape != normaliser.shape:
        raise ValueError(f"scale must have shape {tuple(loss.shape)}, got {tuple(normaliser.shape)}")
    divisor = normaliser.to(loss.device)
    return mean_defined(torch.where(divisor > 0, loss / divisor, torch.nan).cpu().numpy())


def _check_quantiles(y: torch.Tensor, quantiles: torch.Tensor, levels: Sequence[float]) -> None:
    if quantiles.shape != (*y.shape[:-1], len(levels), *y.shape[-1:]):
        raise ValueError(
            f"quantiles {tuple(quantiles.shape)} do not fit targets {tuple(y.shape)} and {len(levels)} levels"
        )
