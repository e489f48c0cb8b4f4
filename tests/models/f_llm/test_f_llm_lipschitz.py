import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.models.f_llm.lipschitz import (
    LipschitzConfig,
    closed_loop_bound,
    jacobian_spectrum,
    lipschitz_penalty,
)

SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def matrix(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.from_numpy(normal(*shape)).float()


# --- the penalty


@pytest.mark.parametrize("radius", [1e-1, 1e1])
def test_probe_is_the_slope_of_the_de_embedding_around_any_hidden_state(radius: float) -> None:
    deembed = nn.Linear(32, 8).double()
    hidden = 5 * torch.from_numpy(normal(6, 32, seed=1))
    torch.manual_seed(7)
    directions = torch.randn(4, 32, dtype=torch.float64)
    slopes = []
    for h in hidden:
        for direction in directions:
            delta = radius * h.square().mean().sqrt() * direction / direction.norm()
            slopes.append(((deembed(h + delta) - deembed(h)).norm() / delta.norm()).item())
    limit = np.median(slopes)
    expected = np.mean([max(0, slope - limit) for slope in slopes])
    torch.manual_seed(7)
    penalty = lipschitz_penalty(deembed.weight, LipschitzConfig(limit=limit))
    assert penalty.item() == pytest.approx(expected, rel=1e-6)


def test_mean_squared_probe_slope_is_the_squared_frobenius_norm_over_the_width() -> None:
    torch.manual_seed(0)
    weight = matrix(8, 256)
    mean_slope = lipschitz_penalty(weight, LipschitzConfig(limit=0, probes=4000)).item()
    assert mean_slope**2 == pytest.approx((torch.linalg.matrix_norm(weight) ** 2 / 256).item(), rel=0.1)


@pytest.mark.parametrize("limit", [0.0, 1.0, 5.0, 50.0])
def test_spectral_is_the_largest_singular_value_beyond_the_limit(limit: float) -> None:
    weight = matrix(8, 32)
    largest = np.linalg.svd(weight.numpy(), compute_uv=False)[0]
    penalty = lipschitz_penalty(weight, LipschitzConfig(limit=limit, kind="spectral"))
    assert penalty.item() == pytest.approx(max(0, largest - limit), rel=1e-5)


def test_gradient_of_spectral_is_that_of_the_largest_singular_value() -> None:
    weight = matrix(8, 32).requires_grad_()
    lipschitz_penalty(weight, LipschitzConfig(kind="spectral")).backward()
    left, _, right = np.linalg.svd(weight.detach().numpy())
    np.testing.assert_allclose(weight.grad, np.outer(left[:, 0], right[0]), atol=1e-5)


def test_one_steep_direction_escapes_the_probes_but_not_the_spectral_penalty() -> None:
    weight = torch.zeros(8, 512)
    weight[0, 0] = 3
    torch.manual_seed(0)
    assert lipschitz_penalty(weight, LipschitzConfig()).item() == 0
    assert lipschitz_penalty(weight, LipschitzConfig(kind="spectral")).item() == pytest.approx(2)


@SEEDED
@given(st.integers(0, 1000))
def test_probe_never_exceeds_spectral(seed: int) -> None:
    weight = torch.from_numpy(normal(4, 6, seed=seed)).float()
    torch.manual_seed(seed)
    probe, spectral = (
        lipschitz_penalty(weight, LipschitzConfig(limit=0.5, kind=kind)).item()
        for kind in ("probe", "spectral")
    )
    assert 0 <= probe <= spectral + 1e-5


@pytest.mark.parametrize("kind", ["probe", "spectral"])
def test_autocast_does_not_round_the_penalty(kind: str) -> None:
    weight, config = matrix(8, 32), LipschitzConfig(kind=kind)
    torch.manual_seed(0)
    expected = lipschitz_penalty(weight, config)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lipschitz_penalty(weight, config), expected)


@pytest.mark.parametrize("kind", ["probe", "spectral"])
def test_descent_on_the_penalty_brings_the_slope_down_to_the_limit(kind: str) -> None:
    torch.manual_seed(0)
    weight, config = matrix(4, 8).requires_grad_(), LipschitzConfig(kind=kind)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(lipschitz_penalty(weight, config), weight)
        with torch.no_grad():
            weight -= 0.05 * gradient
    assert lipschitz_penalty(weight, config).item() < 0.06


# --- the spectrum


