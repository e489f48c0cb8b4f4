"""DLinear (arXiv 2205.13504): one linear map of the trend, one of the rest."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DLinear"]


class DLinear(nn.Module):
    """Sum of two linear maps from context to horizon, shared by all channels.

    yhat = W_s (x - trend) + W_t trend,  trend the moving average of x

    Args:
        lookback: Context steps L.
        horizon: Forecast steps H.
        kernel: Steps of the moving average, odd; the ends are continued by the first and the last value.

    Source: Zeng et al., Are Transformers Effective for Time Series Forecasting?, Section 4; the kernel of 25
    is that of their code.
    """

    def __init__(self, lookback: int, horizon: int, kernel: int = 25) -> None:
        super().__init__()
        self.kernel = kernel
        self.seasonal = nn.Linear(lookback, horizon)
        self.trend = nn.Linear(lookback, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """Forecast [..., C, H] of contexts [..., C, L]."""
        trend = self._moving_average(context)
        forecast: Tensor = self.seasonal(context - trend) + self.trend(trend)
        return forecast

    def _moving_average(self, context: Tensor) -> Tensor:
        half = self.kernel // 2
        ends = (
            context[..., :1].expand(*context.shape[:-1], half),
            context[..., -1:].expand(*context.shape[:-1], half),
        )
        padded = torch.cat([ends[0], context, ends[1]], dim=-1).flatten(0, -2)
        return F.avg_pool1d(padded.unsqueeze(1), self.kernel, stride=1).view_as(context)
