import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tsbench.models.dlinear import DLinear


def by_definition(model: DLinear, series: np.ndarray) -> np.ndarray:
    """Both linear maps on a moving average of 25 steps whose ends repeat the outermost values."""
    padded = np.concatenate([np.repeat(series[0], 12), series, np.repeat(series[-1], 12)])
    trend = np.convolve(padded, np.full(25, 1 / 25), mode="valid")

    def linear(layer: nn.Linear, values: np.ndarray) -> np.ndarray:
        return layer.weight.detach().double().numpy() @ values + layer.bias.detach().double().numpy()

    return linear(model.seasonal, series - trend) + linear(model.trend, trend)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 100))
def test_forecast_is_that_of_the_definition(lookback: int, horizon: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = DLinear(lookback, horizon)
    context = torch.randn(2, 3, lookback)
    forecast = model(context).detach().numpy()
    assert forecast.shape == (2, 3, horizon)
    for window in range(2):
        for channel in range(3):
            expected = by_definition(model, context[window, channel].double().numpy())
            np.testing.assert_allclose(forecast[window, channel], expected, rtol=1e-4, atol=1e-5)


def test_parameters_are_those_of_two_linear_layers() -> None:
    assert sum(parameter.numel() for parameter in DLinear(336, 96).parameters()) == 2 * (336 * 96 + 96)
