import numpy as np
import pytest
import scoringrules
import torch

from tsbench.metrics.samples import score_samples


def draw(seed, rows=50, n=20, horizon=6):
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(rows, 1, 1, generator=generator)
    samples = level + torch.randn(rows, n, horizon, generator=generator)
    return samples, level[:, 0] + 1.3 * torch.randn(rows, horizon, generator=generator)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_scores_are_those_of_scoringrules_and_of_numpys_quantiles(n):
    samples, y = draw(0, n=n)
    ours = score_samples([(samples, y)])
    x, target = samples.double().numpy(), y.double().numpy()
    fair, plain = (
        scoringrules.crps_ensemble(target, x, m_axis=1, estimator=estimator) for estimator in ("fair", "nrg")
    )
    lower, upper = np.quantile(x, [0.1, 0.9], axis=1)
    assert ours.crps_fair == pytest.approx(fair.mean(), rel=1e-5)
    assert ours.crps_plain == pytest.approx(plain.mean(), rel=1e-5)
    assert ours.crps == pytest.approx(fair.sum() / np.abs(target).sum(), rel=1e-5)
    assert ours.coverage == pytest.approx(((lower <= target) & (target <= upper)).mean())
    assert ours.width == pytest.approx((upper - lower).mean(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_do_not_depend_on_the_batch_size(batch_size):
    samples, y = draw(1, rows=130)
    batches = zip(samples.split(batch_size), y.split(batch_size), strict=True)
    np.testing.assert_allclose(
        list(vars(score_samples(batches)).values()),
        list(vars(score_samples([(samples, y)])).values()),
        rtol=1e-12,
    )


def test_scores_do_not_depend_on_the_order_of_the_samples():
    samples, y = draw(2)
    assert score_samples([(samples.flip(1), y)]) == score_samples([(samples, y)])


def test_the_plain_form_exceeds_the_fair_one_by_what_it_leaves_out():
    samples, y = draw(3, n=10)
    spread = (samples[:, :, None] - samples[:, None]).abs().double().sum((1, 2)).mean() / (10 * 9)
    ours = score_samples([(samples, y)])
    assert ours.crps_plain - ours.crps_fair == pytest.approx(float(spread) / (2 * 10), rel=1e-4)


@pytest.mark.parametrize("n", [10, 100])
def test_a_right_forecast_reaches_the_integral_and_the_coverage_of_its_number_of_samples(n):
    generator = torch.Generator().manual_seed(4)
    samples, y = torch.rand(40_000, n, 1, generator=generator), torch.rand(40_000, 1, generator=generator)
    ours = score_samples([(samples, y)])
    assert ours.crps_fair == pytest.approx(1 / 6, abs=2e-3)  # of a uniform law: E|X - y| - E|X - X'| / 2
    assert ours.coverage == pytest.approx(0.8 * (n - 1) / (n + 1), abs=6e-3)


def test_when_samples_are_the_target_then_only_the_pooled_score_of_zeros_is_undefined():
    y = torch.zeros(3, 4)
    ours = score_samples([(torch.zeros(3, 5, 4), y)])
    assert (ours.crps_fair, ours.crps_plain, ours.width, ours.coverage) == (0, 0, 0, 1)
    assert np.isnan(ours.crps)


def test_what_cannot_be_scored_is_refused():
    samples, y = draw(5)
    broken = samples.clone()
    broken[3, 2, 1] = torch.nan
    for batches, message in (
        ([], "must be there"),
        ([(broken, y)], "NaN"),
        ([(samples, y[:, :3])], "for targets"),
        ([(samples[:, :1], y)], "S of 2 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            score_samples(batches)
