import pytest
import torch
from torch import Tensor

from tsbench.models.f_llm.observer import Observer


def residuals(count: int, rows: int = 3, patch: int = 5) -> Tensor:
    return torch.randn(rows, count, patch, generator=torch.Generator().manual_seed(count))


def trained(patch: int = 5, window: int = 4) -> Observer:
    observer = Observer(patch, window)
    torch.manual_seed(0)
    torch.nn.init.normal_(observer.linear.weight)
    torch.nn.init.normal_(observer.linear.bias)
    return observer


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_an_untrained_observer_corrects_nothing(count: int) -> None:
    assert torch.equal(Observer(5)(residuals(count)), torch.zeros(3, 5))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("window", [1, 4])
def test_estimate_is_a_sum_over_the_last_residuals_with_zeros_before_the_first(
    count: int, window: int
) -> None:
    observer, past = trained(window=window), residuals(count)
    blocks = observer.linear.weight.detach().reshape(5, window, 5)
    expected = observer.linear.bias.detach().repeat(3, 1)
    for age in range(1, min(window, count) + 1):
        expected = expected + past[:, -age] @ blocks[:, window - age].T
    torch.testing.assert_close(observer(past).detach(), expected)


def test_rows_do_not_influence_one_another() -> None:
    observer, past = trained(), residuals(4)
    alone = torch.cat([observer(past[[row]]) for row in range(3)])
    torch.testing.assert_close(observer(past), alone)


def test_estimates_are_float32_under_autocast() -> None:
    observer, past = trained(), residuals(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(observer(past), trained()(past))
        assert observer(past).dtype == torch.float32


def test_an_untrained_observer_has_a_gradient_to_start_from() -> None:
    observer = Observer(5)
    (observer(residuals(4)) - 1).square().mean().backward()
    assert observer.linear.weight.grad is not None
    assert observer.linear.weight.grad.abs().max() > 0.01
