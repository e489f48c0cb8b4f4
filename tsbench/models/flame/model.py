"""The FLAME network: contexts to a distribution over the horizon."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsbench.models.flame.heads import Head, HeadName, HorizonDistribution
from tsbench.models.flame.layers import EncoderLayer, PatchEmbedding
from tsbench.models.flame.legendre import legt_kernel, legt_memory
from tsbench.models.flame.state_space import DecoderLayer, LinearDecoder

DecoderName = Literal["legs", "linear"]

MAX_FUTURE_PATCHES = 32
"""Future patches of one pass."""

_LEGENDRE_WINDOW = 3  # in patches: what Local-Perception sees behind each patch's end
_RELATIVE_FLOOR = 1e-6  # smallest standard deviation, relative to the mean: below it is rounding noise
_TINY = 1e-30


@dataclass(frozen=True)
class FlameConfig:
    """Shape of the network.

    Attributes:
        width: Token width d, a multiple of 2 x heads.
        encoder_layers: Self-attention layers.
        decoder_layers: State-space layers with cross-attention.
        patch: Steps per token p.
        heads: Attention and state-space heads.
        state: State size of the state-space layers.
        legendre_order: Coefficients of Local-Perception's LegT memory; 0 leaves it out (ablation).
        decoder: "linear" replaces the LegS decoder (ablation).
        head: "gaussian" and "quantile" replace the flow (ablations).
        pinball_weight: Weight of the pinball loss beside the likelihood.
    """

    width: int = 128
    encoder_layers: int = 4
    decoder_layers: int = 3
    patch: int = 24
    heads: int = 8
    state: int = 16
    legendre_order: int = 16
    decoder: DecoderName = "legs"
    head: HeadName = "flow"
    pinball_weight: float = 1.0


SMALL = FlameConfig()
PRESETS = {
    "flame-small": SMALL,
    "flame-base": replace(SMALL, width=208, encoder_layers=5, decoder_layers=4),
    "flame-large": replace(SMALL, width=256, encoder_layers=6, decoder_layers=5),
}


@dataclass(frozen=True, eq=False)
class Forecast:
    """A distribution in normalised units and the way back to data units.

    Attributes:
        distribution: Over the H steps, normalised.
        mean: [B, 1] mean of each context.
        scale: [B, 1] standard deviation of each context.
    """

    distribution: HorizonDistribution
    mean: Tensor
    scale: Tensor

    def normalise(self, values: Tensor) -> Tensor:
        """Data units [B, H] -> normalised units."""
        return (values - self.mean) / self.scale

    def restore(self, values: Tensor) -> Tensor:
        """Normalised units [B, n, H] -> data units."""
        return self.mean.unsqueeze(1) + self.scale.unsqueeze(1) * values


class Flame(nn.Module):
    """Patch encoder with LegT memory, LegS decoder, flow head; channel-independent.

    Context [B, L] -> instance normalisation -> patches of p steps, left-padded -> tokens, each gated with
    the LegT memory of the last 3p steps -> self-attention -> [tokens; future queries] through state-space
    layers, future tokens attending to the encoder -> Re-Norm -> flow head over the steps.

    Re-Norm shifts and scales the forecast by what the pooled encoder state says, and lets it move between
    the context's mean and its last value.

    Args:
        config: Shape of the network.

    Source:
        FLAME (arXiv 2512.14253): abstract and model card. Patch length, layer sizes, how LegT enters, the
        state-space parametrisation, what Re-Norm computes, the kind of flow and the training are not
        published; they are ours, so results are not comparable with the paper's.
    """

    legendre: Tensor

    def __init__(self, config: FlameConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch
        self.embedding = PatchEmbedding(patch, width)
        if config.legendre_order:
            window = _LEGENDRE_WINDOW * patch
            kernel = legt_kernel(config.legendre_order, window, 2 * window)
            self.register_buffer("legendre", torch.from_numpy(kernel).float(), persistent=False)
            self.local = nn.Linear(config.legendre_order, width)
            self.local_gate = nn.Linear(2 * width, width)
        self.encoder = nn.ModuleList(EncoderLayer(width, config.heads) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width, bias=False)
        self.queries = nn.Parameter(0.02 * torch.randn(MAX_FUTURE_PATCHES, width))
        self.decoder = nn.ModuleList(
            [LinearDecoder(width)]
            if config.decoder == "linear"
            else [DecoderLayer(width, config.heads, config.state) for _ in range(config.decoder_layers)]
        )
        self.decoder_norm = nn.LayerNorm(width, bias=False)
        self.renorm = nn.Linear(2 * width, 3)
        nn.init.zeros_(self.renorm.weight)
        nn.init.zeros_(self.renorm.bias)
        self.head = Head(config.head, patch, width, config.pinball_weight)

    @property
    def max_horizon(self) -> int:
        """Steps forecast in one pass."""
        return MAX_FUTURE_PATCHES * self.config.patch

    def forward(self, context: Tensor, horizon: int) -> Forecast:
        """Forecast the steps after each context.

        Args:
            context: [B, L] float32, oldest first, NaN = missing. Any L from 1 on.
            horizon: H, 1 to `max_horizon`.

        Returns:
            The forecast; its first h steps do not depend on `horizon`.

        Raises:
            ValueError: The horizon is out of range.
        """
        if not 1 <= horizon <= self.max_horizon:
            raise ValueError(f"horizon {horizon} is not within 1..{self.max_horizon}")
        values, observed, mean, scale = normalise(context)
        encoded, seen = self._encode(values, observed)
        future = self._decode(encoded, seen, -(-horizon // self.config.patch))
        with torch.autocast(context.device.type, enabled=False):
            shift, log_scale = self._renorm(encoded.float(), seen, values, observed)
            distribution = self.head(future.float(), shift, log_scale, horizon)
        return Forecast(distribution, mean, scale)

    def embed(self, context: Tensor) -> Tensor:
        """Mean of the encoder's tokens that hold an observation, [B, L] -> [B, d] float32."""
        values, observed, _, _ = normalise(context)
        return _pool(*self._encode(values, observed)).float()

    def _encode(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, N, d] of normalised values [B, L], and which of them hold an observation [B, N]."""
        patch = self.config.patch
        padding = -values.shape[-1] % patch
        values = functional.pad(values, (padding, 0))
        observed = functional.pad(observed, (padding, 0))
        patches = torch.unflatten(observed, -1, (-1, patch))
        seen = patches.any(-1)
        seen = seen | ~seen.any(-1, keepdim=True)  # a row without any observation attends everywhere
        tokens = self.embedding(torch.unflatten(values, -1, (-1, patch)), patches)
        if self.config.legendre_order:
            local = self.local(legt_memory(values, self.legendre, patch).to(tokens.dtype))
            gate = torch.sigmoid(self.local_gate(torch.cat([tokens, local], dim=-1)))
            tokens = tokens + gate * local
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        mask = None if bool(seen.all()) else seen
        for layer in self.encoder:
            tokens = layer(tokens, positions, mask)
        return self.encoder_norm(tokens), seen

    def _decode(self, encoded: Tensor, seen: Tensor, future_patches: int) -> Tensor:
        """Future tokens [B, F, d]."""
        queries = self.queries[:future_patches]
        if self.config.decoder == "linear":
            return self.decoder_norm(self.decoder[0](_summary(encoded, seen), queries))  # type: ignore[no-any-return]
        length = encoded.shape[1]
        positions = torch.arange(length + future_patches, device=encoded.device)
        mask = None if bool(seen.all()) else seen
        tokens = torch.cat([encoded, queries.to(encoded.dtype).expand(len(encoded), -1, -1)], dim=1)
        for layer in self.decoder:
            tokens = layer(tokens, encoded, (positions[length:], positions[:length]), mask)
        return self.decoder_norm(tokens[:, length:])  # type: ignore[no-any-return]

    def _renorm(
        self, encoded: Tensor, seen: Tensor, values: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shift and logarithm of the scale of the forecast, [B, 1] each."""
        shift, log_scale, weight = self.renorm(_summary(encoded, seen)).float().split(1, dim=-1)
        return torch.sigmoid(weight) * _last_observed(values, observed) + shift, log_scale


