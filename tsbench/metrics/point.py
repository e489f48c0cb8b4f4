"""Squared and absolute error of a point forecast (PyTorch)."""

import torch


def mse(y: torch.Tensor, point: torch.Tensor) -> float:
    """Mean squared error over all elements, summed in float64.

    Args:
        y: Any shape, such as [W, C, H].
        point: Same shape and units.

    Returns:
        Squared units of `y`.

    Source:
        TS-Memory (arXiv 2602.11550), Eq. 34: windows, steps and channels weigh equally.
    """
    return float(_error(y, point).square().mean(dtype=torch.float64))


def mae(y: torch.Tensor, point: torch.Tensor) -> float:
    """Mean absolute error over all elements, summed in float64.

    Args:
        y: Any shape, such as [W, C, H].
        point: Same shape and units.

    Returns:
        Units of `y`.

    Source:
        TS-Memory (arXiv 2602.11550), Eq. 35: windows, steps and channels weigh equally.
    """
    return float(_error(y, point).abs().mean(dtype=torch.float64))


def _error(y: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    if y.shape != point.shape:
        raise ValueError(f"y has shape {tuple(y.shape)}, the point forecast {tuple(point.shape)}")
    return y - point
