import math

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from tsbench.metrics.quantile import (
    check_levels,
    crossing_rate,
    crps_sum,
    interpolate_levels,
    interval_coverage,
    interval_width,
    median_forecast,
    pinball_loss,
    sample_crps,
    weighted_quantile_loss,
)

NINE = tuple(i / 10 for i in range(1, 10))
SCALE = [0.5, 2.0, 4.0]
VALUES = st.floats(-100, 100, width=32, allow_subnormal=False)


def loop_twice_rho(y, quantiles, levels):
    """[W][C][Q][H] of 2 rho by the definition, in Python floats."""
    windows, channels, n_levels, horizon = quantiles.shape
    table = np.zeros(quantiles.shape)
    for w, c, j, h in np.ndindex(windows, channels, n_levels, horizon):
        error = float(y[w, c, h]) - float(quantiles[w, c, j, h])
        table[w, c, j, h] = 2 * (levels[j] * error if error >= 0 else (levels[j] - 1) * error)
    return table


def test_pinball_loss_equals_the_definition(make_batch):
    quantiles, y = make_batch(0, windows=4)
    loss = pinball_loss(y, quantiles, NINE)
    assert loss.shape == quantiles.shape
    np.testing.assert_allclose(2 * loss, loop_twice_rho(y, quantiles, NINE), rtol=1e-5, atol=1e-6)


