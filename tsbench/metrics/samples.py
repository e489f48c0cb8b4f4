"""Scores of sampled paths in one pass over batches (PyTorch)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from tsbench.metrics.quantile import ordered_crps


@dataclass(frozen=True)
class SampleScores:
    """Scores of S sampled paths per row, pooled over rows and steps; see `sample_crps`.

    Attributes:
        crps_fair: Mean of the fair estimator, in the units of y.
        crps_plain: Mean of the plain estimator: biased upwards, the less the more samples.
        crps: Fair and pooled: its sum / sum of |y|. Compares with the pooled quantile CRPS in kind, but
            approximates the integral over all levels, not the mean over a few. NaN when every target is zero.
        coverage: Share of targets in the closed interval between the samples' 10 % and 90 % quantiles.
        width: Mean width of that interval.
    """

    crps_fair: float
    crps_plain: float
    crps: float
    coverage: float
    width: float


@torch.no_grad()
def score_samples(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> SampleScores:
    """Score sampled paths in constant memory, summed in float64.

    Args:
        batches: Samples [R, S, H] float32 with S of 2 or more, and their targets [R, H], same units; rows
            are windows x channels.

    Raises:
        ValueError: No batch, a shape that does not fit, or a NaN or infinite value.
    """
    sums, n_values = np.zeros(5), 0
    for samples, target in batches:
        if samples.shape[:-2] + samples.shape[-1:] != target.shape or samples.shape[-2] < 2:
            raise ValueError(
                f"samples must be [R, S, H] with S of 2 or more, got {tuple(samples.shape)} for targets "
                f"{tuple(target.shape)}"
            )
        ordered = samples.sort(dim=-2).values
        lower, upper = _quantile(ordered, 0.1), _quantile(ordered, 0.9)
        terms = (
            ordered_crps(target, ordered, "fair"),
            ordered_crps(target, ordered, "plain"),
            target.abs(),
            (lower <= target) & (target <= upper),
            upper - lower,
        )
        sums += [float(term.sum(dtype=torch.float64)) for term in terms]
        n_values += target.numel()
    if not n_values or not np.isfinite(sums).all():
        raise ValueError("samples and targets must be there, without NaN or infinite values")
    fair, plain, size, covered, width = (float(total) for total in sums / n_values)
    return SampleScores(
        crps_fair=fair,
        crps_plain=plain,
        crps=fair / size if size else float("nan"),
        coverage=covered,
        width=width,
    )


def _quantile(ordered: torch.Tensor, level: float) -> torch.Tensor:
    """[..., H] of ascending [..., S, H], linear between order statistics (NumPy's default)."""
    place = level * (ordered.shape[-2] - 1)
    below = int(place)
    return torch.lerp(ordered[..., below, :], ordered[..., below + 1, :], place - below)
