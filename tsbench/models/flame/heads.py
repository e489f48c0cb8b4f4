"""What FLAME says about the future: a normalizing flow, and the two heads it is compared with.

Every head turns future tokens into a distribution over steps in normalised units. Distributions share
`loss`, `quantiles` and `sample`; only the flow's samples are joint over steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional
from zuko.transforms import MonotonicRQSTransform

from tsbench.metrics.quantile import pinball_loss

HeadName = Literal["flow", "gaussian", "quantile"]

HEAD_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the quantile head."""

PINBALL_LEVELS = (0.1, 0.5, 0.9)
"""Levels of the pinball loss beside a likelihood, which already shapes what lies between them."""

_BINS = 10
_BOUND = 6.0  # the spline acts within this many scales of the location, and is the identity beyond
_SMALLEST_SCALE = 5e-3  # of the context's standard deviation
_LARGEST_CORRELATION = 0.995


class HorizonDistribution(Protocol):
    """A distribution over H future steps of B series."""

    def loss(self, target: Tensor) -> Tensor:
        """Training loss of targets [B, H], averaged to a scalar."""

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """[B, Q, H] at ascending levels, ascending along Q."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """[B, n, H] draws; deterministic given the generator's state."""


@dataclass(frozen=True, eq=False)
class FlowDistribution:
    """Density of a path y under a conditional flow from standard normal noise u.

    y_i = loc_i + scale_i g(z_i),   z_i = rho_i z_{i-1} + sqrt(1 - rho_i^2) u_i,   u ~ N(0, I)

    g is a monotone rational-quadratic spline, one per patch. Each z_i is standard normal by itself, so every
    step's quantiles are exact: loc_i + scale_i g(Phi^-1(q)), monotone in q, without sampling; and the chain
    over all steps keeps sampled paths coherent within and across patches.

    Attributes:
        location: [B, H].
        scale: [B, H], positive.
        correlation: [B, H] rho in (-1, 1); the first step has none.
        patch: Steps p that share a spline.
        spline: Maps (y - loc) / scale to z, one per patch: knots [B, ceil(H / p), 1, K]. Float64: in float32
            steep splines invert to NaN and to crossing quantiles.
        pinball_weight: Weight of the pinball loss of the flow's own quantiles beside the likelihood.

    Source:
        Splines: Durkan et al. 2019 (arXiv 1906.04032). FLAME (arXiv 2512.14253) says "normalizing flow"
        and no more. Affine couplings were not taken: their marginals need sampling, which makes every
        quantile noisy and a CPU query slow.
    """

    location: Tensor
    scale: Tensor
    correlation: Tensor
    patch: int
    spline: MonotonicRQSTransform
    pinball_weight: float = 0.0

    def log_density(self, target: Tensor) -> Tensor:
        """Logarithm of each step's density given the earlier steps, [B, H]; their sum is log p(y)."""
        deviation = self._by_patch((target - self.location) / self.scale)
        z, log_slope = (self._by_step(part) for part in self.spline.call_and_ladj(deviation))
        noise_scale = self._noise_scale()
        noise = (z - self.correlation * functional.pad(z[:, :-1], (1, 0))) / noise_scale
        log_normal = -0.5 * noise.square() - 0.5 * math.log(2 * math.pi)
        return log_normal + log_slope - noise_scale.log() - self.scale.log()

    def loss(self, target: Tensor) -> Tensor:
        """Negative log-likelihood per step, plus the weighted pinball loss."""
        loss = -self.log_density(target).mean()
        if self.pinball_weight:
            loss = loss + self.pinball_weight * _pinball(
                target, self.quantiles(PINBALL_LEVELS), PINBALL_LEVELS
            )
        return loss

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """[B, Q, H]; exact."""
        probability = torch.tensor(levels, dtype=self.location.dtype, device=self.location.device)
        z = torch.special.ndtri(probability).double()[:, None, None, None]
        deviation = self._by_step(self.spline.inv(z).expand(-1, -1, -1, self.patch))
        return (self.location + self.scale * deviation).movedim(0, 1)

    def noise_to_path(self, noise: Tensor) -> Tensor:
        """Standard normal noise [..., B, H] -> paths [..., B, H]; the inverse of the density's map."""
        driven = self._noise_scale() * noise
        chain = [driven[..., 0]]
        for correlation, step in zip(self.correlation.T[1:], driven.movedim(-1, 0)[1:], strict=True):
            chain.append(correlation * chain[-1] + step)
        deviation = self._by_step(self.spline.inv(self._by_patch(torch.stack(chain, dim=-1))))
        return self.location + self.scale * deviation

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """[B, n, H] paths."""
        noise = _normal((n, *self.location.shape), self.location, generator)
        return self.noise_to_path(noise).movedim(0, 1)

    def _by_patch(self, steps: Tensor) -> Tensor:
        """[..., H] -> [..., ceil(H / p), p] float64; what lacks of the last patch is 0."""
        padded = functional.pad(steps, (0, -steps.shape[-1] % self.patch))
        return torch.unflatten(padded.double(), -1, (-1, self.patch))

    def _by_step(self, patches: Tensor) -> Tensor:
        """[..., ceil(H / p), p] -> [..., H]."""
        return patches.flatten(-2)[..., : self.location.shape[-1]].to(self.location.dtype)

    def _noise_scale(self) -> Tensor:
        return (1 - self.correlation.square()).sqrt()


