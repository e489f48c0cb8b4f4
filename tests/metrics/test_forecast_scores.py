import dataclasses

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.data.splits import Scaler
from tsbench.metrics.point import mae, mse
from tsbench.metrics.quantile import (
    interval_coverage,
    interval_width,
    median_forecast,
    weighted_quantile_loss,
)
from tsbench.metrics.scaled import smape
from tsbench.metrics.streaming import ForecastScores

NINE = tuple(i / 10 for i in range(1, 10))
FLOATS = ("mse", "mae", "smape", "crps", "crps_unnormalised", "nmae", "coverage", "width", "mean_abs_target")
MEANS = ("crps_per_window", "crps_per_channel", "nmae_per_window", "probts_nmae", "probts_crps")
ARRAYS = ("mse_by_channel", "mae_by_channel", "pinball_by_channel")
UNITS = Scaler(mean=np.array([-40.0, 0.3, 1000.0]), std=np.array([7.0, 0.002, 90.0]))


def score(forecast, target, batch_size=10**6, levels=NINE, units=None):
    scores = ForecastScores(levels, target.shape[1], target.shape[2], units)
    for first in range(0, len(target), batch_size):
        scores.update(forecast[first : first + batch_size], target[first : first + batch_size])
    return scores.result()


def assert_same(result, expected, rtol):
    for name in (*FLOATS, *ARRAYS):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=rtol, err_msg=name)
    for name, values in vars(expected.steps).items():
        np.testing.assert_allclose(getattr(result.steps, name), values, rtol=rtol, err_msg=name)
    for name in MEANS:
        actual, wanted = getattr(result, name), getattr(expected, name)
        mean = pytest.approx(wanted.mean, rel=rtol, nan_ok=True)
        assert actual == dataclasses.replace(wanted, mean=mean), name
    assert (result.n_windows, result.n_points) == (expected.n_windows, expected.n_points)


def test_scores_equal_the_pure_functions(make_batch):
    forecast, target = make_batch(0)
    target[0, 0, 0], forecast[0, 0, :, 0] = 0, 0  # a 0/0 term of SMAPE
    point = median_forecast(forecast, NINE)
    result = score(forecast, target, batch_size=5)
    windows, channels, horizon = target.shape
    expected = {
        "mse": mse(target, point),
        "mae": mae(target, point),
        "smape": smape(target.flatten(0, 1), point.flatten(0, 1)).mean(),
        "crps": weighted_quantile_loss(target, forecast, NINE).mean,
        "nmae": weighted_quantile_loss(target, point.unsqueeze(2), [0.5]).mean,
        "crps_unnormalised": weighted_quantile_loss(target, forecast, NINE, "unnormalised").mean,
        "coverage": interval_coverage(target, forecast[:, :, 0], forecast[:, :, 8]),
        "width": interval_width(forecast[:, :, 0], forecast[:, :, 8]),
        "mean_abs_target": float(target.abs().double().mean()),
        "mse_by_channel": [mse(target[:, c], point[:, c]) for c in range(channels)],
        "mae_by_channel": [mae(target[:, c], point[:, c]) for c in range(channels)],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=2e-6, err_msg=name)
    assert (result.n_windows, result.n_points) == (windows, windows * channels * horizon)


@pytest.mark.parametrize("batch_size", [1, 6, 23])
def test_steps_equal_the_pure_functions_of_each_step_alone(make_batch, batch_size):
    forecast, target = make_batch(21)
    point = median_forecast(forecast, NINE)
    steps = score(forecast, target, batch_size).steps
    for h in range(target.shape[-1]):
        one, quantiles = target[..., h : h + 1], forecast[..., h : h + 1]
        loss = weighted_quantile_loss(one, quantiles, NINE).mean
        assert steps.mse[h] == pytest.approx(mse(target[..., h], point[..., h]), rel=2e-6)
        assert steps.mae[h] == pytest.approx(mae(target[..., h], point[..., h]), rel=2e-6)
        assert steps.pinball[h] / steps.abs_target[h] == pytest.approx(loss, rel=2e-6)
        assert steps.abs_target[h] == pytest.approx(float(one.abs().double().mean()), rel=2e-6)


