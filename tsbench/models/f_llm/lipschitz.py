"""Lipschitz penalty of F-LLM's de-embedding, and the figures that say whether a roll-out is stable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "JacobianSpectrum",
    "LipschitzConfig",
    "closed_loop_bound",
    "jacobian_spectrum",
    "lipschitz_penalty",
]


@dataclass(frozen=True)
class LipschitzConfig:
    """Penalty on the slope of the de-embedding.

    Args:
        weight: Factor lambda of the penalty in the loss.
        limit: Slope K_lip from which on it is penalised.
        kind: "probe", the slope in random directions (the paper's), or "spectral", the largest slope.
        probes: Random directions; without effect on "spectral".

    Source: F-LLM, Eq. 11 and 12; the paper gives no value.
    """

    weight: float = 0.1
    limit: float = 1.0
    kind: Literal["probe", "spectral"] = "probe"
    probes: int = 4


def lipschitz_penalty(matrix: Tensor, config: LipschitzConfig) -> Tensor:
    """Penalise a linear map D(h) = W h + b for slopes beyond the limit.

    probe:    mean over delta of max(0, ||D(h + delta) - D(h)|| / ||delta|| - K_lip)
    spectral: max(0, sigma_max(W) - K_lip), the former's largest value over delta

    D(h + delta) - D(h) is W delta, whatever h and the length of delta: the penalty needs no hidden state, and
    the paper's radius around them cancels. With delta of uniform direction the mean squared slope is
    ||W||_F^2 / d, so "probe" limits the Frobenius norm and leaves single steep directions alone.

    The penalty says nothing on embedding, language model and instance normalisation, which have as much part
    in the Jacobian of the plant as D: it does not make Theorem 4.1 applicable.

    Args:
        matrix: W [P, d] float32.
        config: Limit and kind; its weight is the caller's to apply.

    Returns:
        Scalar float32, zero or more. "probe" draws from the default generator of W's device.

    Source: F-LLM, Eq. 11; "spectral" is ours.
    """
    if config.kind == "spectral":
        return torch.relu(torch.linalg.matrix_norm(matrix, ord=2) - config.limit)
    delta = torch.randn(config.probes, matrix.shape[1], device=matrix.device, dtype=matrix.dtype)
    with torch.autocast(matrix.device.type, enabled=False):
        slope = (delta @ matrix.T).norm(dim=1) / delta.norm(dim=1)
    return torch.relu(slope - config.limit).mean()


@dataclass(frozen=True, eq=False)
class JacobianSpectrum:
    """Local sensitivity of a map at some points, [B] float64 each.

    Attributes:
        radius: Largest absolute eigenvalue rho of the state's Jacobian: how fast errors grow in the long run.
        gain: Largest singular value of the map's Jacobian: how much one step can amplify an error.
    """

    radius: NDArray[np.float64]
    gain: NDArray[np.float64]


def jacobian_spectrum(step: Callable[[Tensor], Tensor], states: Tensor) -> JacobianSpectrum:
    """Spectral radius and gain of the Jacobian of a map at given states, exact to the map's precision.

    A step may return the whole next state (m = n) or, as a plant does, only the m newest values of a state
    that slides by m. Eigenvalues then are those of the companion form

        J = [0 I; dstep/dstate]  [n, n]

    The Jacobian is built at once, by one backward pass of m copies of the state, and decomposed densely.
    Krylov methods are cheaper and fail here: on companion matrices with hundreds of eigenvalues of like size
    Arnoldi iteration stops at a wrong one, or not at all.

    Where the statistics of a sliding context are recomputed at each step, adding a constant to the context
    adds it to the forecast. The constant thus is an eigenvector of J to eigenvalue 1, with and without an
    observer: rho >= 1, and no such roll-out contracts in all directions.

    Args:
        step: Differentiable map [B, n] -> [B, m], m <= n, rows independent of one another; for the open
            loop `lambda context: plant(context)[:, -1]`.
        states: [B, n], the points.

    Returns:
        The figures at each point.

    Raises:
        ValueError: The step returns more than the state.

    Source: J of F-LLM, Eq. 3, and rho of Proposition 4.1.
    """
    radius, gain = [], []
    for state in states:
        jacobian = _jacobian(step, state)
        new, size = jacobian.shape
        if new > size:
            raise ValueError(f"the step returns {new} values of a state of {size}")
        companion = np.concatenate([np.eye(size - new, size, new), jacobian])
        radius.append(np.abs(np.linalg.eigvals(companion)).max())
        gain.append(np.linalg.norm(jacobian, ord=2))
    return JacobianSpectrum(np.array(radius), np.array(gain))


def closed_loop_bound(step: int, rho: float, epsilon: float, initial: float) -> float:
    """Largest error norm after a number of steps of which each is bounded.

    ||e_t|| <= rho^t ||e_0|| + epsilon (1 - rho^t) / (1 - rho)

    Args:
        step: Steps taken, t.
        rho: Bound of the norm of the closed-loop operator, ||J_t - K|| <= rho for all t; its spectral radius
            is smaller and does not do. Below 1 the bound tends to epsilon / (1 - rho); from 1 on it holds as
            well, and grows.
        epsilon: Bound of the one-step model error. An observer that is wrong by eta adds eta to it.
        initial: Norm of the first error, ||e_0||.

    Returns:
        The bound, in the unit of the errors.

    Source: F-LLM, Theorem 4.1 and Eq. 7, which feeds back the true error. The roll-out knows estimates alone,
    so the bound is conditional on the observer.
    """
    decay = rho**step
    total = step if rho == 1 else (1 - decay) / (1 - rho)
    return decay * initial + epsilon * total


def _jacobian(step: Callable[[Tensor], Tensor], state: Tensor) -> NDArray[np.float64]:
    """Jacobian [m, n] at a state [n]: row i is the gradient of output i in copy i."""
    with torch.no_grad():
        new = step(state[None]).shape[1]
    with torch.enable_grad():
        copies = state.detach().expand(new, -1).clone().requires_grad_()
        (rows,) = torch.autograd.grad(step(copies).diagonal().sum(), copies)
    return rows.double().cpu().numpy()
