"""FLAME's decoder: a scaled-Legendre state-space layer and cross-attention to the encoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsbench.models.flame.layers import Attention, GatedFeedForward

_UNIT_SOFTPLUS = 0.5413248546129181  # softplus of it is 1


def log_time_steps(tokens: int, device: torch.device | None = None) -> Tensor:
    """log(k / (k - 1)) for the tokens k = 1 .. T, the step of LegS in logarithmic time; 0 for k = 1.

    The first token meets an empty memory, so its decay has no effect.

    Returns:
        [T] float32.
    """
    k = torch.arange(1, tokens + 1, dtype=torch.float32, device=device)
    return torch.log(k / (k - 1).clamp_min(1))


def scaled_memory(
    values: Tensor, write: Tensor, read: Tensor, log_decay: Tensor, input_gain: Tensor
) -> Tensor:
    """Run scalar-decay state-space heads over a sequence, as one masked matrix product.

    S_k = a_k S_{k-1} + g_k b_k v_k^T,   y_k = S_k^T c_k,   a_k = exp(log_decay_k)

    unrolled to y_i = sum_{j <= i} exp(sum_{j < m <= i} log a_m) (c_i . b_j) g_j v_j.

    Args:
        values: [B, heads, T, p] inputs v.
        write: [B, T, n] input directions b, shared by the heads.
        read: [B, T, n] output directions c, shared by the heads.
        log_decay: [B, heads, T] logarithm of the decay a.
        input_gain: [B, heads, T] gain g.

    Returns:
        [B, heads, T, p].

    Source:
        Structured state-space duality, Dao and Gu 2024 (arXiv 2405.21060), quadratic form: sequences here
        have under 100 tokens.
    """
    total = log_decay.cumsum(-1)
    causal = torch.ones(values.shape[-2], values.shape[-2], dtype=torch.bool, device=values.device).tril()
    passed = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~causal, -torch.inf)
    weights = passed.exp() * (read @ write.transpose(-1, -2)).unsqueeze(1)
    return (weights * input_gain.unsqueeze(-2)).to(values.dtype) @ values


class ScaledLegendreLayer(nn.Module):
    """State-space layer whose heads forget in logarithmic time, as LegS does.

    LegS keeps the Legendre coefficients of the whole history: dc/dt = -(1/t) A c + (1/t) B f, with the
    eigenvalues 1 .. N of A as its decay rates. The duality needs one scalar decay per head, so the dense A
    cannot be its state matrix; head r instead holds the mode dq/dt = -(r/t) q + (1/t) f, exactly
    discretised to a_k = ((k-1)/k)^r and gain (1 - a_k) / r. The modes 1 .. N span what the N Legendre
    coefficients span (`legendre.legs_moments_to_legendre`), and like them have no time scale of their own.
    Rates start at 1 .. heads and are learned; an input-dependent factor, 1 at the start, makes a token
    count for more or less time, as in Mamba.

    Args:
        width: Token width d.
        heads: State-space heads.
        state: State size n per head and value channel.

    Source:
        FLAME (arXiv 2512.14253) names an "SSD-Decoder based on LegS" without its parametrisation; this
        one is ours. LegS: HiPPO (arXiv 2008.07669).
    """

    def __init__(self, width: int, heads: int, state: int) -> None:
        super().__init__()
        self.heads, self.state = heads, state
        self.project = nn.Linear(width, 4 * width + 2 * state + heads, bias=False)
        self.log_rate = nn.Parameter(torch.arange(1.0, heads + 1).log())
        self.time_bias = nn.Parameter(torch.full((heads,), _UNIT_SOFTPLUS))
        self.skip = nn.Parameter(torch.ones(heads, 1, 1))
        self.norm = nn.LayerNorm(2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        nn.init.zeros_(self.project.weight[-heads:])

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d], causal."""
        inner = 2 * x.shape[-1]
        sizes = [inner, inner, self.state, self.state, self.heads]
        gate, values, write, read, time = self.project(x).split_with_sizes(sizes, dim=-1)
        values = values.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, p]
        elapsed = functional.softplus(time.float() + self.time_bias).transpose(1, 2)  # [B, heads, T]
        rate = self.log_rate.exp()[:, None]
        log_decay = -elapsed * rate * log_time_steps(x.shape[1], x.device)
        first = torch.arange(x.shape[1], device=x.device) == 0
        gain = torch.where(first, 1.0, -torch.expm1(log_decay)) / rate
        memory = scaled_memory(values, write.float(), read.float(), log_decay, gain)
        mixed = (memory + self.skip.to(values.dtype) * values).transpose(1, 2).flatten(2)
        return self.out(self.norm(mixed * functional.silu(gate)))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """State-space layer over context and future tokens; future tokens then attend to the encoder.

    Args:
        width: Token width d.
        heads: Attention and state-space heads.
        state: State size of the state-space layer.
    """

    def __init__(self, width: int, heads: int, state: int) -> None:
        super().__init__()
        self.memory_norm = nn.LayerNorm(width, bias=False)
        self.memory = ScaledLegendreLayer(width, heads, state)
        self.cross_norm = nn.LayerNorm(width, bias=False)
        self.cross = Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width, bias=False)
        self.feed = GatedFeedForward(width)

    def forward(
        self, x: Tensor, encoded: Tensor, positions: tuple[Tensor, Tensor], observed: Tensor | None
    ) -> Tensor:
        """Refine the sequence.

        Args:
            x: [B, N + F, d], context tokens then future tokens.
            encoded: [B, N, d], the encoder's output.
            positions: [F] and [N], positions of future and context tokens.
            observed: [B, N] bool; None: all tokens are observed.

        Returns:
            [B, N + F, d]. A future token depends on no later one.
        """
        x = x + self.memory(self.memory_norm(x))
        context, future = x.tensor_split([encoded.shape[1]], dim=1)
        future = future + self.cross(self.cross_norm(future), encoded, positions, observed)
        future = future + self.feed(self.feed_norm(future))
        return torch.cat([context, future], dim=1)


class LinearDecoder(nn.Module):
    """Ablation: future tokens are their queries plus one linear map of the encoder's summary.

    Args:
        width: Token width d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read_out = nn.Linear(2 * width, width)

    def forward(self, summary: Tensor, queries: Tensor) -> Tensor:
        """Summary [B, 2d] and queries [F, d] -> future tokens [B, F, d]."""
        return queries + self.read_out(summary).unsqueeze(1)  # type: ignore[no-any-return]