def test_means_over_steps_are_the_scores(make_batch):
    result = score(*make_batch(22), batch_size=5)
    assert result.steps.mse.mean() == pytest.approx(result.mse, rel=1e-6)
    assert result.steps.mae.mean() == pytest.approx(result.mae, rel=1e-6)
    assert result.steps.pinball.mean() == pytest.approx(result.crps_unnormalised, rel=1e-6)
    assert result.steps.abs_target.mean() == pytest.approx(result.mean_abs_target, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 6, 23])
def test_below_counts_the_targets_at_or_below_each_quantile(make_batch, batch_size):
    forecast, target = make_batch(23)
    target[3] = forecast[3, :, 4]  # ties count
    expected = [float((target <= forecast[:, :, q]).double().mean()) for q in range(9)]
    result = score(forecast, target, batch_size)
    np.testing.assert_array_equal(result.below, expected)
    assert (np.diff(result.below) >= 0).all()
    closed = interval_coverage(target, forecast[:, :, 0], forecast[:, :, 8])
    assert result.below[8] - result.below[0] == pytest.approx(closed)  # no target lies on the lower bound


def test_quantiles_of_the_true_distribution_have_their_level_of_targets_below():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(500, 2, 40, generator=generator)
    quantiles = torch.distributions.Normal(0, 1).icdf(torch.tensor(NINE))
    forecast = quantiles[:, None].expand(500, 2, 9, 40).contiguous()
    # four standard errors of the shares of 40,000 draws
    np.testing.assert_allclose(score(forecast, target, 64).below, NINE, atol=0.01)


def test_crps_variants_equal_the_pure_function(make_batch):
    forecast, target = make_batch(1)
    result = score(forecast, target, batch_size=4)
    for variant, value in (("per-window", result.crps_per_window), ("per-channel", result.crps_per_channel)):
        expected = weighted_quantile_loss(target, forecast, NINE, variant)
        assert value == dataclasses.replace(expected, mean=pytest.approx(expected.mean, rel=2e-6))
    scale = np.array([0.5, 2.0, 4.0])
    sql = weighted_quantile_loss(target, forecast, NINE, "sql", scale=scale).mean
    assert (result.pinball_by_channel / scale).mean() == pytest.approx(sql, rel=2e-6)


def test_nmae_is_the_mean_over_windows_of_their_normalised_deviation(make_batch):
    forecast, target = make_batch(17)
    point = median_forecast(forecast, NINE).unsqueeze(2)
    expected = weighted_quantile_loss(target, point, [0.5], "per-window")
    result = score(forecast, target, batch_size=4)
    assert result.nmae_per_window == dataclasses.replace(
        expected, mean=pytest.approx(expected.mean, rel=2e-6)
    )


def in_data_units(standardised, channel_axis=1):
    shape = [1] * standardised.dim()
    shape[channel_axis] = -1
    return standardised.double().numpy() * UNITS.std.reshape(shape) + UNITS.mean.reshape(shape)


def test_probts_scores_are_those_of_the_forecasts_brought_back_to_data_units(make_batch):
    forecast, target = make_batch(18)
    data, y = in_data_units(forecast), in_data_units(target)
    pinball = scoringrules.crps_quantile(y, data, NINE, m_axis=2)
    errors = np.abs(y - data[:, :, 4])
    size = np.abs(y).sum((1, 2))
    result = score(forecast, target, batch_size=5, units=UNITS)
    assert result.probts_nmae.mean == pytest.approx((errors.sum((1, 2)) / size).mean(), rel=2e-6)
    assert result.probts_crps.mean == pytest.approx((pinball.sum((1, 2)) / size).mean(), rel=2e-6)
    assert result.probts_crps.n_defined == len(target)
    # channels weigh by their unit here, so the standardised counterparts are other figures
    assert result.probts_nmae.mean != pytest.approx(result.nmae_per_window.mean, rel=0.1)


def test_units_change_no_other_score(make_batch):
    forecast, target = make_batch(19)
    with_units, without = score(forecast, target, units=UNITS), score(forecast, target)
    undefined = dataclasses.replace(
        with_units, probts_nmae=without.probts_nmae, probts_crps=without.probts_crps
    )
    assert_same(undefined, without, rtol=0)
    assert without.probts_nmae.n_undefined == without.probts_crps.n_undefined == len(target)
    assert np.isnan([without.probts_nmae.mean, without.probts_crps.mean]).all()


