import pytest
import torch

from tsbench.metrics.point import mae, mse


def test_errors_of_a_hand_computed_forecast():
    y, point = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[3.0, -2.0, 1.0]])
    assert mse(y, point) == pytest.approx(5 / 3, rel=1e-12)
    assert mae(y, point) == 1


def test_sums_are_taken_in_float64():
    y = torch.cat([torch.tensor([1e8]), torch.ones(1001)])  # float32 holds multiples of 8 up there
    assert mae(y, torch.zeros_like(y)) == pytest.approx((1e8 + 1001) / 1002, rel=1e-15)


@pytest.mark.parametrize("score", [mse, mae])
def test_when_shapes_would_broadcast_then_they_are_refused(score):
    with pytest.raises(ValueError, match="shape"):
        score(torch.zeros(2, 3), torch.zeros(2, 1))