@dataclass(frozen=True, eq=False)
class GaussianDistribution:
    """Independent normal steps, trained by likelihood: the ablation without a flow.

    Attributes:
        location: [B, H].
        scale: [B, H], positive.
        pinball_weight: As in `FlowDistribution`.
    """

    location: Tensor
    scale: Tensor
    pinball_weight: float = 0.0

    def loss(self, target: Tensor) -> Tensor:
        """Negative log-likelihood per step, plus the weighted pinball loss."""
        loss = functional.gaussian_nll_loss(self.location, target, self.scale.square(), full=True, eps=1e-12)
        if self.pinball_weight:
            loss = loss + self.pinball_weight * _pinball(
                target, self.quantiles(PINBALL_LEVELS), PINBALL_LEVELS
            )
        return loss

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """[B, Q, H]; exact."""
        probability = torch.tensor(levels, dtype=self.location.dtype, device=self.location.device)
        z: Tensor = torch.special.ndtri(probability)[:, None]
        return self.location.unsqueeze(1) + self.scale.unsqueeze(1) * z

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """[B, n, H], independent over steps."""
        noise = _normal((n, *self.location.shape), self.location, generator)
        return (self.location + self.scale * noise).movedim(0, 1)


@dataclass(frozen=True, eq=False)
class QuantileDistribution:
    """Nine quantiles per step, trained by the pinball loss: the ablation without a density.

    Attributes:
        values: [B, 9, H] at `HEAD_LEVELS`, as the network gave them.
    """

    values: Tensor

    def loss(self, target: Tensor) -> Tensor:
        """Twice the pinball loss, mean over levels and steps."""
        return _pinball(target, self.values, HEAD_LEVELS)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """[B, Q, H] after sorting; linear between levels, clamped outside 0.1 .. 0.9."""
        wanted = torch.tensor(levels, dtype=self.values.dtype, device=self.values.device)
        known = torch.tensor(HEAD_LEVELS, dtype=self.values.dtype, device=self.values.device)
        place = torch.searchsorted(known, wanted).clamp(1, len(HEAD_LEVELS) - 1)
        share = ((wanted - known[place - 1]) / (known[place] - known[place - 1])).clamp(0, 1)[:, None]
        ascending = self.values.sort(dim=1).values
        return ascending[:, place - 1] * (1 - share) + ascending[:, place] * share

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """[B, n, H], independent over steps; no draw lies beyond the outer levels."""
        batch, _, steps = self.values.shape
        uniform = torch.rand(batch, n, steps, generator=generator, device=self.values.device)
        position = ((uniform - HEAD_LEVELS[0]) * 10).clamp(0, len(HEAD_LEVELS) - 1)
        below = position.floor().clamp_max(len(HEAD_LEVELS) - 2).long()
        ascending = self.values.sort(dim=1).values
        low, high = ascending.gather(1, below), ascending.gather(1, below + 1)
        return low + (position - below) * (high - low)


class Head(nn.Module):
    """Future tokens to a distribution over their steps.

    Args:
        kind: Family of the distribution.
        patch: Steps per token p.
        width: Token width d.
        pinball_weight: Weight of the pinball loss beside the likelihood.
    """

    def __init__(self, kind: HeadName, patch: int, width: int, pinball_weight: float) -> None:
        super().__init__()
        self.kind, self.patch, self.pinball_weight = kind, patch, pinball_weight
        outputs = {"flow": 3 * patch + 3 * _BINS - 1, "gaussian": 2 * patch, "quantile": 9 * patch}[kind]
        self.hidden = nn.Linear(width, 2 * width)
        self.skip = nn.Linear(width, outputs)
        self.out = nn.Linear(2 * width, outputs, bias=False)

    def forward(self, tokens: Tensor, shift: Tensor, log_scale: Tensor, horizon: int) -> HorizonDistribution:
        """Distribution over the first `horizon` steps.

        Args:
            tokens: [B, F, d] future tokens, F p >= horizon.
            shift: [B, 1], added to every location.
            log_scale: [B, 1], logarithm of a factor of every deviation from the shift.
            horizon: H, steps kept.
        """
        raw = (self.skip(tokens) + self.out(functional.silu(self.hidden(tokens)))).float()
        shift, factor = shift.float(), log_scale.float().exp()
        if self.kind == "quantile":
            values = raw.unflatten(-1, (len(HEAD_LEVELS), self.patch)).transpose(1, 2).flatten(2)
            return QuantileDistribution(shift.unsqueeze(1) + factor.unsqueeze(1) * values[..., :horizon])
        location = shift + factor * self._steps(raw, 0, horizon)
        scale = factor * functional.softplus(self._steps(raw, 1, horizon)) + _SMALLEST_SCALE
        if self.kind == "gaussian":
            return GaussianDistribution(location, scale, self.pinball_weight)
        if self.kind == "flow":
            correlation = _LARGEST_CORRELATION * torch.tanh(self._steps(raw, 2, horizon))
            correlation = functional.pad(correlation[:, 1:], (1, 0))
            knots = raw[..., 3 * self.patch :].double().unsqueeze(-2)
            spline = MonotonicRQSTransform(
                *knots.split_with_sizes([_BINS, _BINS, _BINS - 1], dim=-1), bound=_BOUND
            )
            return FlowDistribution(location, scale, correlation, self.patch, spline, self.pinball_weight)
        assert_never(self.kind)

    def _steps(self, raw: Tensor, index: int, horizon: int) -> Tensor:
        """[B, horizon], the index-th number of every step."""
        part = raw[..., index * self.patch : (index + 1) * self.patch]
        return part.flatten(1)[:, :horizon]


def _pinball(target: Tensor, quantiles: Tensor, levels: Sequence[float]) -> Tensor:
    """Twice the pinball loss, mean over levels, steps and series."""
    return 2 * pinball_loss(target, quantiles, levels).mean()


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
