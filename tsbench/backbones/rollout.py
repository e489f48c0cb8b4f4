"""Reaching horizons beyond one model call by feeding forecasts back."""

from collections.abc import Callable
from typing import Literal

import torch

BlockForecast = Callable[[torch.Tensor], torch.Tensor]
"""context [B, L] -> quantiles [B, Q, block]; unsorted is fine."""


def roll_out(
    forecast_block: BlockForecast,
    context: torch.Tensor,
    horizon: int,
    *,
    kind: Literal["median", "expand"],
    levels: tuple[float, ...],
    context_limit: int,
) -> torch.Tensor:
    """Forecast block after block until the horizon is covered.

    `median` appends the level-0.5 forecast of each block to the context. `expand` keeps one path per level:
    path j is the context followed by the level-j forecasts so far; the Q paths give Q·Q forecasts per
    step, whose Q empirical quantiles (equal weights, linear interpolation) are the next block. The levels
    carry no tails, so intervals widen less than they should: with deciles, those of a random walk stop at
    1.21 times the width of the first block.

    What is fed back is what the model returned at that level, crossings included, as the reference
    implementations do; only the finished forecast is sorted along the levels.

    Args:
        forecast_block: One model call. Its rows must not influence each other. `expand` calls it with B·Q
            rows from the second block on.
        context: [B, L] float32, oldest first; it grows with each block up to `context_limit`.
        horizon: H, steps ahead; the last block is trimmed to it.
        kind: What is fed back.
        levels: The model's Q levels, ascending; `median` needs 0.5 among them.
        context_limit: Number of latest points a model call sees at most.

    Returns:
        [B, Q, H], ascending along Q.

    Source:
        `median`: TS-Memory (arXiv 2602.11550), appendix "Long-horizon inference protocol"; Chronos-Bolt
        before chronos-forecasting 2.1. `expand`: ChronosBoltPipeline.predict of chronos-forecasting 2.1 and
        later, which leaves its result unsorted.
    """
    blocks = _median_blocks if kind == "median" else _expanded_blocks
    quantiles = blocks(forecast_block, context[:, -context_limit:], horizon, levels, context_limit)
    return quantiles[..., :horizon].sort(dim=1).values


def _median_blocks(
    forecast_block: BlockForecast,
    context: torch.Tensor,
    horizon: int,
    levels: tuple[float, ...],
    context_limit: int,
) -> torch.Tensor:
    median = levels.index(0.5)
    forecast = forecast_block(context)
    block = forecast
    while forecast.shape[-1] < horizon:
        context = torch.cat([context, block[:, median]], dim=-1)[:, -context_limit:]
        block = forecast_block(context)
        forecast = torch.cat([forecast, block], dim=-1)
    return forecast


def _expanded_blocks(
    forecast_block: BlockForecast,
    context: torch.Tensor,
    horizon: int,
    levels: tuple[float, ...],
    context_limit: int,
) -> torch.Tensor:
    probabilities = torch.tensor(levels, dtype=context.dtype, device=context.device)
    forecast = forecast_block(context)
    block = forecast
    paths = context[:, None, :].expand(-1, len(levels), -1)  # [B, Q, L]
    while forecast.shape[-1] < horizon:
        paths = torch.cat([paths, block], dim=-1)[..., -context_limit:]
        branches = forecast_block(paths.flatten(0, 1))  # [B·Q, Q, block]
        branches = branches.reshape(len(context), len(levels) ** 2, -1)  # [B, Q·Q, block]
        block = torch.quantile(branches, probabilities, dim=1).transpose(0, 1)
        forecast = torch.cat([forecast, block], dim=-1)
    return forecast
