from collections.abc import Callable

import pytest
import torch

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """A factory of sorted forecasts [W, C, Q, H] and targets [W, C, H] with a level per channel."""

    def make(seed: int, windows: int = 23, channels: int = 3, levels: int = 9, horizon: int = 11) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        offset = torch.randn(channels, 1, generator=generator)
        target = offset + torch.randn(windows, channels, horizon, generator=generator)
        noise = torch.randn(windows, channels, levels, horizon, generator=generator)
        return (offset.unsqueeze(-1) + noise).sort(dim=2).values, target

    return make
