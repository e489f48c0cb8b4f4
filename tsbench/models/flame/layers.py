"""Attention, feed-forward and patch layers shared by FLAME's encoder and decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROTARY_BASE = 100.0
"""Slowest rotary wavelength is about 2π times this: sequences here have under 100 tokens."""


def rotary_angles(positions: Tensor, width: int) -> Tensor:
    """Rotary angles of token positions.

    Args:
        positions: [T], in tokens.
        width: Width of a head, even.

    Returns:
        [T, width // 2] float32 radians.

    Source:
        Su et al. 2021 (arXiv 2104.09864); base 100 instead of 10,000 because sequences are short.
    """
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    return positions.float()[:, None] * _ROTARY_BASE**-exponent


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of the last axis by its angle.

    Args:
        x: [..., T, width].
        angles: [T, width // 2].
    """
    first, second = x.chunk(2, dim=-1)
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions; queries and memory may be different sequences.

    Args:
        width: Token width d.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        positions: tuple[Tensor, Tensor],
        observed: Tensor | None = None,
    ) -> Tensor:
        """Attend from every token of x to every observed token of memory.

        Args:
            x: [B, T, d] queries.
            memory: [B, S, d] keys and values.
            positions: [T] and [S], token positions of x and memory on one axis.
            observed: [B, S] bool, False where a memory token holds no observation; None: all do. A row
                needs one True.

        Returns:
            [B, T, d].
        """
        query, (key, value) = self.query(x), self.key_value(memory).chunk(2, dim=-1)
        query = self._split(rotate(query, self._angles(positions[0])))
        key = self._split(rotate(key, self._angles(positions[1])))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if observed is not None:
            scores = scores.masked_fill(~observed[:, None, None, :], -torch.inf)
        attended = scores.softmax(-1).to(value.dtype) @ self._split(value)
        return self.out(attended.permute(0, 2, 3, 1).flatten(2))  # type: ignore[no-any-return]

    def _angles(self, positions: Tensor) -> Tensor:
        """Angles [T, d / 2] of all heads: rotating before the split keeps the inner axis long, hence fast."""
        angles = rotary_angles(positions, self.out.in_features // self.heads)
        return angles.repeat_interleave(self.heads, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, heads, T, d / heads]; neighbouring entries belong to different heads."""
        return torch.unflatten(x, -1, (-1, self.heads)).permute(0, 3, 1, 2)


class GatedFeedForward(nn.Module):
    """SwiGLU feed-forward layer of hidden width 2d (Shazeer 2020, arXiv 2002.05202).

    Args:
        width: Token width d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward, bidirectional.

    Args:
        width: Token width d.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width, bias=False)
        self.feed = GatedFeedForward(width)

    def forward(self, x: Tensor, positions: Tensor, observed: Tensor | None) -> Tensor:
        """[B, N, d] -> [B, N, d]; see `Attention.forward` for positions [N] and observed [B, N]."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, (positions, positions), observed)
        return x + self.feed(self.feed_norm(x))  # type: ignore[no-any-return]


class PatchEmbedding(nn.Module):
    """Residual two-layer embedding of a patch and of which of its steps are observed.

    Args:
        patch: Steps per patch p.
        width: Token width d.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.skip = nn.Linear(2 * patch, width)
        self.hidden = nn.Linear(2 * patch, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """[B, N, p] values (0 where missing) and [B, N, p] bool -> tokens [B, N, d]."""
        steps = torch.cat([values, observed.to(values.dtype)], dim=-1)
        return self.skip(steps) + self.out(functional.silu(self.hidden(steps)))  # type: ignore[no-any-return]