def test_when_the_data_are_standardised_already_then_probts_scores_are_their_counterparts(make_batch):
    identity = Scaler(mean=np.zeros(3), std=np.ones(3))
    result = score(*make_batch(20), units=identity)
    assert result.probts_nmae.mean == pytest.approx(result.nmae_per_window.mean, rel=1e-6)
    assert result.probts_crps.mean == pytest.approx(result.crps_per_window.mean, rel=1e-6)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.floats(0.1, 1e6), min_size=3, max_size=3), st.integers(0, 1000))
def test_windows_of_zeros_stay_zero_through_standardisation_and_are_left_out(make_batch, means, seed):
    rng = np.random.default_rng(seed)
    scaler = Scaler(mean=np.array(means), std=np.array(means) * rng.uniform(0.1, 3, 3))
    data = rng.uniform(0.01, 1, (6, 3, 4)) * np.array(means)[:, None]
    data[2], data[4, :2] = 0, 0
    target = torch.from_numpy(scaler.transform(data.transpose(0, 2, 1)).transpose(0, 2, 1).copy())
    result = score(torch.zeros(6, 3, 9, 4), target, units=scaler)
    assert (result.probts_nmae.n_defined, result.probts_nmae.n_undefined) == (5, 1)
    errors = np.abs(data - scaler.mean[:, None]).sum((1, 2))
    size = data.sum((1, 2))
    kept = size > 0
    assert result.probts_nmae.mean == pytest.approx((errors[kept] / size[kept]).mean(), rel=1e-4)


def test_units_of_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"units must be \[4\]"):
        ForecastScores(NINE, 4, 1, UNITS)


def test_window_errors_equal_the_scores_of_each_window_alone(make_batch):
    forecast, target = make_batch(2)
    windows = score(forecast, target, batch_size=7).windows
    for index in range(len(target)):
        alone = score(forecast[index : index + 1], target[index : index + 1])
        assert windows.mse[index] == pytest.approx(alone.mse, rel=1e-6)
        assert windows.mae[index] == pytest.approx(alone.mae, rel=1e-6)
        assert windows.pinball[index] == pytest.approx(alone.crps_unnormalised, rel=1e-6)
        assert windows.abs_target[index] == pytest.approx(alone.mean_abs_target, rel=1e-6)
    assert windows.mse.dtype == np.float32


def test_pooled_crps_is_the_ratio_of_the_window_sums(make_batch):
    result = score(*make_batch(3), batch_size=6)
    pooled = result.windows.pinball.sum(dtype=float) / result.windows.abs_target.sum(dtype=float)
    assert pooled == pytest.approx(result.crps, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_do_not_depend_on_the_batch_size(make_batch, batch_size):
    forecast, target = make_batch(4, windows=130, horizon=37)
    actual = score(forecast, target, batch_size, units=UNITS)
    assert_same(actual, score(forecast, target, units=UNITS), rtol=1e-12)


def test_scores_do_not_depend_on_the_order_of_windows(make_batch):
    forecast, target = make_batch(5, windows=130, horizon=37)
    order = torch.randperm(130, generator=torch.Generator().manual_seed(0))
    shuffled = score(forecast[order], target[order], batch_size=7)
    expected = score(forecast, target)
    assert_same(shuffled, expected, rtol=1e-12)
    np.testing.assert_allclose(shuffled.windows.mse, expected.windows.mse[order.numpy()], rtol=1e-6)


def test_when_a_batch_exceeds_one_chunk_then_scores_are_those_of_small_batches(make_batch):
    forecast, target = make_batch(6, windows=350, channels=2, levels=3, horizon=100)
    levels = (0.1, 0.5, 0.9)
    assert_same(score(forecast, target, levels=levels), score(forecast, target, 64, levels), rtol=1e-12)


def test_a_perfect_forecast_scores_zero(make_batch):
    _, target = make_batch(7)
    result = score(target.unsqueeze(2).expand(-1, -1, 9, -1), target)
    assert (result.mse, result.mae, result.smape, result.crps, result.width) == (0, 0, 0, 0, 0)
    assert result.coverage == 1


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.permutations(range(3)))
def test_scores_follow_scale_and_ignore_channel_order(make_batch, seed, scale, order):
    forecast, target = make_batch(seed, windows=5)
    before = score(forecast, target)
    after = score(scale * forecast[:, order], scale * target[:, order])
    assert after.mse == pytest.approx(scale**2 * before.mse, rel=1e-5)
    assert after.crps == pytest.approx(before.crps, rel=1e-5)
    np.testing.assert_allclose(after.mae_by_channel, scale * before.mae_by_channel[order], rtol=1e-5)