def test_twice_the_mean_pinball_is_the_quantile_crps_of_scoringrules(make_batch):
    quantiles, y = make_batch(1)
    ours = 2 * pinball_loss(y.double(), quantiles.double(), NINE).mean(2)
    theirs = scoringrules.crps_quantile(y.double().numpy(), quantiles.double().numpy(), NINE, m_axis=2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_pooled_crps_is_ts_memorys(make_batch):
    quantiles, y = make_batch(2)
    losses = loop_twice_rho(y, quantiles, NINE)
    per_level = [losses[:, :, j].sum() / np.abs(y.numpy()).sum() for j in range(9)]
    assert weighted_quantile_loss(y, quantiles, NINE).mean == pytest.approx(np.mean(per_level), rel=1e-6)


def test_per_window_crps_is_probts(make_batch):
    quantiles, y = make_batch(3)
    losses = loop_twice_rho(y, quantiles, NINE)
    ratios = [losses[w].sum() / 9 / np.abs(y[w].numpy()).sum() for w in range(len(y))]
    score = weighted_quantile_loss(y, quantiles, NINE, "per-window")
    assert score.mean == pytest.approx(np.mean(ratios), rel=1e-6)
    assert score.n_defined == len(y)


def test_per_channel_crps_is_fevs_wql(make_batch):
    quantiles, y = make_batch(4)
    losses = loop_twice_rho(y, quantiles, NINE)
    ratios = [losses[:, c].mean(axis=1).sum() / np.abs(y[:, c].numpy()).sum() for c in range(3)]
    score = weighted_quantile_loss(y, quantiles, NINE, "per-channel")
    assert score.mean == pytest.approx(np.mean(ratios), rel=1e-6)
    assert score.n_defined == 3


def test_unnormalised_crps_is_the_mean_of_twice_rho(make_batch):
    quantiles, y = make_batch(5)
    score = weighted_quantile_loss(y, quantiles, NINE, "unnormalised")
    assert score.mean == pytest.approx(loop_twice_rho(y, quantiles, NINE).mean(), rel=1e-6)


def test_scaled_quantile_loss_divides_by_the_channels_scale(make_batch):
    quantiles, y = make_batch(6)
    scaled = loop_twice_rho(y, quantiles, NINE) / np.array(SCALE)[:, None, None]
    score = weighted_quantile_loss(y, quantiles, NINE, "sql", scale=SCALE)
    assert score.mean == pytest.approx(scaled.mean(), rel=1e-6)


def test_when_a_normaliser_is_undefined_then_its_group_is_left_out_and_counted(make_batch):
    quantiles, y = make_batch(7)
    y[3], y[:, 1] = 0, 0
    assert weighted_quantile_loss(y, quantiles, NINE, "per-window").n_undefined == 1
    assert weighted_quantile_loss(y, quantiles, NINE, "per-channel").n_undefined == 1
    for undefined in (0.0, np.nan):
        score = weighted_quantile_loss(y, quantiles, NINE, "sql", scale=[1.0, undefined, 2.0])
        assert (score.n_defined, score.n_undefined) == (2, 1)
    nothing = weighted_quantile_loss(torch.zeros_like(y), quantiles, NINE)
    assert np.isnan(nothing.mean)


def test_level_one_half_alone_is_the_normalised_deviation(make_batch):
    quantiles, y = make_batch(8, levels=1)
    error = (y - quantiles[:, :, 0]).abs().double().sum()
    nd = float(error / y.abs().double().sum())
    assert weighted_quantile_loss(y, quantiles, [0.5]).mean == pytest.approx(nd, rel=1e-12)


def test_when_all_levels_are_equal_then_crps_is_mae_over_mean_size(make_batch):
    point, y = make_batch(9, levels=1)
    expected = float((y - point[:, :, 0]).abs().double().mean() / y.abs().double().mean())
    crps = weighted_quantile_loss(y, point.expand(-1, -1, 9, -1), NINE).mean
    assert crps == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_pooled_crps_is_free_of_scale_but_not_of_level(make_batch, scale, seed):
    quantiles, y = make_batch(seed)
    crps = weighted_quantile_loss(y, quantiles, NINE).mean
    assert weighted_quantile_loss(scale * y, scale * quantiles, NINE).mean == pytest.approx(crps, rel=1e-5)
    assert weighted_quantile_loss(y + 50, quantiles + 50, NINE).mean < 0.5 * crps


@pytest.mark.parametrize(("n_levels", "anchor"), [(9, 0.6173), (19, 0.5914), (99, 0.5698)])
def test_perfect_forecast_of_a_normal_target_scores_the_known_anchor(n_levels, anchor):
    levels = np.arange(1, n_levels + 1) / (n_levels + 1)
    n = 20_000
    y = torch.from_numpy(stats.norm.ppf((np.arange(n) + 0.5) / n)).reshape(1, 1, n)
    quantiles = torch.from_numpy(stats.norm.ppf(levels)).reshape(1, 1, -1, 1).expand(-1, -1, -1, n)
    score = weighted_quantile_loss(y, quantiles, levels.tolist(), "unnormalised").mean
    assert score == pytest.approx(anchor, abs=1e-4)
    # the expected pinball loss of the true quantile z is the density at z
    assert score == pytest.approx(2 * stats.norm.pdf(stats.norm.ppf(levels)).mean(), abs=1e-4)
    pooled = weighted_quantile_loss(y, quantiles, levels.tolist()).mean
    assert pooled == pytest.approx(score / math.sqrt(2 / math.pi), abs=1e-4)


def test_crps_anchors_approach_the_integral_from_above():
    levels = np.arange(1, 10_000) / 10_000
    score = 2 * stats.norm.pdf(stats.norm.ppf(levels)).mean()
    assert score == pytest.approx(1 / math.sqrt(math.pi), abs=1e-4)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(arrays(np.float32, (1, 1, 9, 3), elements=VALUES), arrays(np.float32, (1, 1, 3), elements=VALUES))
def test_sorting_never_raises_the_mean_pinball(raw, y):
    target, quantiles = torch.from_numpy(y).double(), torch.from_numpy(raw).double()
    crossed = weighted_quantile_loss(target, quantiles, NINE, "unnormalised").mean
    ordered = weighted_quantile_loss(target, quantiles.sort(2).values, NINE, "unnormalised").mean
    assert ordered <= crossed + 1e-9


def test_when_scale_and_variant_disagree_then_it_is_refused(make_batch):
    quantiles, y = make_batch(0)
    with pytest.raises(ValueError, match="sql"):
        weighted_quantile_loss(y, quantiles, NINE, "sql")
    with pytest.raises(ValueError, match="sql"):
        weighted_quantile_loss(y, quantiles, NINE, "pooled", scale=SCALE)
    with pytest.raises(ValueError, match="scale"):
        weighted_quantile_loss(y, quantiles, NINE, "sql", scale=[1.0])


def test_when_shapes_do_not_fit_then_they_are_refused(make_batch):
    quantiles, y = make_batch(0)
    for wrong in (quantiles[:, :, :8], quantiles[..., :1], quantiles[:1]):
        with pytest.raises(ValueError, match="fit"):
            pinball_loss(y, wrong, NINE)
    with pytest.raises(ValueError, match=r"\[W, C, H\]"):
        weighted_quantile_loss(y[0], quantiles[0], NINE)


@pytest.mark.parametrize("levels", [(0.5, 0.4), (0.1, 0.1), (0.0, 0.5), (0.5, 1.0)])
def test_when_levels_do_not_ascend_inside_zero_and_one_then_they_are_refused(levels):
    with pytest.raises(ValueError, match="ascend"):
        check_levels(levels)


def test_interpolation_is_linear_in_the_level_and_clamps_outside():
    quantiles = torch.tensor([[1.0], [3.0], [7.0]])
    forecast, outside = interpolate_levels(quantiles, (0.2, 0.4, 0.8), (0.1, 0.2, 0.25, 0.5, 0.8, 0.95))
    torch.testing.assert_close(forecast[:, 0], torch.tensor([1.0, 1.0, 1.5, 4.0, 7.0, 7.0]))
    assert outside == (0.1, 0.95)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    arrays(np.float32, (4, 2), elements=VALUES),
    st.lists(st.floats(0.02, 0.98), min_size=1, max_size=6, unique=True),
)
def test_interpolation_agrees_with_numpy_and_never_crosses(raw, wanted):
    levels = (0.05, 0.3, 0.5, 0.9)
    ordered = np.sort(raw, axis=0)
    forecast, _ = interpolate_levels(torch.from_numpy(ordered), levels, sorted(wanted))
    expected = [np.interp(sorted(wanted), levels, ordered[:, h]) for h in range(2)]
    np.testing.assert_allclose(forecast, np.transpose(expected), rtol=1e-4, atol=1e-3)
    assert (forecast.diff(dim=0) >= -1e-4).all()


