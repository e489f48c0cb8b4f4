from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsbench.config import CellSpec, FLlmOptions, profile
from tsbench.data.dataset import Dataset
from tsbench.data.splits import SplitRule
from tsbench.methods import f_llm_stability
from tsbench.methods.f_llm import FLlmForecaster
from tsbench.methods.f_llm_stability import Stability, corrected_step, diagnose, error_bands
from tsbench.methods.task import Fitted, Task, make_task
from tsbench.models.f_llm.lipschitz import closed_loop_bound
from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import Plant, PlantConfig
from tsbench.models.f_llm.rollout import RollOutConfig, roll_out

PATCH, TOKENS, HORIZON = 3, 4, 8  # two patches and two thirds
LOOKBACK = PATCH * TOKENS
EVERY_WAY = [
    RollOutConfig(context, seed) for context, seed in product(("sliding", "growing"), ("lookback", "zeros"))
]
EACH_WAY = pytest.mark.parametrize("way", EVERY_WAY, ids=lambda way: f"{way.context}-{way.seed}")


class RunningMean:
    """A causal linear decoder: every hidden state is the mean of the tokens so far."""

    width = 5

    def __call__(self, tokens: Tensor, cache: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        total, count = (0.0, 0) if cache is None else cache
        sums = total + tokens.cumsum(1)
        counts = count + torch.arange(1, tokens.shape[1] + 1)
        return sums / counts[:, None], (sums[:, -1:], counts[-1]) if use_cache else None


def make_plant(seed: int = 0, scale: float = 1.0) -> Plant:
    torch.manual_seed(seed)
    plant = Plant(PlantConfig(PATCH, TOKENS), cast(Any, RunningMean()))
    with torch.no_grad():
        for parameter in plant.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape) / 2)
    return plant.requires_grad_(False)


def make_observer(window: int = 2) -> Observer:
    torch.manual_seed(1)
    observer = Observer(PATCH, window)
    with torch.no_grad():
        for parameter in observer.parameters():
            parameter.copy_(torch.randn(parameter.shape) / 4)
    return observer.requires_grad_(False)


