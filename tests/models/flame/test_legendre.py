import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm
from scipy.signal import cont2discrete
from scipy.special import eval_legendre

from tsbench.errors import TsbenchError
from tsbench.models.flame.legendre import (
    Discretisation,
    legendre_readout,
    legs_kernel,
    legs_matrices,
    legs_memory,
    legs_moments_to_legendre,
    legt_kernel,
    legt_matrices,
    legt_memory,
)

ORDERS = (4, 8, 16, 32)
QUINTIC = Polynomial([0.3, -1.2, 0.7, 0.9, -0.4, 0.1])
SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def samples(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def basis(order: int, x: float) -> NDArray[np.float64]:
    n = np.arange(order)
    return np.asarray(np.sqrt(2 * n + 1) * eval_legendre(n, 2 * x - 1))


def projection(f: Callable[[float], float], start: float, end: float, order: int) -> NDArray[np.float64]:
    """Coefficients of f over [start, end], by adaptive quadrature."""
    coefficients, _ = quad_vec(
        lambda x: f(start + x * (end - start)) * basis(order, x), 0, 1, epsabs=1e-13, epsrel=1e-13
    )
    return np.asarray(coefficients)


def legt_loop(x: NDArray[np.float64], order: int, window: float, rule: str) -> NDArray[np.float64]:
    """States [T, order] of the LegT recurrence as SciPy discretises it."""
    a, b = legt_matrices(order)
    system = (-a / window, b[:, None] / window, np.eye(order), np.zeros((order, 1)))
    transition, drive, *_ = cont2discrete(system, 1.0, rule)
    states = [np.zeros(order)]
    for sample in x:
        states.append(transition @ states[-1] + drive[:, 0] * sample)
    return np.array(states[1:])


def legs_loop(x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """States [T, order] of the LegS recurrence, each sample held in log time."""
    a, b = legs_matrices(order)
    states = [x[0] * np.eye(order)[0]]
    for seen, sample in enumerate(x[1:], start=1):
        decay = expm(-a * math.log((seen + 1) / seen))
        states.append(decay @ states[-1] + np.linalg.solve(a, (np.eye(order) - decay) @ b) * sample)
    return np.array(states)


# The basis


def test_readout_is_the_orthonormal_legendre_basis() -> None:
    positions = np.linspace(0, 1, 9)
    readout = legendre_readout(12, positions)
    np.testing.assert_allclose(readout, [basis(12, x) for x in positions], atol=1e-13)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    basis_at_nodes = legendre_readout(12, (nodes + 1) / 2)
    np.testing.assert_allclose(
        basis_at_nodes.T @ (weights[:, None] / 2 * basis_at_nodes), np.eye(12), atol=1e-13
    )


def test_a_polynomial_of_lower_degree_than_the_order_is_read_back_exactly() -> None:
    state = projection(QUINTIC, 0, 3, order=6)
    positions = np.linspace(0, 1, 50)
    np.testing.assert_allclose(legendre_readout(6, positions) @ state, QUINTIC(3 * positions), atol=1e-12)


# The matrices


@pytest.mark.parametrize("order", (1, *ORDERS))
def test_both_memories_map_a_constant_to_the_first_coefficient(order: int) -> None:
    for a, b in (legs_matrices(order), legt_matrices(order)):
        np.testing.assert_allclose(a[:, 0], b)


@pytest.mark.parametrize("order", ORDERS)
def test_legs_is_normal_plus_rank_one_with_spectrum_1_to_n(order: int) -> None:
    a, _ = legs_matrices(order)
    p = np.sqrt(np.arange(order) + 0.5)
    skew = a - np.outer(p, p) - np.eye(order) / 2
    np.testing.assert_allclose(skew, -skew.T, atol=1e-13)
    np.testing.assert_array_equal(np.diag(a), np.arange(1, order + 1))
    assert not np.triu(a, 1).any()


@pytest.mark.parametrize("order", ORDERS)
def test_legt_is_the_legendre_memory_unit_in_another_basis(order: int) -> None:
    n, k = np.ogrid[:order, :order]
    lmu_a = (2 * n + 1) * np.where(n < k, 1.0, (-1.0) ** (n - k))
    lmu_b = (2 * n[:, 0] + 1) * (-1.0) ** n[:, 0]
    change = (-1.0) ** n[:, 0] / np.sqrt(2 * n[:, 0] + 1)
    a, b = legt_matrices(order)
    np.testing.assert_allclose(a, change[:, None] * lmu_a / change, rtol=1e-14)
    np.testing.assert_allclose(b, change * lmu_b, rtol=1e-14)


def test_legs_ode_carries_the_projection_of_the_whole_past() -> None:
    a, b = legs_matrices(6)
    flow = solve_ivp(
        lambda t, c: (b * QUINTIC(t) - a @ c) / t, (1, 3), projection(QUINTIC, 0, 1, 6),
        method="DOP853", rtol=1e-13, atol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(flow.y[:, -1], projection(QUINTIC, 0, 3, 6), atol=1e-11)


def test_legt_ode_carries_the_projection_of_the_window() -> None:
    theta = 2
    a, b = legt_matrices(6)
    flow = solve_ivp(
        lambda t, c: (b * QUINTIC(t) - a @ c) / theta, (2, 4), projection(QUINTIC, 0, 2, 6),
        method="DOP853", rtol=1e-13, atol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(flow.y[:, -1], projection(QUINTIC, 2, 4, 6), atol=1e-11)


# LegT


@pytest.mark.parametrize("rule", get_args(Discretisation))
@pytest.mark.parametrize("order", (1, 4, 8))
def test_legt_kernel_is_the_impulse_response_of_scipys_discretisation(
    rule: Discretisation, order: int
) -> None:
    impulse = np.eye(1, 45)[0]
    expected = legt_loop(impulse, order, 24.5, rule)
    np.testing.assert_allclose(legt_kernel(order, 24.5, 45, rule), expected, atol=1e-12)


@pytest.mark.parametrize(("order", "border"), [(4, 5.2), (8, 17.7), (16, 59.7), (32, 197)])
def test_when_the_window_is_too_short_for_the_order_then_euler_diverges(order: int, border: float) -> None:
    rates = np.linalg.eigvals(legt_matrices(order)[0])
    limit = float((np.abs(rates) ** 2 / (2 * rates.real)).max())
    assert limit == pytest.approx(border, rel=0.01)
    with pytest.raises(TsbenchError, match=r"diverge.*use 'zoh'"):
        legt_kernel(order, 0.99 * limit, 8, "euler")
    assert np.isfinite(legt_kernel(order, 1.01 * limit, 10_000, "euler")).all()
    for rule in ("zoh", "bilinear"):
        assert np.abs(legt_kernel(order, 0.1 * limit, 10_000, rule)[-1]).max() < 1e-6


@pytest.mark.parametrize(("order", "rmse"), [(4, 0.69), (8, 0.15), (16, 0.0023)])
def test_a_window_with_two_sine_periods_needs_sixteen_coefficients(order: int, rmse: float) -> None:
    window, length = 48, 2_000
    sine = np.sin(2 * np.pi * np.arange(length) / 24)
    kernel = torch.from_numpy(legt_kernel(order, window, length))
    state = legt_memory(torch.from_numpy(sine)[None], kernel, length)[0, 0].numpy()
    midpoints = (np.arange(window) + 0.5) / window
    error = legendre_readout(order, midpoints) @ state - sine[-window:]
    assert np.sqrt(np.mean(error**2)) == pytest.approx(rmse, rel=0.03)


def test_legt_remembers_a_constant_once_the_window_has_filled() -> None:
    states = legt_memory(torch.ones(1, 400).double(), torch.from_numpy(legt_kernel(8, 40, 400)), 400)
    np.testing.assert_allclose(states[0, 0], np.eye(8)[0], atol=1e-10)


@pytest.mark.parametrize(("length", "stride"), [(30, 1), (30, 7), (30, 30), (30, 12), (50, 4)])
def test_legt_memory_equals_the_recurrence_at_the_patch_ends(length: int, stride: int) -> None:
    x = samples(3, 30)
    states = legt_memory(torch.from_numpy(x), torch.from_numpy(legt_kernel(6, 12, length)), stride)
    expected = np.stack([legt_loop(row, 6, 12, "zoh")[stride - 1 :: stride] for row in x])
    assert states.shape == (3, 30 // stride, 6)
    np.testing.assert_allclose(states, expected, atol=1e-12)


@pytest.mark.parametrize("length", [5, 8, 13])
def test_legt_memory_reads_no_further_back_than_the_kernel(length: int) -> None:
    stride = 8
    x, kernel = samples(2, 26), legt_kernel(4, 8, length)
    states = legt_memory(torch.from_numpy(x), torch.from_numpy(kernel), stride)
    for i in range(26 // stride):
        end = (i + 1) * stride
        lags = range(min(length, end))
        expected = sum(np.outer(x[:, end - 1 - lag], kernel[lag]) for lag in lags)
        np.testing.assert_allclose(states[:, i], expected, atol=1e-13)


# LegS


@pytest.mark.parametrize("order", ORDERS)
def test_legs_kernel_equals_the_recurrence(order: int) -> None:
    x = samples(64)
    np.testing.assert_allclose(
        np.einsum("tsn,s->tn", legs_kernel(64, order), x), legs_loop(x, order), atol=2e-13
    )


@pytest.mark.parametrize("order", ORDERS)
def test_legs_kernel_projects_the_staircase_of_the_samples(order: int) -> None:
    x = samples(20)
    state = np.tensordot(x, legs_kernel(20, order)[-1], axes=1)
    nodes, weights = np.polynomial.legendre.leggauss(order)  # exact on every stair
    expected = np.zeros(order)
    for step, sample in enumerate(x):
        for node, weight in zip(nodes, weights, strict=True):
            expected += sample * weight / 2 / 20 * basis(order, (step + (node + 1) / 2) / 20)
    np.testing.assert_allclose(state, expected, atol=1e-13)


def test_legs_kernel_is_causal_and_nested() -> None:
    kernel = legs_kernel(12, 5)
    steps = np.arange(12)
    assert not kernel[steps[:, None] < steps].any()
    np.testing.assert_array_equal(kernel[:7, :7], legs_kernel(7, 5))


@pytest.mark.parametrize("repeats", [2, 5])
def test_legs_does_not_depend_on_the_time_scale(repeats: int) -> None:
    x = samples(1, 9, 2)
    slow = legs_memory(torch.from_numpy(x), torch.from_numpy(legs_kernel(9, 7)))
    fast = legs_memory(
        torch.from_numpy(x.repeat(repeats, axis=1)), torch.from_numpy(legs_kernel(9 * repeats, 7))
    )
    torch.testing.assert_close(fast[:, repeats - 1 :: repeats], slow, atol=1e-13, rtol=0)


def test_legs_memory_keeps_each_feature_apart() -> None:
    x, kernel = samples(2, 11, 3), legs_kernel(11, 4)
    states = legs_memory(torch.from_numpy(x), torch.from_numpy(kernel))
    assert states.shape == (2, 11, 4, 3)
    for row, feature in np.ndindex(2, 3):
        np.testing.assert_allclose(states[row, :, :, feature], legs_loop(x[row, :, feature], 4), atol=1e-13)


# Scalar-decay heads


@pytest.mark.parametrize("order", range(1, 9))
def test_heads_that_decay_at_rates_1_to_n_hold_exactly_the_legs_state(order: int) -> None:
    x = samples(40)
    rates = np.arange(1, order + 1)
    moments = np.zeros(order)
    matrix, expected = legs_moments_to_legendre(order), legs_loop(x, order)
    for seen, sample in enumerate(x):
        decay = (seen / (seen + 1)) ** rates
        moments = decay * moments + (1 - decay) / rates * sample
        np.testing.assert_allclose(matrix @ moments, expected[seen], atol=1e-10)


@pytest.mark.parametrize("order", range(1, 9))
def test_moments_diagonalise_legs(order: int) -> None:
    a, b = legs_matrices(order)
    matrix = legs_moments_to_legendre(order)
    np.testing.assert_allclose(a @ matrix, matrix * np.arange(1, order + 1), rtol=1e-10, atol=1e-7)
    np.testing.assert_allclose(matrix.sum(1), b, rtol=1e-9)


@pytest.mark.parametrize(("order", "condition"), [(4, 8.6e1), (8, 7.7e4), (16, 8.3e10)])
def test_diagonalising_legs_is_ill_conditioned_beyond_a_few_coefficients(
    order: int, condition: float
) -> None:
    matrix = legs_moments_to_legendre(order)
    assert np.linalg.cond(matrix / np.linalg.norm(matrix, axis=0)) == pytest.approx(condition, rel=0.01)


# Both memories


LEGT = torch.from_numpy(legt_kernel(5, window=9, length=16))
LEGS = torch.from_numpy(legs_kernel(18, 5))


def legt(x: torch.Tensor) -> torch.Tensor:
    return legt_memory(x, LEGT, stride=3)


def legs(x: torch.Tensor) -> torch.Tensor:
    return legs_memory(x[..., None], LEGS[: x.shape[1], : x.shape[1]])[:, 2::3, :, 0]


MEMORIES = pytest.mark.parametrize("memory", [legt, legs])


@MEMORIES
@SEEDED
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(-100, 100))
def test_memories_are_linear(memory: Callable[[torch.Tensor], torch.Tensor], seed: int, scale: float) -> None:
    x, y = torch.from_numpy(samples(2, 1, 18, seed=seed))
    torch.testing.assert_close(memory(x + scale * y), memory(x) + scale * memory(y), atol=1e-10, rtol=0)


@MEMORIES
@SEEDED
@given(seed=st.integers(0, 2**32 - 1), patches=st.integers(1, 5))
def test_memories_do_not_see_the_future(
    memory: Callable[[torch.Tensor], torch.Tensor], seed: int, patches: int
) -> None:
    x = torch.from_numpy(samples(2, 18, seed=seed))
    other = x.clone()
    other[:, 3 * patches :] = 1e6
    torch.testing.assert_close(memory(other)[:, :patches], memory(x)[:, :patches], atol=1e-12, rtol=0)


@SEEDED
@given(seed=st.integers(0, 2**32 - 1), patches=st.integers(0, 5))
def test_when_the_series_is_delayed_by_patches_then_so_are_the_legt_states(seed: int, patches: int) -> None:
    x = torch.from_numpy(samples(2, 18, seed=seed))
    delayed = torch.nn.functional.pad(x, (3 * patches, 0))
    torch.testing.assert_close(legt(delayed)[:, patches:], legt(x), atol=1e-12, rtol=0)
    assert not legt(delayed)[:, :patches].any()


@SEEDED
@given(seed=st.integers(0, 2**32 - 1), level=st.floats(-100, 100))
def test_when_the_level_moves_then_only_the_first_legs_coefficient_does(seed: int, level: float) -> None:
    x = torch.from_numpy(samples(2, 18, seed=seed))
    moved = legs(x + level) - legs(x)
    expected = level * torch.eye(5)[0].double().expand_as(moved)
    torch.testing.assert_close(moved, expected, atol=1e-10, rtol=0)


@MEMORIES
def test_gradients_flow_through_the_memories(memory: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.from_numpy(samples(2, 12)).requires_grad_()
    assert torch.autograd.gradcheck(memory, x)


@pytest.mark.parametrize(
    "build",
    [
        lambda: legs_matrices(0),
        lambda: legt_matrices(0),
        lambda: legt_kernel(0, 8, 8),
        lambda: legt_kernel(4, 0, 8),
        lambda: legt_kernel(4, 8, 0),
        lambda: legs_kernel(0, 4),
        lambda: legs_kernel(4, 0),
        lambda: legs_moments_to_legendre(0),
        lambda: legendre_readout(0, np.zeros(2)),
    ],
)
def test_sizes_must_be_positive(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        build()