def test_when_a_level_is_present_then_interpolation_returns_it_unchanged(make_batch):
    quantiles, _ = make_batch(0)
    forecast, outside = interpolate_levels(quantiles, NINE, (0.3, 1 - 0.3))
    assert torch.equal(forecast, quantiles[:, :, [2, 6]])
    assert outside == ()


def test_median_is_level_one_half_or_lies_between_its_neighbours(make_batch):
    quantiles, _ = make_batch(0)
    assert median_forecast(quantiles, NINE).data_ptr() == quantiles[:, :, 4].data_ptr()
    between = median_forecast(quantiles[:, :, :2], (0.4, 0.8))
    torch.testing.assert_close(between, 0.75 * quantiles[:, :, 0] + 0.25 * quantiles[:, :, 1])
    with pytest.raises(ValueError, match="no median"):
        median_forecast(quantiles[:, :, :2], (0.6, 0.8))
    with pytest.raises(ValueError, match="fit"):
        median_forecast(quantiles, (0.4, 0.8))


def test_interval_scores_of_a_hand_computed_forecast():
    y = torch.tensor([1.0, 2.0, 3.0, 4.0])
    lower, upper = torch.tensor([1.0, 2.5, 0.0, 5.0]), torch.tensor([2.0, 3.0, 3.0, 6.0])
    assert interval_coverage(y, lower, upper) == 0.5
    assert interval_width(lower, upper) == 1.375


def test_crossing_rate_counts_neighbouring_pairs():
    raw = torch.tensor([[1.0, 1.0], [0.0, 1.0], [2.0, 2.0]])
    assert crossing_rate(raw) == 0.25
    assert crossing_rate(raw.sort(dim=0).values) == 0
    with pytest.raises(ValueError, match="two"):
        crossing_rate(raw[:1])


@pytest.mark.parametrize(("estimator", "theirs"), [("fair", "fair"), ("plain", "nrg")])
def test_sample_crps_agrees_with_scoringrules(estimator, theirs):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    samples = torch.randn(6, 20, 5, generator=generator, dtype=torch.float64)
    expected = scoringrules.crps_ensemble(y.numpy(), samples.numpy(), m_axis=1, estimator=theirs)
    np.testing.assert_allclose(sample_crps(y, samples, estimator), expected, rtol=1e-10)


def test_fair_estimator_is_unbiased_and_plain_is_high_by_half_spread_over_samples():
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(200_000, generator=generator, dtype=torch.float64)
    samples = torch.randn(4, 200_000, generator=generator, dtype=torch.float64)
    integral = 1 / math.sqrt(math.pi)
    assert float(sample_crps(y, samples).mean()) == pytest.approx(integral, abs=4e-3)
    plain = float(sample_crps(y, samples, "plain").mean())
    assert plain == pytest.approx(integral * (1 + 1 / 4), abs=4e-3)


def test_when_samples_do_not_fit_then_sample_crps_refuses_them():
    with pytest.raises(ValueError, match="fit"):
        sample_crps(torch.zeros(2, 3), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match="two samples"):
        sample_crps(torch.zeros(3), torch.zeros(1, 3))


def test_crps_sum_scores_the_sum_of_the_channels():
    generator = torch.Generator().manual_seed(2)
    y, samples = torch.randn(4, 3, 5, generator=generator), torch.randn(4, 3, 50, 5, generator=generator)
    total = samples.numpy().sum(1, keepdims=True)
    quantiles = np.moveaxis(np.quantile(total, NINE, axis=2), 0, 2).astype(np.float32)
    expected = weighted_quantile_loss(y.sum(1, keepdim=True), torch.from_numpy(quantiles), NINE).mean
    assert crps_sum(y, samples, NINE).mean == pytest.approx(expected, rel=1e-5)
