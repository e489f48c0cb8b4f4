import pytest
import torch


@pytest.fixture
def walks() -> torch.Tensor:
    """Five random walks of 200 steps [5, 200], one of them below zero throughout."""
    steps = torch.randn(5, 200, generator=torch.Generator().manual_seed(7))
    walks = steps.cumsum(dim=1)
    walks[1] -= 100.0
    return walks
