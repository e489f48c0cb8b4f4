import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsbench.metrics.scaled import mase, mean_defined, owa, seasonal_error, smape

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def test_seasonal_error_of_a_hand_computed_series():
    # |3-1|, |5-2|, |4-3|, |9-5| = 2, 3, 1, 4
    assert seasonal_error([1, 2, 3, 5, 4, 9], season=2) == 2.5
    assert seasonal_error([1.0, -2.0, 3.0], season=1) == 4.0


def test_seasonal_error_treats_channels_apart():
    history = np.random.default_rng(0).normal(size=(50, 3))
    apart = [seasonal_error(history[:, channel], 7) for channel in range(3)]
    np.testing.assert_allclose(seasonal_error(history, 7), apart, rtol=1e-14)


def test_when_history_is_no_longer_than_a_season_then_its_error_is_undefined():
    assert np.isnan(seasonal_error([1, 2, 3], season=3))
    assert np.isnan(seasonal_error(np.ones((2, 4)), season=5)).all()
    with pytest.raises(ValueError, match="season"):
        seasonal_error([1, 2], season=0)


def test_mase_of_a_hand_computed_series():
    # errors 1, 2 -> mean 1.5; scale 2.5
    np.testing.assert_allclose(mase([[10, 12]], [[11, 10]], [2.5]), [0.6])


def test_when_a_series_is_constant_then_its_mase_is_skipped_and_counted():
    history = [[5.0, 5.0, 5.0], [1.0, 2.0, 4.0]]
    scores = mase([[6.0], [6.0]], [[5.0], [4.0]], [seasonal_error(h, 1) for h in history])
    assert np.isnan(scores[0])
    mean = mean_defined(scores)
    assert (mean.mean, mean.n_defined, mean.n_undefined) == (2 / 1.5, 1, 1)


def test_when_no_score_is_defined_then_the_mean_is_nan():
    mean = mean_defined([np.nan, np.nan])
    assert np.isnan(mean.mean)
    assert (mean.n_defined, mean.n_undefined) == (0, 2)


def test_smape_of_a_hand_computed_series():
    # 200 * |1|/3, 0/0 -> 0, 200 * 4/4
    np.testing.assert_allclose(smape([[1, 0, -2]], [[2, 0, 2]]), [(200 / 3 + 0 + 200) / 3])


@settings(deadline=None, max_examples=25, derandomize=True)
@given(arrays(float, (2, 4), elements=FINITE), arrays(float, (2, 4), elements=FINITE), st.floats(0.01, 100))
def test_smape_is_bounded_symmetric_and_free_of_scale(y, forecast, scale):
    score = smape(y, forecast)
    assert ((score >= 0) & (score <= 200 + 1e-9)).all()
    np.testing.assert_allclose(score, smape(forecast, y))
    np.testing.assert_allclose(score, smape(scale * y, scale * forecast), rtol=1e-9, atol=1e-9)


def test_owa_reproduces_the_winner_of_m4():
    # ES-RNN against Naive2, all 100,000 series (Makridakis et al. 2020, Table 4)
    assert owa(11.374, 1.536, naive2_smape=13.564, naive2_mase=1.912) == pytest.approx(0.821, abs=5e-4)
    assert owa(13.564, 1.912, naive2_smape=13.564, naive2_mase=1.912) == 1


def test_owa_of_group_means_is_not_the_mean_of_series_ratios():
    ours, naive2 = np.array([[10.0, 40.0], [1.0, 1.0]]), np.array([[20.0, 20.0], [2.0, 1.0]])
    per_series = [owa(*ours[:, i], *naive2[:, i]) for i in range(2)]
    assert owa(*ours.mean(1), *naive2.mean(1)) == pytest.approx((25 / 20 + 1 / 1.5) / 2)
    assert owa(*ours.mean(1), *naive2.mean(1)) != pytest.approx(np.mean(per_series))


def test_when_the_naive2_reference_is_not_positive_then_owa_is_refused():
    with pytest.raises(ValueError, match="Naive2"):
        owa(1.0, 1.0, naive2_smape=0.0, naive2_mase=1.0)


@pytest.mark.parametrize("score", [smape, lambda y, forecast: mase(y, forecast, [1.0, 1.0])])
def test_when_shapes_would_broadcast_then_they_are_refused(score):
    with pytest.raises(ValueError, match=r"\[N, H\]"):
        score(np.ones((2, 3)), np.ones((2, 1)))


def test_when_the_scale_has_another_shape_then_mase_refuses_it():
    with pytest.raises(ValueError, match="scale"):
        mase(np.ones((2, 3)), np.ones((2, 3)), 1.0)
