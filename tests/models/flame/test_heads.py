from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import cumulative_trapezoid, trapezoid
from torch import Tensor
from zuko.transforms import MonotonicRQSTransform

from tsbench.metrics.quantile import pinball_loss
from tsbench.models.flame.heads import (
    HEAD_LEVELS,
    FlowDistribution,
    GaussianDistribution,
    Head,
    HeadName,
    QuantileDistribution,
)

PATCH, FUTURE, BATCH = 4, 3, 2
OUTPUTS: dict[HeadName, int] = {"flow": 3 * PATCH + 29, "gaussian": 2 * PATCH, "quantile": 9 * PATCH}
KINDS: tuple[HeadName, ...] = ("flow", "gaussian", "quantile")
LEVELS = tuple(np.linspace(0.01, 0.99, 99).tolist())
SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spline(*shape: int, strength: float, seed: int = 0) -> MonotonicRQSTransform:
    """The identity at strength 0."""
    raw = strength * normal(*shape, 29, seed=seed)
    return MonotonicRQSTransform(*raw.split_with_sizes([10, 10, 9], dim=-1), bound=6.0)


def flow(
    rows: int, steps: int, strength: float = 1.0, dtype: torch.dtype = torch.float64
) -> FlowDistribution:
    correlation = 0.95 * torch.tanh(normal(rows, steps, seed=3))
    correlation[:, 0] = 0
    return FlowDistribution(
        location=normal(rows, steps, seed=1).to(dtype),
        scale=(0.5 * normal(rows, steps, seed=2)).exp().to(dtype),
        correlation=correlation.to(dtype),
        patch=1,
        spline=spline(rows, steps, 1, strength=strength),
    )


def from_raw(kind: HeadName, raw: Tensor, horizon: int, pinball_weight: float = 1.0, **renorm: Tensor) -> Any:
    """What the head makes of the numbers [B, F, outputs] that its layers would give."""
    head = Head(kind, PATCH, OUTPUTS[kind], pinball_weight).to(raw.dtype)
    with torch.no_grad():
        head.skip.weight.copy_(torch.eye(OUTPUTS[kind]))
        head.skip.bias.zero_()
        head.out.weight.zero_()
    shift, log_scale = (renorm.get(name, raw.new_zeros(len(raw), 1)) for name in ("shift", "log_scale"))
    return head(raw, shift, log_scale, horizon)


def covariance(distribution: FlowDistribution, row: int) -> np.ndarray:
    """Of a path under the identity spline."""
    rho, scale = distribution.correlation[row].numpy(), distribution.scale[row].numpy()
    steps = len(rho)
    chain = np.array(
        [[np.prod(rho[min(i, j) + 1 : max(i, j) + 1]) for j in range(steps)] for i in range(steps)]
    )
    return chain * np.outer(scale, scale)


# --- the flow


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_noise_comes_back_from_its_path(dtype: torch.dtype, tolerance: float) -> None:
    steps = 200
    distribution = flow(BATCH, steps, dtype=dtype)
    noise = normal(5, BATCH, steps, seed=9).to(dtype)
    path = distribution.noise_to_path(noise)
    deviation = ((path - distribution.location) / distribution.scale).double()
    z = distribution.spline(deviation[..., None])[..., 0]
    previous = torch.cat([torch.zeros(5, BATCH, 1), z[..., :-1]], dim=-1)
    rho = distribution.correlation.double()
    assert path.dtype == dtype
    assert (((z - rho * previous) / (1 - rho**2).sqrt()) - noise).abs().max() < tolerance


def test_log_density_is_that_of_the_noise_less_the_jacobian_of_the_path() -> None:
    distribution, noise = flow(1, 6), normal(1, 6, seed=9)
    jacobian = torch.autograd.functional.jacobian(lambda u: distribution.noise_to_path(u)[0], noise)
    expected = stats.norm.logpdf(noise).sum() - torch.linalg.slogdet(jacobian.reshape(6, 6)).logabsdet.item()
    path = distribution.noise_to_path(noise)
    assert distribution.log_density(path).sum().item() == pytest.approx(expected, abs=1e-9)


def test_density_of_one_step_integrates_to_its_levels() -> None:
    one = flow(1, 1, strength=2.0)
    grid = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    density = one.log_density(grid[:, None]).exp()[:, 0]
    assert trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
    quantiles = one.quantiles(LEVELS)[0, :, 0]
    reached = np.interp(quantiles, grid[1:], cumulative_trapezoid(density, grid))
    np.testing.assert_allclose(reached, LEVELS, atol=1e-5)