def rotation(angle: float, size: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return size * np.array([[cos, -sin], [sin, cos]])


@pytest.mark.parametrize(
    "jacobian",
    [
        normal(12, 12),
        normal(40, 40, seed=1) / 40,
        np.kron(np.eye(3), rotation(1.0, 0.9)),  # complex pairs of one size
        0.5 * np.linalg.qr(normal(30, 30))[0],  # all eigenvalues on a circle
        np.eye(5, k=1),  # nilpotent: no growth in the long run, yet a gain of 1
        np.zeros((4, 4)),
        np.array([[-1.3]]),
    ],
    ids=["random", "small", "complex", "orthogonal", "nilpotent", "zero", "scalar"],
)
def test_figures_of_a_linear_map_are_those_of_its_matrix(jacobian: NDArray[np.float64]) -> None:
    torch_matrix = torch.from_numpy(jacobian)
    spectrum = jacobian_spectrum(lambda x: x @ torch_matrix.T + 1, torch.from_numpy(normal(3, len(jacobian))))
    radius = np.abs(np.linalg.eigvals(jacobian)).max()
    np.testing.assert_allclose(spectrum.radius, [radius] * 3, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(spectrum.gain, [np.linalg.norm(jacobian, 2)] * 3, rtol=1e-9, atol=1e-12)


def test_figures_of_a_curved_map_are_those_of_its_slope_at_each_point() -> None:
    inner, points = normal(6, 6), normal(4, 6, seed=2)
    torch_matrix = torch.from_numpy(inner)
    spectrum = jacobian_spectrum(lambda x: torch.tanh(x @ torch_matrix.T), torch.from_numpy(points))
    for i, point in enumerate(points):
        slope = (1 - np.tanh(inner @ point) ** 2)[:, None] * inner
        assert spectrum.radius[i] == pytest.approx(np.abs(np.linalg.eigvals(slope)).max(), rel=1e-9)
        assert spectrum.gain[i] == pytest.approx(np.linalg.norm(slope, 2), rel=1e-9)


def test_newest_values_alone_say_as_much_as_the_whole_sliding_state() -> None:
    weight, states = torch.from_numpy(normal(3, 12)), torch.from_numpy(normal(2, 12, seed=1))

    def newest(state: Tensor) -> Tensor:
        return torch.sin(state @ weight.T)

    def whole(state: Tensor) -> Tensor:
        return torch.cat([state[:, 3:], newest(state)], dim=1)

    short, full = jacobian_spectrum(newest, states), jacobian_spectrum(whole, states)
    np.testing.assert_allclose(short.radius, full.radius, rtol=1e-9)
    assert (full.gain >= 1).all()  # the part that slides on is part of that map


def test_radius_of_an_autoregression_is_its_largest_root() -> None:
    states = torch.from_numpy(normal(1, 2))
    spectrum = jacobian_spectrum(
        lambda x: 0.5 * x[:, 1:] - 0.9 * x[:, :1], states
    )  # x_t = .5 x_t-1 - .9 x_t-2
    assert spectrum.radius[0] == pytest.approx(np.abs(np.roots([1, -0.5, 0.9])).max(), rel=1e-9)


def test_radius_is_the_growth_of_errors_in_the_long_run() -> None:
    jacobian = torch.from_numpy(normal(8, 8))
    radius = jacobian_spectrum(lambda x: x @ jacobian.T, torch.zeros(1, 8, dtype=torch.float64)).radius[0]
    grown = np.linalg.norm(np.linalg.matrix_power(jacobian.numpy() / radius, 400), 2)
    assert grown ** (1 / 400) == pytest.approx(1, abs=0.02)


def test_a_step_that_returns_more_than_the_state_is_refused() -> None:
    with pytest.raises(ValueError, match="returns 4 values of a state of 2"):
        jacobian_spectrum(lambda x: torch.cat([x, x], dim=1), torch.zeros(1, 2))


def test_a_plant_on_a_sliding_context_never_contracts_in_all_directions() -> None:
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2Model

    from tsbench.models.f_llm.plant import FrozenDecoder, Plant, PlantConfig

    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=8, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    plant = Plant(PlantConfig(patch=6, tokens=4), FrozenDecoder(GPT2Model(sizes).double())).double()
    contexts = torch.from_numpy(normal(2, 24))
    with torch.no_grad():
        plant.deembed.weight *= 1e-3  # however little the plant reacts
        expected = plant(contexts)[:, -1] + 2
        torch.testing.assert_close(plant(contexts + 2)[:, -1], expected)
        assert (jacobian_spectrum(lambda context: plant(context)[:, -1], contexts).radius > 1 - 1e-9).all()


# --- Theorem 4.1


@SEEDED
@given(st.floats(0, 1.5), st.floats(0, 2), st.floats(0, 2))
def test_bound_is_the_fixed_recursion_of_the_largest_errors(
    rho: float, epsilon: float, initial: float
) -> None:
    error = initial
    for step in range(30):
        assert closed_loop_bound(step, rho, epsilon, initial) == pytest.approx(error, rel=1e-6, abs=1e-9)
        error = rho * error + epsilon


def test_bound_of_a_step_that_keeps_the_norm_grows_by_the_model_error() -> None:
    assert closed_loop_bound(7, 1.0, 0.5, 2.0) == 2 + 7 * 0.5


def test_feedback_bounds_the_error_of_an_unstable_scalar() -> None:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 100)
    open_loop = closed_loop = 1.0
    for step, shock in enumerate(noise, start=1):
        open_loop = 1.1 * open_loop + shock
        closed_loop = (1.1 - 0.4) * closed_loop + shock
        assert abs(closed_loop) <= closed_loop_bound(step, 0.7, 0.1, 1.0) <= 1 / 3 + 0.7**step
    assert abs(open_loop) > 1e3


def test_feedback_bounds_the_error_of_an_unstable_matrix_by_twice_the_model_error() -> None:
    random = normal(10, 10)
    jacobian = 1.2 * random / np.abs(np.linalg.eigvals(random)).max()
    gain = jacobian - 0.5 * np.linalg.qr(normal(10, 10, seed=1))[0]
    generator = np.random.default_rng(2)
    open_loop = closed_loop = np.zeros(10)
    for step in range(1, 101):
        shock = generator.standard_normal(10)
        shock *= 0.1 / np.linalg.norm(shock)
        open_loop = jacobian @ open_loop + shock
        closed_loop = (jacobian - gain) @ closed_loop + shock
        norm = np.linalg.norm(closed_loop)
        assert norm <= closed_loop_bound(step, 0.5, 0.1, 0.0) + 1e-12 <= 2 * 0.1 + 1e-12
    assert np.linalg.norm(open_loop) > 1e3
