"""Legendre memories (HiPPO): a history as coefficients of orthonormal Legendre polynomials.

A history f over an interval, rescaled to x in [0, 1] with 0 the oldest instant, is kept as

    c_n = ∫₀¹ f(x) φ_n(x) dx,    φ_n(x) = √(2n+1) P_n(2x − 1),    f ≈ Σ_n c_n φ_n,    n < N.

LegT slides over the last `window` steps; LegS stretches over everything seen so far. Both states solve a
linear ODE and are linear in the samples, so both memories run as one product with a fixed kernel that is
built here in float64. Both ODEs map the constant series 1 to the state e₀, hence A e₀ = B.

Source: Gu et al. 2020, HiPPO (arXiv 2008.07669), appendix D; Voelker et al. 2019, Legendre Memory Units,
whose state is m_n = (−1)^n √(2n+1) c_n. FLAME (arXiv 2512.14253) reads the context through LegT and
decodes through LegS; the kernels below are ours.
"""

from typing import Literal

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import comb
from torch import Tensor
from torch.nn import functional as F

from tsbench.errors import TsbenchError

__all__ = [
    "Discretisation",
    "legendre_readout",
    "legs_kernel",
    "legs_matrices",
    "legs_memory",
    "legs_moments_to_legendre",
    "legt_kernel",
    "legt_matrices",
    "legt_memory",
]

Discretisation = Literal["zoh", "bilinear", "euler"]


