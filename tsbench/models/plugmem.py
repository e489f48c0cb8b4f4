"""PlugMem, the memory network of TS-Memory (arXiv 2602.11550): context in, quantiles of the future out."""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PlugMem", "PlugMemConfig", "PlugMemSize", "parameter_count"]

PlugMemSize = Literal["tiny", "small", "base", "large"]

_WIDTH_AND_DEPTH: dict[PlugMemSize, tuple[int, int, int]] = {
    "tiny": (128, 3, 1),
    "small": (192, 4, 1),
    "base": (256, 4, 2),
    "large": (320, 6, 2),
}
_TABLE_SCALE = 0.5
_LONGEST_WAVE = 4_000  # steps; beyond every lookback plus horizon in use
_SPARE_POSITIONS = 4  # the released position table is longer than the patch sequence by this many rows


@dataclass(frozen=True)
class PlugMemConfig:
    """Shape of a PlugMem network.

    Args:
        lookback: Context length L in steps.
        horizon: Steps forecast, H; the network also serves every shorter horizon.
        quantiles: Number of quantile levels Q.
        width: Token dimension d.
        encoder_layers: Transformer encoder layers over the patches.
        decoder_layers: Transformer decoder layers over the horizon queries.
        patch: Steps per patch p.
        heads: Attention heads; divides `width`.
        dropout: Dropout probability while training.

    Raises:
        ValueError: `heads` does not divide `width`, or a size is not positive.
    """

    lookback: int
    horizon: int
    quantiles: int = 9
    width: int = 256
    encoder_layers: int = 4
    decoder_layers: int = 2
    patch: int = 16
    heads: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.lookback, self.horizon, self.quantiles, self.width, self.patch, self.heads)
        if min(*sizes, self.encoder_layers, self.decoder_layers) < 1:
            raise ValueError(f"every size must be positive: {self}")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} must divide width {self.width}")

    @classmethod
    def preset(cls, size: PlugMemSize, lookback: int, horizon: int, quantiles: int = 9) -> Self:
        """Return the published size "small" (2.5M), "base" (5.5M) or "large" (10.9M), or "tiny" (0.9M).

        Source: TS-Memory, Table 16. The authors release the base configuration only; small and large are
        our inference, the configurations whose parameter counts at H=720 print as the published ones; tiny
        is ours, for training on a CPU.
        """
        width, encoder_layers, decoder_layers = _WIDTH_AND_DEPTH[size]
        return cls(lookback, horizon, quantiles, width, encoder_layers, decoder_layers)

    @property
    def patches(self) -> int:
        """Patch tokens per context, ceil(L / p)."""
        return -(-self.lookback // self.patch)


def parameter_count(config: PlugMemConfig) -> int:
    """Return the number of trainable parameters without building the network.

    n_enc (12 d² + 13 d) + n_dec (16 d² + 19 d) + (p + 1) d + (ceil(L/p) + 4) d + H d + Q (d + 1)
    """
    d = config.width
    encoder = config.encoder_layers * (12 * d * d + 13 * d)
    decoder = config.decoder_layers * (16 * d * d + 19 * d)
    tables = (config.patches + _SPARE_POSITIONS + config.horizon) * d
    return encoder + decoder + tables + (config.patch + 1) * d + config.quantiles * (d + 1)


class PlugMem(nn.Module):
    """Patch Transformer encoder and horizon-query decoder with a quantile head.

    Instance norm → patches → encoder → H learned queries attend to the patches → Q quantiles per step →
    inverse instance norm. Layers are pre-norm with GELU and no final norm, as released. The first decoder
    self-attention sees the queries alone, so it is computed once and broadcast over the batch; while
    training, the windows of a batch share its dropout mask. Attention weights are not dropped out (the
    released `nn.Transformer` layers do so): it would rule out fused attention kernels.

    Both learned tables start as sinusoids of time, patches before and steps after the forecast origin, so
    that a step finds the patches it resembles from the first update on. The released code starts them from
    N(0, 0.02): on ETTh1's validation split that needs far more steps than a CPU affords.

    Args:
        config: Shape of the network.

    Source: TS-Memory, section 4.2, appendix C.5 and the released code.
    """

    def __init__(self, config: PlugMemConfig) -> None:
        super().__init__()
        self.config = config
        d, rate = config.width, config.dropout
        self.embed_patch = nn.Linear(config.patch, d)
        self.positions = nn.Parameter(torch.empty(config.patches + _SPARE_POSITIONS, d))
        self.queries = nn.Parameter(torch.empty(config.horizon, d))
        self.encoder = nn.ModuleList(
            _EncoderLayer(d, config.heads, rate) for _ in range(config.encoder_layers)
        )
        self.decoder = nn.ModuleList(
            _DecoderLayer(d, config.heads, rate) for _ in range(config.decoder_layers)
        )
        self.head = nn.Linear(d, config.quantiles)
        self.dropout = _Dropout(rate)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patch_centres = (torch.arange(len(self.positions)) - config.patches + 0.5) * config.patch
        with torch.no_grad():
            self.positions.copy_(_TABLE_SCALE * _sinusoids(patch_centres, d))
            self.queries.copy_(_TABLE_SCALE * _sinusoids(torch.arange(config.horizon), d))

    def forward(self, context: Tensor, horizon: int | None = None) -> Tensor:
        """Forecast quantiles; neighbouring levels may cross.

        Args:
            context: [B, L] float32, oldest first, no NaN.
            horizon: Steps wanted, at most the trained horizon (the default); the first queries are used.
                The queries attend to each other, so this is not a prefix of the longer forecast.

        Returns:
            [B, Q, H] float32 in the units of `context`. A constant context yields its own value.

        Raises:
            ValueError: `context` is not [B, lookback], or `horizon` exceeds the trained one.

        Source: Eq. 2 and 10. The paper divides by σ + ε; like the released code we divide by σ and return
        the constant where σ = 0.
        """
        config = self.config
        horizon = config.horizon if horizon is None else horizon
        if context.ndim != 2 or context.shape[1] != config.lookback:
            raise ValueError(f"context must be [B, {config.lookback}], got {tuple(context.shape)}")
        if not 1 <= horizon <= config.horizon:
            raise ValueError(f"horizon must be 1 to {config.horizon}, got {horizon}")

        location, scale, constant = _instance_statistics(context)
        normalised = (context - location) / scale
        padded = F.pad(normalised, (config.patches * config.patch - config.lookback, 0))
        tokens = self.embed_patch(padded.view(-1, config.patches, config.patch))
        tokens = self.dropout(tokens + self.positions[: config.patches])
        for layer in self.encoder:
            tokens = layer(tokens)

        steps = self.queries[None, :horizon]
        for layer in self.decoder:
            steps = layer(steps, tokens)
        steps = self.dropout(steps)
        with torch.autocast(context.device.type, enabled=False):
            quantiles = self.head(steps.float()).transpose(1, 2)
        forecast = location[:, :, None] + scale[:, :, None] * quantiles
        return torch.where(constant[:, :, None], location[:, :, None], forecast)


def _sinusoids(steps: Tensor, width: int) -> Tensor:
    """Sines and cosines [N, width] of times in steps, with wavelengths from 2 to `_LONGEST_WAVE` steps."""
    frequency = torch.pi * (_LONGEST_WAVE / 2) ** -torch.linspace(0, 1, width // 2)
    angle = steps[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos(), torch.zeros(len(steps), width % 2)], dim=1)


def _instance_statistics(context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased standard deviation (1 where constant) and is-constant, each [B, 1]."""
    scale, mean = torch.std_mean(context, dim=1, correction=0, keepdim=True)
    constant = (context.amax(1, keepdim=True) == context.amin(1, keepdim=True)) | (scale == 0)
    return torch.where(constant, context[:, :1], mean), scale.masked_fill(constant, 1.0), constant


class _Attention(nn.Module):
    """Multi-head attention of queries [B or 1, N, d] over themselves or over a memory [B, M, d]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor | None = None) -> Tensor:
        if memory is None:
            q, k, v = self.in_proj(queries).chunk(3, dim=-1)
        else:
            d = queries.shape[-1]
            weight, bias = self.in_proj.weight, self.in_proj.bias
            q = F.linear(queries, weight[:d], bias[:d]).expand(len(memory), -1, -1)
            k, v = F.linear(memory, weight[d:], bias[d:]).chunk(2, dim=-1)
        q, k, v = (x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        attended: Tensor = self.out_proj(_attend(q, k, v).transpose(1, 2).flatten(2))
        return attended


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention; in float32 to train on a CPU, where the bfloat16 backward is slow."""
    if q.device.type == "cpu" and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    return F.scaled_dot_product_attention(q, k, v)


class _Dropout(nn.Module):
    """Dropout; on a CPU one random byte per element decides, which rounds the rate to 1/256."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        dropped = round(256 * self.rate)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        randoms = words.view(torch.uint8)[: x.numel()].view(x.shape)
        keep = torch.ge(randoms, dropped, out=torch.empty_like(x))
        return x * keep.mul_(256 / (256 - dropped))


def _feed_forward(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(), _Dropout(dropout), nn.Linear(4 * width, width)
    )


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.feed_forward = _feed_forward(width, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = _Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        x = x + self.dropout(self.feed_forward(self.norm2(x)))
        return x


class _DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = _Attention(width, heads)
        self.cross_attention = _Attention(width, heads)
        self.feed_forward = _feed_forward(width, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = _Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.norm1(x)))
        x = x + self.dropout(self.cross_attention(self.norm2(x), memory))
        x = x + self.dropout(self.feed_forward(self.norm3(x)))
        return x