def test_under_an_identity_spline_paths_are_multivariate_normal() -> None:
    distribution, target = flow(BATCH, 5, strength=0), normal(BATCH, 5, seed=7)
    for row in range(BATCH):
        gaussian = stats.multivariate_normal(distribution.location[row], covariance(distribution, row))
        density = distribution.log_density(target)[row].sum().item()
        assert density == pytest.approx(gaussian.logpdf(target[row]), abs=1e-9)

    paths = distribution.sample(200, torch.Generator().manual_seed(0))
    loss = -np.mean([distribution.log_density(paths[:, n]).mean().item() for n in range(200)])
    entropy = np.mean(
        [stats.multivariate_normal(None, covariance(distribution, row)).entropy() for row in (0, 1)]
    )
    assert loss == pytest.approx(entropy / 5, abs=0.1)


def test_under_an_identity_spline_quantiles_are_normal() -> None:
    distribution = flow(BATCH, 5, strength=0)
    levels = np.array(LEVELS)[None, :, None]
    expected = stats.norm.ppf(levels, distribution.location[:, None], distribution.scale[:, None])
    np.testing.assert_allclose(distribution.quantiles(LEVELS), expected, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_quantiles_are_those_of_many_samples(kind: HeadName) -> None:
    distribution = from_raw(kind, normal(BATCH, FUTURE, OUTPUTS[kind], dtype=torch.float32), horizon=10)
    samples = distribution.sample(20_000, torch.Generator().manual_seed(0))
    assert samples.shape == (BATCH, 20_000, 10)
    quantiles = distribution.quantiles(HEAD_LEVELS)
    below = (samples[:, None] <= quantiles[:, :, None]).double().mean(2)
    if kind == "quantile":  # its outer levels hold all that lies beyond them
        below[:, -1] = 0.9
    expected = torch.tensor(HEAD_LEVELS, dtype=torch.float64)[:, None].expand(below.shape)
    torch.testing.assert_close(below, expected, atol=0.02, rtol=0)


def test_neighbouring_steps_of_a_path_have_the_correlation_of_the_chain() -> None:
    distribution = flow(1, 4, strength=0)
    paths = distribution.sample(20_000, torch.Generator().manual_seed(0))[0]
    measured = np.corrcoef(paths.T)
    np.testing.assert_allclose(np.diag(measured, 1), distribution.correlation[0, 1:], atol=0.02)
    np.testing.assert_allclose(measured[0, 2], distribution.correlation[0, 1:3].prod(), atol=0.02)


# --- what all heads share


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_from_the_generator(kind: HeadName) -> None:
    distribution = from_raw(kind, normal(BATCH, FUTURE, OUTPUTS[kind], dtype=torch.float32), horizon=10)
    first, again, other = (distribution.sample(7, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(
    kind=st.sampled_from(KINDS),
    strength=st.sampled_from([0.1, 1.0, 3.0, 10.0, 1e3, 1e6]),
    target=st.sampled_from([0.0, 10.0, -10.0]),
    seed=st.integers(0, 2**31),
)
@SEEDED
def test_quantiles_rise_and_gradients_are_finite_whatever_the_network_says(
    kind: HeadName, strength: float, target: float, seed: int
) -> None:
    raw = strength * normal(8, FUTURE, OUTPUTS[kind], seed=seed, dtype=torch.float32)
    distribution = from_raw(kind, raw.requires_grad_(), horizon=10)
    loss = distribution.loss(torch.full((8, 10), target))
    loss.backward()
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    quantiles = distribution.quantiles(LEVELS)
    assert quantiles.shape == (8, 99, 10)
    assert quantiles.isfinite().all()
    assert (quantiles.diff(dim=1) >= 0).all()
    assert distribution.sample(20, torch.Generator().manual_seed(0)).isfinite().all()


def test_steep_splines_of_a_float32_network_neither_cross_nor_break() -> None:
    raw = 20 * normal(2_000, 1, OUTPUTS["flow"], dtype=torch.float32)
    quantiles = from_raw("flow", raw, horizon=1).quantiles(LEVELS)
    assert quantiles.dtype == torch.float32
    assert (quantiles.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_horizon_is_a_prefix(kind: HeadName) -> None:
    raw = normal(BATCH, FUTURE, OUTPUTS[kind], dtype=torch.float32)
    long, short = (
        from_raw(kind, raw, 11).quantiles(HEAD_LEVELS),
        from_raw(kind, raw[:, :2], 5).quantiles(HEAD_LEVELS),
    )
    torch.testing.assert_close(short, long[..., :5])


@pytest.mark.parametrize("kind", KINDS)
def test_renorm_moves_and_stretches_the_quantiles(kind: HeadName) -> None:
    raw = normal(BATCH, FUTURE, OUTPUTS[kind])
    shift, log_scale = normal(BATCH, 1, seed=1), normal(BATCH, 1, seed=2)
    plain = from_raw(kind, raw, 10).quantiles(HEAD_LEVELS)
    moved = from_raw(kind, raw, 10, shift=shift, log_scale=log_scale).quantiles(HEAD_LEVELS)
    expected = shift[:, None] + log_scale.exp()[:, None] * plain
    floor = 1e-2 * (1 + log_scale.exp().max().item())  # the smallest scale is not stretched
    torch.testing.assert_close(moved, expected.float(), atol=floor, rtol=1e-5)


@pytest.mark.parametrize("kind", ["flow", "gaussian"])
def test_loss_is_the_likelihood_and_the_weighted_pinball_loss(kind: HeadName) -> None:
    raw, target = normal(BATCH, FUTURE, OUTPUTS[kind]), normal(BATCH, 10, seed=1, dtype=torch.float32)
    likelihood = from_raw(kind, raw, 10, pinball_weight=0.0).loss(target)
    both = from_raw(kind, raw, 10, pinball_weight=0.7)
    quantiles = both.quantiles((0.1, 0.5, 0.9))
    pinball = pinball_loss(target, quantiles, (0.1, 0.5, 0.9)).mean()
    torch.testing.assert_close(both.loss(target), likelihood + 0.7 * 2 * pinball)


def test_flow_fits_a_skewed_target() -> None:
    target = torch.from_numpy(stats.expon.rvs(size=256, random_state=0)).float()[:, None]
    raw = torch.zeros(1, 1, OUTPUTS["flow"], requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    losses = []
    for _ in range(80):
        loss = from_raw("flow", raw, 1, pinball_weight=0.0).loss(target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    best_normal = stats.norm.entropy(scale=target.std().item())
    assert losses[0] > best_normal > 1.2 > losses[-1]  # the entropy of the exponential law is 1
    fitted = from_raw("flow", raw, 1).quantiles(HEAD_LEVELS)[0, :, 0].detach()
    np.testing.assert_allclose(fitted, np.quantile(target, HEAD_LEVELS), atol=0.15)


# --- the Gaussian head


def test_gaussian_loss_is_the_normal_likelihood() -> None:
    location, scale, target = normal(BATCH, 5), normal(BATCH, 5, seed=1).exp(), normal(BATCH, 5, seed=2)
    expected = -torch.distributions.Normal(location, scale).log_prob(target).mean()
    torch.testing.assert_close(GaussianDistribution(location, scale).loss(target), expected)
    expected_quantiles = stats.norm.ppf(np.array(LEVELS)[None, :, None], location[:, None], scale[:, None])
    np.testing.assert_allclose(
        GaussianDistribution(location, scale).quantiles(LEVELS), expected_quantiles, atol=1e-9
    )


# --- the quantile head


def test_quantile_head_interpolates_its_sorted_levels_and_stops_at_the_outer_ones() -> None:
    values = normal(BATCH, 9, 5)
    wanted = (0.02, 0.1, 0.15, 0.3, 0.5, 0.77, 0.9, 0.99)
    quantiles = QuantileDistribution(values).quantiles(wanted)
    for row in range(BATCH):
        for step in range(5):
            expected = np.interp(wanted, HEAD_LEVELS, np.sort(values[row, :, step]))
            np.testing.assert_allclose(quantiles[row, :, step], expected, atol=1e-12)


def test_quantile_head_is_trained_by_the_pinball_loss_of_its_nine_levels() -> None:
    values, target = normal(BATCH, 9, 5), normal(BATCH, 5, seed=1)
    expected = 2 * pinball_loss(target, values, HEAD_LEVELS).mean()
    torch.testing.assert_close(QuantileDistribution(values).loss(target), expected)


def test_quantile_head_gives_its_numbers_to_levels_before_steps() -> None:
    raw = torch.arange(2.0 * 9 * PATCH).reshape(1, 2, 9 * PATCH)  # patch, level, step
    values = from_raw("quantile", raw, horizon=7).values
    assert values.shape == (1, 9, 7)
    assert values[0, 2].tolist() == [8, 9, 10, 11, 44, 45, 46]