def normalise(context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Instance normalisation over the observed steps.

    Args:
        context: [B, L], NaN = missing.

    Returns:
        Values [B, L] with mean 0 and standard deviation 1, missing ones 0; observed [B, L] bool; mean and
        standard deviation [B, 1]. A constant row has values 0; a row without observations mean 0.
    """
    observed = context.isfinite()
    known = torch.where(observed, context, 0.0)
    count = observed.sum(-1, keepdim=True).clamp_min(1)
    mean = known.sum(-1, keepdim=True) / count
    centred = torch.where(observed, known - mean, 0.0)
    deviation = (centred.square().sum(-1, keepdim=True) / count).sqrt()
    scale = torch.maximum(deviation, _RELATIVE_FLOOR * mean.abs()).clamp_min(_TINY)
    return centred / scale, observed, mean, scale


def _pool(tokens: Tensor, seen: Tensor) -> Tensor:
    """Mean [B, d] of the tokens that hold an observation."""
    weight = seen.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weight).sum(1) / weight.sum(1)


def _summary(encoded: Tensor, seen: Tensor) -> Tensor:
    """The encoder's last token and the mean of those that hold an observation, [B, 2d]."""
    return torch.cat([encoded[:, -1], _pool(encoded, seen)], dim=-1)


def _last_observed(values: Tensor, observed: Tensor) -> Tensor:
    """Latest observed value [B, 1]; 0 in a row without any."""
    steps = torch.arange(1, values.shape[-1] + 1, device=values.device)
    latest = (observed * steps).argmax(-1, keepdim=True)
    return values.gather(-1, latest)