def legs_matrices(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A and B of the LegS memory, dc/dt = −(1/t) A c + (1/t) B f.

    A_nk = √((2n+1)(2k+1)) if n > k; n + 1 if n = k; 0 if n < k.    B_n = √(2n+1).

    Args:
        order: Number of coefficients N.

    Returns:
        A [N, N] and B [N], float64.

    Raises:
        ValueError: `order` is not positive.

    Source: HiPPO, theorem 2.
    """
    b = _norms(order)
    return np.tril(np.outer(b, b), -1) + np.diag(np.arange(1.0, order + 1)), b


def legt_matrices(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A and B of the LegT memory over a window θ, dc/dt = −(1/θ) A c + (1/θ) B f.

    A_nk = √((2n+1)(2k+1)) if n ≥ k; (−1)^(n−k) √((2n+1)(2k+1)) if n < k.    B_n = √(2n+1).

    Args:
        order: Number of coefficients N.

    Returns:
        A [N, N] and B [N], float64.

    Raises:
        ValueError: `order` is not positive.

    Source: HiPPO, appendix D.1, in the orthonormal basis (λ_n = 1); its theorem 1 prints the LMU scaling.
    """
    b = _norms(order)
    signs = (-1.0) ** np.arange(order)
    outer = np.outer(b, b)
    return np.tril(outer) + np.triu(outer * np.outer(signs, signs), 1), b


def legt_kernel(
    order: int, window: float, length: int, discretisation: Discretisation = "zoh"
) -> NDArray[np.float64]:
    """Return the impulse response of the LegT memory, one row per lag.

    kernel[j] = Ā^j B̄, so that c(t) = Σ_j kernel[j] f(t − j). With D = A / window, Ā is exp(−D) for "zoh",
    (I + D/2)⁻¹ (I − D/2) for "bilinear" and I − D for "euler"; B̄ = (I − Ā) e₀ for all three.

    LegT forgets what leaves the window by reading it back from its own state, so the response does not end
    with the window: at order 16 the rows beyond 1, 1.5 and 2 windows hold 9%, 0.1% and 0.006% of its norm.
    A kernel of `length` rows drops what follows them.

    Args:
        order: Number of coefficients N.
        window: Width θ of the sliding window in steps, positive.
        length: Lags kept.
        discretisation: "zoh" holds each sample for one step and is then exact; "euler" is the rule
            reported for FLAME.

    Returns:
        Kernel [length, order], float64; row 0 weighs the newest sample.

    Raises:
        TsbenchError: "euler" diverges at this order and window. The window must exceed about 5, 18, 60 and
            197 steps for order 4, 8, 16 and 32.
        ValueError: A size is not positive.

    Source: the rules are those HiPPO's appendix on discretisation compares. Our default is "zoh", stable for
    every order and window.
    """
    if window <= 0 or length < 1:
        raise ValueError(f"window and length must be positive, got {window} and {length}")
    power = _legt_transition(order, window, discretisation)
    kernel = np.eye(1, order) - power[:, :1].T
    while len(kernel) < length:  # rows 0..m−1 and Ā^m give rows m..2m−1
        kernel = np.concatenate([kernel, kernel @ power.T])
        power = power @ power
    return kernel[:length]


def legt_memory(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Return the LegT state after each complete patch of `stride` steps.

    The series is zero before its first sample; steps after the last complete patch are not read.

    Args:
        x: Series [B, T], oldest first, T ≥ stride.
        kernel: `legt_kernel` as a tensor [length, order] of x's dtype and device.
        stride: Steps per patch.

    Returns:
        States [B, T // stride, order]; state i has read x[:, : (i + 1) · stride].
    """
    padded = F.pad(x, (len(kernel) - stride, 0))  # a negative pad drops the steps no state reads
    states = F.conv1d(padded.unsqueeze(1), kernel.flip(0).T.unsqueeze(1), stride=stride)
    return states.transpose(1, 2)


def legs_kernel(steps: int, order: int) -> NDArray[np.float64]:
    """Return the weights of the samples in every LegS state of a series.

    Each sample is held for one step, which makes the projection an integral of Legendre polynomials,

    kernel[t, s, n] = √(2n+1)/2 ∫ P_n(u) du  from  2s/(t+1) − 1  to  2(s+1)/(t+1) − 1,  0 for s > t,

    with ∫ P_n = (P_{n+1} − P_{n−1}) / (2n+1). The recurrence c ← E c + (I − E) e₀ f, E = exp(−A ln((t+1)/t)),
    which holds each sample in log time, gives the same one step at a time. Kernels are nested: the first T
    rows and columns of a longer kernel are the kernel of T steps.

    Args:
        steps: Longest series T.
        order: Number of coefficients N.

    Returns:
        Kernel [steps, steps, order], float64; samples @ kernel[t] is the state after t + 1 samples.

    Raises:
        ValueError: A size is not positive.

    Source: the projection that defines LegS (HiPPO, appendix D.3), integrated exactly; HiPPO itself steps
    through a bilinear recurrence, which drifts from the projection as the order grows.
    """
    norms = _norms(order)
    if steps < 1:
        raise ValueError(f"steps must be positive, got {steps}")
    ends = np.arange(1, steps + 1)
    edges = np.minimum(np.arange(steps + 1) / ends[:, None], 1.0)  # samples after t have no width
    legendre = legvander(2 * edges - 1, order)
    integrals = np.empty((steps, steps + 1, order))
    integrals[..., 0] = legendre[..., 1]
    integrals[..., 1:] = (legendre[..., 2:] - legendre[..., :-2]) / norms[1:] ** 2
    return np.diff(integrals, axis=1) * norms / 2


def legs_memory(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the LegS state after every step: each feature's whole past as Legendre coefficients.

    Args:
        x: Sequence [B, T, D], oldest first.
        kernel: `legs_kernel` as a tensor [T, T, order] of x's dtype and device.

    Returns:
        States [B, T, order, D]; state t has read x[:, : t + 1].
    """
    return torch.einsum("tsn,bsd->btnd", kernel, x)


def legs_moments_to_legendre(order: int) -> NDArray[np.float64]:
    """Return the matrix M that turns relative-time moments into LegS coefficients, c = M q.

    q_r(t) = (1/t) ∫₀ᵗ f(x) (x/t)^(r−1) dx, r = 1..N, obeys dq_r/dt = −(r/t) q_r + (1/t) f: it is the state of
    a scalar-decay head with rate r in log time. As

    M_nk = √(2n+1) (−1)^(n+k) C(n, k) C(n+k, k)

    is invertible, N such heads with rates 1..N span exactly what LegS of order N holds. The columns of M are
    the eigenvectors of the LegS matrix, A M = M diag(1..N). Monomials are ill-conditioned, M grows like
    5.8^N: use it up to N ≈ 8 in float64 and far less in float32; beyond, keep the coefficients themselves.

    Args:
        order: Number of moments and coefficients N.

    Returns:
        M [N, N], float64, lower triangular.

    Raises:
        ValueError: `order` is not positive.

    Source: the monomial coefficients of the shifted Legendre polynomials.
    """
    norms = _norms(order)
    n, k = np.ogrid[:order, :order]
    matrix: NDArray[np.float64] = norms[:, None] * (-1.0) ** (n + k) * comb(n, k) * comb(n + k, k)
    return matrix


def legendre_readout(order: int, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the basis φ_n(x) = √(2n+1) P_n(2x − 1) that reads a history back from its coefficients.

    Args:
        order: Number of coefficients N.
        positions: Positions [M] in [0, 1]; 0 is the oldest instant remembered, 1 the newest.

    Returns:
        Readout [M, order], float64; readout @ c is the history at `positions`.

    Raises:
        ValueError: `order` is not positive.
    """
    readout: NDArray[np.float64] = _norms(order) * legvander(2 * positions - 1, order - 1)
    return readout


def _norms(order: int) -> NDArray[np.float64]:
    """Return √(2n+1), which makes P_n(2x − 1) orthonormal on [0, 1]."""
    if order < 1:
        raise ValueError(f"order must be positive, got {order}")
    norms: NDArray[np.float64] = np.sqrt(np.arange(1.0, 2 * order, 2))
    return norms


def _legt_transition(order: int, window: float, discretisation: Discretisation) -> NDArray[np.float64]:
    """Return Ā, which carries the LegT state over one step without input."""
    identity = np.eye(order)
    step = legt_matrices(order)[0] / window
    if discretisation == "zoh":
        return np.asarray(expm(-step), dtype=np.float64)
    if discretisation == "bilinear":
        return np.asarray(np.linalg.solve(identity + step / 2, identity - step / 2), dtype=np.float64)
    transition = identity - step
    if np.abs(np.linalg.eigvals(transition)).max() >= 1:
        raise TsbenchError(
            f"Euler steps diverge for LegT order {order} and window {window:g}; use 'zoh' or a wider window"
        )
    return transition
