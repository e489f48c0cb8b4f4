import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.metrics.fusion import ALPHAS, FusionCurve
from tsbench.metrics.streaming import ForecastScores

NINE = tuple(i / 10 for i in range(1, 10))


def curve_of(base, memory, target, batch_size=10**6, levels=NINE):
    curve = FusionCurve(levels)
    for first in range(0, len(target), batch_size):
        part = slice(first, first + batch_size)
        curve.update(base[part], memory[part], target[part])
    return curve


def direct(forecast, target, levels=NINE, batch_size=10**6):
    scores = ForecastScores(levels, target.shape[1], target.shape[2])
    for first in range(0, len(target), batch_size):
        scores.update(forecast[first : first + batch_size], target[first : first + batch_size])
    return scores.result()


@pytest.mark.parametrize("levels", [NINE, (0.1, 0.4, 0.8), (0.05, 0.5)])
def test_curve_equals_the_scores_of_each_fused_forecast(make_batch, levels):
    base, target = make_batch(0, levels=len(levels))
    memory, _ = make_batch(1, levels=len(levels))
    scores = curve_of(base, memory, target, batch_size=5, levels=levels).result()
    for index, alpha in enumerate(ALPHAS):
        expected = direct((1 - alpha) * base + alpha * memory, target, levels)
        assert scores.alpha[index] == alpha
        assert scores.mse[index] == pytest.approx(expected.mse, rel=1e-6)
        assert scores.mae[index] == pytest.approx(expected.mae, rel=1e-6)
        assert scores.crps[index] == pytest.approx(expected.crps, rel=1e-6)


@pytest.mark.parametrize("batch_size", [4, 10**6])
def test_at_zero_the_curve_is_the_base_to_the_last_bit(make_batch, batch_size):
    base, target = make_batch(2, windows=50, horizon=96)
    memory, _ = make_batch(3, windows=50, horizon=96)
    scores = curve_of(base, memory, target, batch_size).result()
    expected = direct(base, target, batch_size=batch_size)
    assert (scores.mse[0], scores.mae[0], scores.crps[0]) == (expected.mse, expected.mae, expected.crps)


def test_mse_is_exactly_quadratic_and_the_other_curves_are_convex(make_batch):
    base, target = make_batch(4)
    scores = curve_of(base, make_batch(5)[0], target).result()
    np.testing.assert_allclose(np.diff(scores.mse, 3), 0, atol=1e-14)
    for curve in (scores.mse, scores.mae, scores.crps):
        assert (np.diff(curve, 2) >= -1e-7).all()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_no_weight_is_worse_than_the_chord_and_the_best_beats_both_ends(make_batch, seed, other):
    base, target = make_batch(seed, windows=3)
    curve = curve_of(base, make_batch(other, windows=3)[0], target)
    scores = curve.result()
    chord = (1 - scores.alpha) * scores.crps[0] + scores.alpha * scores.crps[-1]
    assert (scores.crps <= chord + 1e-6).all()
    best = ALPHAS.index(curve.best("crps"))
    assert scores.crps[best] <= min(scores.crps[0], scores.crps[-1])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_curve_does_not_depend_on_the_batch_size(make_batch, batch_size):
    base, target = make_batch(6, windows=130, horizon=37)
    memory, _ = make_batch(7, windows=130, horizon=37)
    result, expected = (curve_of(base, memory, target, n).result() for n in (batch_size, 130))
    for name in ("mse", "mae", "crps"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-12, err_msg=name)


def test_when_memory_is_the_truth_then_the_best_weight_is_one(make_batch):
    base, target = make_batch(8)
    curve = curve_of(base, target.unsqueeze(2).expand(-1, -1, 9, -1).contiguous(), target)
    assert curve.result().mse[-1] == 0
    assert [curve.best(criterion) for criterion in ("crps", "mae", "mse")] == [1, 1, 1]


def test_when_memory_equals_base_then_all_weights_tie_and_the_smallest_wins(make_batch):
    base, target = make_batch(9)
    curve = curve_of(base, base.clone(), target)
    scores = curve.result()
    for criterion in ("crps", "mae", "mse"):
        assert np.ptp(getattr(scores, criterion)) == 0
        assert curve.best(criterion) == 0


def test_when_memory_has_the_better_median_but_absurd_tails_then_the_criteria_disagree(make_batch):
    base, target = make_batch(10)
    memory = target.unsqueeze(2) + torch.linspace(-100, 100, 9).unsqueeze(-1)
    curve = curve_of(base, memory, target)
    assert (curve.best("mae"), curve.best("mse"), curve.best("crps")) == (1, 1, 0)


def test_point_only_curves_have_mse_and_mae_and_no_crps(make_batch):
    base, target = make_batch(12, levels=1)
    memory, _ = make_batch(13, levels=1)
    curve = curve_of(base, memory, target, levels=())
    scores = curve.result()
    expected = direct(0.75 * base + 0.25 * memory, target, levels=())
    assert scores.mae[5] == pytest.approx(expected.mae, rel=1e-6)
    assert scores.mse[5] == pytest.approx(expected.mse, rel=1e-6)
    assert np.isnan(scores.crps).all()
    assert curve.best("mae") in ALPHAS
    with pytest.raises(ValueError, match="crps"):
        curve.best("crps")


def test_when_memory_holds_nan_then_it_is_counted_and_the_batch_is_not_added(make_batch):
    base, target = make_batch(14)
    memory = make_batch(15)[0]
    curve = curve_of(base, memory, target)
    before = curve.result()
    broken = memory.clone()
    broken[0, 0, :2, 0] = torch.nan
    with pytest.raises(ValueError, match="memory holds 2 "):
        curve.update(base, broken, target)
    np.testing.assert_array_equal(curve.result().crps, before.crps)


def test_when_nothing_was_scored_then_there_is_no_curve():
    with pytest.raises(ValueError, match="no window"):
        FusionCurve(NINE).result()