def test_when_levels_lack_one_half_then_the_point_forecast_is_interpolated(make_batch):
    forecast, target = make_batch(8, levels=4)
    levels = (0.1, 0.3, 0.7, 0.9)
    middle = (forecast[:, :, 1] + forecast[:, :, 2]) / 2
    assert score(forecast, target, levels=levels).mae == pytest.approx(mae(target, middle), rel=1e-6)


def test_when_levels_do_not_reach_the_interval_then_coverage_is_undefined(make_batch):
    forecast, target = make_batch(9, levels=3)
    result = score(forecast, target, levels=(0.2, 0.5, 0.9))
    assert np.isnan([result.coverage, result.width]).all()
    assert result.crps > 0


def test_point_only_forecasts_have_no_crps_and_no_coverage(make_batch):
    forecast, target = make_batch(10, levels=1)
    result = score(forecast, target, levels=(), units=UNITS)
    assert result.mse == pytest.approx(mse(target, forecast[:, :, 0]), rel=1e-6)
    undefined = (result.crps, result.crps_per_window.mean, result.crps_per_channel.mean, result.coverage)
    assert np.isnan(undefined).all()
    assert np.isnan([result.probts_crps.mean, *result.windows.pinball]).all()
    assert np.isfinite([result.nmae, result.nmae_per_window.mean, result.probts_nmae.mean]).all()
    assert np.isfinite([result.smape, *result.steps.mse, *result.windows.mae]).all()
    assert np.isnan(result.steps.pinball).all()
    assert result.below.shape == (0,)


def test_when_every_target_is_zero_then_only_the_normalised_crps_is_undefined(make_batch):
    forecast, target = make_batch(11)
    result = score(forecast, torch.zeros_like(target))
    assert np.isnan([result.crps, result.nmae]).all()
    assert result.crps_per_window.n_undefined == result.nmae_per_window.n_undefined == len(target)
    assert result.crps_unnormalised > 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_when_values_are_not_finite_then_they_are_counted_and_the_batch_is_not_added(make_batch, bad):
    forecast, target = make_batch(12)
    scores = ForecastScores(NINE, target.shape[1], target.shape[2])
    scores.update(forecast, target)
    broken = forecast.clone()
    broken[2, 1, 8, :3] = bad
    with pytest.raises(ValueError, match="forecast holds 3 "):
        scores.update(broken, target)
    broken_target = target.clone()
    broken_target[0, 0, 0] = bad
    with pytest.raises(ValueError, match="target holds 1 "):
        scores.update(forecast, broken_target)
    assert_same(scores.result(), score(forecast, target), rtol=0)


def test_when_finite_values_overflow_their_sum_then_they_are_accepted(make_batch):
    forecast, target = make_batch(13)
    score(forecast, target.clone().fill_(3e38))


def test_when_a_batch_does_not_fit_then_it_is_refused(make_batch):
    forecast, target = make_batch(14)
    for wrong_forecast, wrong_target in (
        (forecast[:, :, :8], target),
        (forecast[:1], target),
        (forecast.double(), target),
        (forecast[..., :5], target[..., :5]),
        (forecast[:0], target[:0]),
    ):
        with pytest.raises(ValueError, match=r"shape|float32|horizon|empty"):
            ForecastScores(NINE, 3, 11).update(wrong_forecast, wrong_target)


def test_when_nothing_was_scored_then_there_is_no_result():
    with pytest.raises(ValueError, match="no window"):
        ForecastScores(NINE, 1, 1).result()


def test_a_prefix_view_of_a_longer_forecast_scores_like_its_copy(make_batch):
    forecast, target = make_batch(15)
    view = score(forecast[..., :5], target[..., :5])
    assert_same(view, score(forecast[..., :5].clone(), target[..., :5].clone()), rtol=0)


def test_forecasts_with_gradients_leave_no_graph_behind(make_batch):
    forecast, target = make_batch(16)
    forecast.requires_grad_()
    assert score(forecast, target).mse > 0