def series(rows: int, channels: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal((rows, channels)).cumsum(0)


def make_task_of(channels: int = 2, rows: int = 200, horizon: int = HORIZON, **fields: Any) -> Task:
    values = series(rows, channels)
    stamps = np.datetime64("2024-01-01T00:00:00") + np.arange(rows) * np.timedelta64(3600, "s")
    names = tuple(f"c{i}" for i in range(channels))
    rule = SplitRule("ratio", 0.6, 0.2, 0.2)
    dataset = Dataset("walk", values, stamps, names, "1h", 24, rule, (horizon,), "0" * 64)
    spec = CellSpec(
        method="f-llm",
        backbone="smollm2",
        dataset="walk",
        horizon=horizon,
        lookback=LOOKBACK,
        profile="quick",
        f_llm=FLlmOptions(patch=PATCH),
        **fields,
    )
    return make_task(spec, profile("quick"), dataset, Path("unused"), lambda line: None)


@pytest.fixture
def free_plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """What training without penalty gives."""
    plant = make_plant(seed=9, scale=3)

    def fit(task: Task, frozen: object) -> Fitted:
        assert task.spec.f_llm == FLlmOptions(patch=PATCH, form="open-loop", lipschitz="none")
        return Fitted(FLlmForecaster(plant, None, RollOutConfig()))

    monkeypatch.setattr(f_llm_stability, "fit", fit)
    return plant


def diagnosed(task: Task, observer: Observer | None, way: RollOutConfig = EVERY_WAY[0]) -> Stability:
    return diagnose(task, cast(Any, None), FLlmForecaster(make_plant(), observer, way))


# --- errors, against a loop in float64


def slow_prediction(plant: Plant, patches: NDArray[np.float64], mean: float, std: float) -> Any:
    """Predictions [M, P] of the patches after each of [M, P], and nothing of the code under test."""
    weights = {name: tensor.double().numpy() for name, tensor in plant.state_dict().items()}
    tokens = (patches - mean) / std @ weights["embed.weight"].T + weights["embed.bias"]
    hidden = np.array([tokens[: place + 1].mean(0) for place in range(len(tokens))])
    return mean + std * (hidden @ weights["deembed.weight"].T + weights["deembed.bias"])


def slow_moments(patches: NDArray[np.float64], way: RollOutConfig) -> tuple[Any, Any, Any]:
    seen = patches[-TOKENS:] if way.context == "sliding" else patches
    source = seen if way.context == "sliding" else patches[:TOKENS]
    return seen, source.mean(), np.sqrt(source.var() + 1e-5)


def slow_errors(
    plant: Plant, observer: Observer | None, row: NDArray[np.float64], way: RollOutConfig
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Errors and one-step errors of one row [L + H], step by step."""
    truth = [row[first : first + PATCH] for first in range(LOOKBACK, LOOKBACK + HORIZON, PATCH)]
    past = list(row[:LOOKBACK].reshape(TOKENS, PATCH))
    fed, true, residuals = list(past), list(past), []
    errors, one_step = [], []
    for step, target in enumerate(truth):
        seen, mean, std = slow_moments(np.array(fed), way)
        predicted = slow_prediction(plant, seen, mean, std)
        if step == 0 and way.seed == "lookback":
            residuals = [past[i + 1] - predicted[i] for i in range(TOKENS - 1)]
        correction = np.zeros(PATCH)
        if observer is not None:
            memory = [*([np.zeros(PATCH)] * observer.window), *residuals][-observer.window :]
            weight, bias = (t.double().numpy() for t in (observer.linear.weight, observer.linear.bias))
            correction = std * (weight @ (np.concatenate(memory) / std) + bias)
        fed.append(predicted[-1] + correction)
        residuals = [*residuals, correction]
        seen, mean, std = slow_moments(np.array(true), way)
        best = slow_prediction(plant, seen, mean, std)[-1] + correction
        errors.append(target - fed[-1][: len(target)])
        one_step.append(target - best[: len(target)])
        if len(target) == PATCH:
            true.append(target)
    return errors, one_step


def slow_rmse(errors: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    return np.array([np.sqrt(np.mean(np.square(step))) for step in zip(*errors, strict=True)])


@EACH_WAY
@pytest.mark.usefixtures("free_plant")
def test_errors_by_step_are_those_of_a_slow_roll_out_on_the_test_windows(way: RollOutConfig) -> None:
    task, observer = make_task_of(), make_observer()
    stability = diagnosed(task, observer, way)
    starts = task.test_windows().starts
    assert (stability.windows, stability.windows_total) == (len(starts), len(starts))
    rows = [task.scaled[start - LOOKBACK : start + HORIZON, c] for start in starts for c in range(2)]
    for loop, each in ((stability.open_loop, None), (stability.closed_loop, observer)):
        errors, one_step = zip(
            *(slow_errors(make_plant(), each, row.astype(float), way) for row in rows), strict=True
        )
        np.testing.assert_allclose(loop.error.value, slow_rmse(list(errors)), rtol=1e-4)
        np.testing.assert_allclose(loop.one_step, slow_rmse(list(one_step)), rtol=1e-4)
    gap = stability.closed_loop.error.value - stability.open_loop.error.value
    np.testing.assert_allclose(stability.difference.value, gap)
    assert stability.open_loop.one_step[0] == pytest.approx(stability.open_loop.error.value[0])


@pytest.mark.usefixtures("free_plant")
def test_without_observer_the_closed_loop_is_the_open_one() -> None:
    stability = diagnosed(make_task_of(), None)
    assert stability.observer_gain is None
    assert not stability.difference.value.any()
    np.testing.assert_array_equal(stability.closed_loop.gain, stability.open_loop.gain)


@pytest.mark.usefixtures("free_plant")
@pytest.mark.parametrize(
    ("channels", "stride", "windows", "used"),
    [(2, 1, 93, 2), (7, 1, 73, 7), (30, 1, 24, 21), (60, 20, 5, 60)],
)
def test_rows_are_thinned_over_windows_first_and_then_over_channels(
    channels: int, stride: int, windows: int, used: int
) -> None:
    stability = diagnosed(make_task_of(channels, rows=500, test_stride=stride), None)
    assert (stability.windows, stability.channels) == (windows, used)
    assert (stability.windows_total, stability.channels_total) == (93, channels)


# --- Jacobians


@EACH_WAY
def test_the_step_that_is_differentiated_is_the_one_that_runs(way: RollOutConfig) -> None:
    plant, observer = make_plant(), make_observer()
    context = torch.from_numpy(series(LOOKBACK, 1).T).float()
    seeds = context.view(1, TOKENS, PATCH)[:, 1:] - plant(context)[:, :-1]
    residuals = seeds if way.seed == "lookback" else seeds[:, :0]
    rolled = roll_out(plant, observer, context, 1, way).corrected[:, 0]
    torch.testing.assert_close(corrected_step(plant, observer, residuals)(context), rolled)


@pytest.mark.usefixtures("free_plant")
def test_a_growing_context_has_the_jacobian_of_the_linear_plant() -> None:
    stability = diagnosed(make_task_of(), make_observer(), RollOutConfig("growing"))
    plant = make_plant()
    product_of_both = (plant.deembed.weight @ plant.embed.weight).double().numpy()  # type: ignore[operator]
    for place, patches in enumerate((TOKENS, TOKENS + 2)):  # of the running mean each has its share
        jacobian = np.tile(product_of_both / patches, patches)
        companion = np.vstack([np.eye((patches - 1) * PATCH, patches * PATCH, PATCH), jacobian])
        radius = np.abs(np.linalg.eigvals(companion)).max()
        for loop in (stability.open_loop, stability.closed_loop):
            np.testing.assert_allclose(loop.gain[place], np.linalg.norm(jacobian, 2), rtol=1e-4)
            np.testing.assert_allclose(loop.radius[place], radius, rtol=1e-3)


def central_differences(function: Any, point: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = [(function(point + d) - function(point - d)) / 2e-6 for d in 1e-6 * np.eye(len(point))]
    return np.array(columns).T


@pytest.mark.usefixtures("free_plant")
def test_a_sliding_context_has_the_slope_of_the_step_at_the_corrected_context() -> None:
    task, observer, plant, way = make_task_of(), make_observer(), make_plant(), EVERY_WAY[0]
    stability = diagnosed(task, observer)
    assert stability.steps == (1, 3)
    assert stability.closed_loop.gain.shape == (2, 8)
    rows = [task.scaled[s - LOOKBACK : s, c] for s in task.test_windows().starts for c in range(2)]
    context = np.array(rows)[-1].astype(float)
    rolled = roll_out(plant, observer, torch.from_numpy(context[None]).float(), 3, way)
    weight, bias = (t.double().numpy() for t in (observer.linear.weight, observer.linear.bias))

    def corrected(state: NDArray[np.float64]) -> Any:
        seen, mean, std = slow_moments(state.reshape(-1, PATCH), way)
        held = weight @ rolled.corrections[0, :2].double().numpy().ravel()
        return slow_prediction(plant, seen, mean, std)[-1] + held + std * bias

    last = np.concatenate([context, rolled.corrected[0].double().numpy().ravel()])[2 * PATCH :][:LOOKBACK]
    np.testing.assert_allclose(corrected(last), rolled.corrected[0, -1], rtol=1e-4)
    jacobian = central_differences(corrected, last)
    companion = np.vstack([np.eye(LOOKBACK - PATCH, LOOKBACK, PATCH), jacobian])
    assert stability.closed_loop.gain[1, -1] == pytest.approx(np.linalg.norm(jacobian, 2), rel=1e-3)
    radius = np.abs(np.linalg.eigvals(companion)).max()
    assert stability.closed_loop.radius[1, -1] == pytest.approx(radius, rel=1e-3)


@pytest.mark.usefixtures("free_plant")
def test_a_sliding_context_never_contracts_in_all_directions() -> None:
    stability = diagnosed(make_task_of(), make_observer())
    for loop in (stability.open_loop, stability.closed_loop):
        assert (loop.radius >= 1 - 1e-4).all()


def test_a_horizon_of_one_patch_has_one_step(free_plant: Plant) -> None:
    stability = diagnosed(make_task_of(horizon=2), make_observer())
    assert stability.steps == (1,)
    assert stability.closed_loop.gain.shape == (1, 8)
    assert stability.bound == pytest.approx([stability.epsilon])


# --- slopes and bound


def test_slopes_are_norms_of_the_de_embedding_with_and_without_penalty(free_plant: Plant) -> None:
    stability = diagnosed(make_task_of(), make_observer())
    assert [slope.penalty for slope in stability.slopes] == ["none", "probe"]
    for slope, plant in zip(stability.slopes, (free_plant, make_plant()), strict=True):
        matrix = cast(Tensor, plant.deembed.weight).numpy()
        assert slope.spectral == pytest.approx(np.linalg.svd(matrix)[1].max(), rel=1e-5)
        assert slope.probed == pytest.approx(np.sqrt(np.square(matrix).sum() / 5), rel=1e-5)
    assert stability.limit == 1


@pytest.mark.usefixtures("free_plant")
def test_the_bound_is_the_theorems_with_the_largest_gain_and_one_step_error() -> None:
    observer = make_observer()
    stability = diagnosed(make_task_of(), observer)
    assert stability.rho == stability.closed_loop.gain.max()
    assert stability.epsilon == stability.closed_loop.one_step.max()
    assert stability.observer_gain == pytest.approx(np.linalg.svd(observer.linear.weight)[1].max(), rel=1e-5)
    expected = [closed_loop_bound(t, stability.rho, stability.epsilon, 0) for t in (1, 2, 3)]
    np.testing.assert_allclose(stability.bound, expected)


# --- bands


def normal(*shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(5).standard_normal(shape)


def width(errors: NDArray[np.float64], block: int) -> float:
    """Half a band's width over 1.96: the standard error of the root mean squared error."""
    band, _, _ = error_bands(errors[:, None], errors[:, None], block)
    return float(band.high[0] - band.low[0]) / 2 / 1.96


@pytest.mark.parametrize("block", [1, 4, 10])
def test_standard_error_is_that_of_the_mean_of_all_blocks(block: int) -> None:
    errors = 9 + normal(400) / 10
    means = np.lib.stride_tricks.sliding_window_view(errors, block).mean(1)
    expected = np.sqrt(means.var() / (400 / block)) / (2 * 3)  # of the mean, then of its root
    assert width(errors, block) == pytest.approx(expected, rel=0.06)


def test_blocks_as_long_as_the_overlap_see_the_dependence_that_single_windows_miss() -> None:
    overlap = 10
    errors = 100 + np.convolve(normal(2000 + overlap - 1), np.ones(overlap), "valid")
    truth = np.sqrt(overlap**2 / 2000) / (2 * 10)
    assert width(errors, 1) < 0.4 * truth
    assert width(errors, 4 * overlap) == pytest.approx(truth, rel=0.2)


def test_the_difference_is_paired() -> None:
    opened = 4 + normal(60, 3) ** 2
    first, second, difference = error_bands(opened, 1.44 * opened, 3)
    np.testing.assert_allclose(second.high, 1.2 * first.high)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(getattr(difference, name), 0.2 * getattr(first, name))
    assert (first.low < first.value).all()
    assert (first.value < first.high).all()


def test_fewer_than_two_blocks_have_no_band() -> None:
    errors = normal(9, 2) ** 2
    assert np.isfinite(error_bands(errors[:8], errors[:8], 4)[0].low).all()
    for band in error_bands(errors, errors, 5):
        assert np.isfinite(band.value).all()
        assert np.isnan([band.low, band.high]).all()


@pytest.mark.usefixtures("free_plant")
@pytest.mark.parametrize(("stride", "block"), [(1, 8), (3, 3), (8, 1), (20, 1)])
def test_windows_a_block_apart_share_no_target(stride: int, block: int) -> None:
    assert diagnosed(make_task_of(test_stride=stride), None).block == block
