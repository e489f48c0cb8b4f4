"""A fast evaluation of fracast's encoder and head, numerically equal to the package's own.

fracast always encodes 2,048 positions: a shorter context is padded on the left with masked zeros. The
encoder is causal and its only global input is a tuple of up to four detected periods, so every
activation at a padded position depends on that tuple alone, not on the series. Windows that share a
period tuple (neighbouring windows nearly always do) share those activations: they are computed once,
cached per tuple, and each row then costs only its observed positions (512 of 2,048 at lookback 512).

Activations are kept position-major, [positions, rows, width]: a dilated tap is then a contiguous slice,
and the depthwise filter is three fused multiply-adds instead of a padded convolution and two transposes.
Rows are processed in tiles small enough that one stage's activations stay in the second-level cache;
what remains is bound by the 64-wide matrix products of the feed-forward blocks.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F

from tsbench.errors import TsbenchError

# Activations per tile: 2,048 positions x 192 channels x 4 bytes = 1.5 MB, one core's second-level cache.
_TILE_POSITIONS = 2048
# A cached period tuple holds 2 * (1 + 2 + ... + 512) positions x 64 channels, 0.7 MB at lookback 512.
_MAX_CACHED_TUPLES = 768
_MIN_OBSERVED = 8


@dataclass(frozen=True)
class _Stage:
    """One dilated block with its scale conditioning folded into the neighbouring normalisation."""

    dilation: int
    taps: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # oldest first, each [D]
    tap_bias: torch.Tensor
    pointwise: torch.Tensor  # [D, D]
    pointwise_bias: torch.Tensor
    norm1: torch.Tensor
    up: torch.Tensor  # [D, 2F]
    up_bias: torch.Tensor
    down: torch.Tensor  # [F, D]
    down_bias: torch.Tensor
    norm2: torch.Tensor  # times the next stage's FiLM gain
    shift: torch.Tensor | None  # the next stage's FiLM offset


def _stages(block: Any, dilations: list[int], films: list[tuple[torch.Tensor, torch.Tensor]]) -> list[_Stage]:
    """Stages of one shared block; films[i] scales the input of stage i and is applied by stage i-1."""
    taps = block.dw_weight[:, 0, :]
    stages = []
    for index, dilation in enumerate(dilations):
        gain, offset = films[index + 1] if index + 1 < len(films) else (None, None)
        norm2 = block.norm2.weight if gain is None else block.norm2.weight * gain
        stages.append(
            _Stage(
                dilation=dilation,
                taps=(taps[:, 0].contiguous(), taps[:, 1].contiguous(), taps[:, 2].contiguous()),
                tap_bias=block.dw_bias,
                pointwise=block.pw.weight.t().contiguous(),
                pointwise_bias=block.pw.bias,
                norm1=block.norm1.weight,
                up=block.ffn.up.weight.t().contiguous(),
                up_bias=block.ffn.up.bias,
                down=block.ffn.down.weight.t().contiguous(),
                down_bias=block.ffn.down.bias,
                norm2=norm2,
                shift=offset,
            )
        )
    return stages


def _run_stage(stage: _Stage, padded: torch.Tensor) -> torch.Tensor:
    """One block on position-major activations.

    Args:
        stage: Folded weights.
        padded: [2 * dilation + P, rows, D]: left context, then the P positions to compute.

    Returns:
        [P, rows, D], the input of the next stage.
    """
    d = stage.dilation
    x = padded[2 * d :]
    oldest, middle, newest = stage.taps
    y = torch.addcmul(stage.tap_bias, x, newest)
    y.addcmul_(padded[d:-d], middle).addcmul_(padded[: -2 * d], oldest)
    width = x.shape[-1]
    flat = torch.addmm(stage.pointwise_bias, y.view(-1, width), stage.pointwise).add_(x.reshape(-1, width))
    flat = F.rms_norm(flat, (width,), stage.norm1)
    gate, value = torch.addmm(stage.up_bias, flat, stage.up).chunk(2, dim=-1)
    hidden = F.silu(gate).mul_(value)
    flat = torch.addmm(stage.down_bias, hidden, stage.down).add_(flat)
    flat = F.rms_norm(flat, (width,), stage.norm2)
    if stage.shift is not None:
        flat.add_(stage.shift)
    return flat.view(x.shape)


def _film(scale: Any, dilation: int) -> tuple[torch.Tensor, torch.Tensor]:
    """FiLM gain and offset [D] of the stage with this dilation."""
    weight = scale.to_gb.weight
    feature = scale.scale_feat(dilation, device=weight.device, dtype=weight.dtype)
    gain, offset = scale.to_gb(feature).chunk(2, dim=-1)
    return 1.0 + gain, offset


@dataclass(frozen=True)
class _Prefix:
    """What the padded positions contribute to any row with one period tuple."""

    left_context: list[torch.Tensor]  # per stage [2 * dilation, D]
    hidden_sum: torch.Tensor  # [D], sum of the encoder's outputs over the padded positions
    observed_input: torch.Tensor  # [S, D], encoder input at the observed positions, without the values


@dataclass(frozen=True)
class Encoded:
    """Encoder summary of a batch of contexts.

    Attributes:
        mean: [B, D], mean of the encoder's outputs over all 2,048 positions.
        last: [B, D], output at the last position.
        tail: [B, S', D], outputs at the last positions, as many as the forecast head reads.
        periods: [B, K] detected periods in steps, 0 where none.
        values: [B, S] normalised observed values, 0 where missing.
        observed: [B, S] bool.
        loc: [B, 1] minimum of the context.
        span: [B, 1] range of the context, at least 1e-5.
    """

    mean: torch.Tensor
    last: torch.Tensor
    tail: torch.Tensor
    periods: torch.Tensor
    values: torch.Tensor
    observed: torch.Tensor
    loc: torch.Tensor
    span: torch.Tensor

    def rows(self, selection: slice) -> "Encoded":
        """The same for some rows of the batch."""
        return Encoded(*(getattr(self, field.name)[selection] for field in fields(self)))


class FracastEncoder:
    """fracast's network, evaluated with shared prefixes.

    Args:
        model: A loaded `fracast.FracastModel` with fp32 weights, on the CPU or a GPU.
    """

    def __init__(self, model: Any):
        from fracast._core.periodic.official_encoding import _recency_encoding

        core, head = model.core, model.head
        self.positions = int(core.W)
        self.block = int(model.horizon)
        self._core, self._head = core, head
        self._device = model.device
        with torch.no_grad():
            films = [_film(core.scale, dilation) for dilation in core.dilations()]
            self._first_film = films[0]
            self._stages = _stages(core.block, core.dilations(), films)
            future = head.future_conv
            dilations = [future.dilation_base**i for i in range(future.n_layers)]
            self._future_stages = _stages(future.block, dilations, [])
            where = torch.arange(self.positions + self.block, device=self._device).unsqueeze(0)
            recency = _recency_encoding(where, self.positions)[0]
            weight = core.in_proj.weight
            self._value_weight, self._coverage_weight = weight[:, 0].contiguous(), weight[:, 1].contiguous()
            self._static_input = recency[: self.positions] @ weight[:, 2:].t() + core.in_proj.bias
            self._future_recency = recency[self.positions :]
        self._tail = int(future.seed)
        self._prefixes: OrderedDict[tuple[int, ...], _Prefix] = OrderedDict()

    def encode(self, context: torch.Tensor) -> Encoded:
        """Run the encoder.

        Args:
            context: [B, L] float32, oldest first, NaN = missing; the last 2,048 points are used.

        Returns:
            The summary the forecast head reads.

        Raises:
            TsbenchError: A row has fewer than 8 finite values.
        """
        values, observed, loc, span = self._normalise(context)
        periods = self._periods(values, observed)
        keys = [tuple(row) for row in periods.tolist()]
        order = sorted(range(len(keys)), key=keys.__getitem__)  # equal tuples share a tile
        rows, size = values.shape
        width = self._value_weight.shape[0]
        mean = values.new_empty(rows, width)
        tail = values.new_empty(rows, self._tail, width)
        tile = max(1, _TILE_POSITIONS // size)
        for start in range(0, rows, tile):
            members = order[start : start + tile]
            prefixes = [self._prefix(keys[row], self.positions - size) for row in members]
            hidden = self._observed_positions(values[members], observed[members], prefixes)
            total = hidden.sum(dim=0) + torch.stack([prefix.hidden_sum for prefix in prefixes])
            mean[members] = total / self.positions
            tail[members] = hidden[-self._tail :].transpose(0, 1)
        return Encoded(mean, tail[:, -1], tail, periods, values, observed, loc, span)

    def decode(self, encoded: Encoded) -> torch.Tensor:
        """Forecast one block of 48 steps.

        Args:
            encoded: Result of `encode`.

        Returns:
            [B, 48, Q] float32 in the units of the context; quantiles may cross.
        """
        head = self._head
        rows = encoded.mean.shape[0]
        summary = torch.cat([encoded.mean, encoded.last], dim=-1)
        recency = self._future_recency.expand(rows, -1, -1)
        x = torch.cat([recency, summary.unsqueeze(1).expand(-1, self.block, -1)], dim=-1)
        x = head.summary_proj(x) + head.queries
        for feed_forward, norm in zip(head.decoder_ffns, head.decoder_norms, strict=True):
            x = norm(x + feed_forward(x))
        for convolution in head.fc_blocks:
            x = convolution(x)
        x = x + self._future_states(encoded)
        quantiles: torch.Tensor = head.out_proj(x)
        return quantiles * encoded.span.unsqueeze(-1) + encoded.loc.unsqueeze(-1)

    def forget(self) -> None:
        """Drop the cached prefixes."""
        self._prefixes.clear()

    def _normalise(self, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Min-max normalise the visible points; left-pad to the length the head reads."""
        tail = context[:, -self.positions :].to(self._device)
        observed = torch.isfinite(tail)
        if bool((observed.sum(dim=1) < _MIN_OBSERVED).any()):
            raise TsbenchError(
                f"fracast needs {_MIN_OBSERVED} finite values per context; use a longer lookback"
            )
        loc = torch.where(observed, tail, torch.inf).amin(dim=1, keepdim=True)
        span = (torch.where(observed, tail, -torch.inf).amax(dim=1, keepdim=True) - loc).clamp_min(1e-5)
        values = torch.where(observed, (tail - loc) / span, 0.0)
        missing = max(0, self._tail - tail.shape[1])
        return F.pad(values, (missing, 0)), F.pad(observed, (missing, 0)), loc, span

    def _periods(self, values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """Detected periods [B, K] in steps; missing and padded positions count as the row mean."""
        from fracast._core.periodic.official_periodogram import significant_periods

        mean = values.sum(dim=1, keepdim=True) / observed.sum(dim=1, keepdim=True)
        filled = mean.expand(-1, self.positions).clone()
        filled[:, -values.shape[1] :] = torch.where(observed, values, mean)
        periodic = self._core.periodic
        periods, _, _ = significant_periods(
            filled,
            min_period=periodic.min_period,
            max_period=self.positions // 2,
            top_k=periodic.K,
            significance_alpha=periodic.alpha,
        )
        return periods

    def _prefix(self, periods: tuple[int, ...], padded: int) -> _Prefix:
        """The padded positions' activations for one period tuple, from the cache or computed."""
        key = (padded, *periods)
        found = self._prefixes.get(key)
        if found is not None:
            self._prefixes.move_to_end(key)
            return found
        from fracast._core.periodic.official_encoding import _phase_encoding

        where = torch.arange(self.positions, device=self._device).unsqueeze(0)
        phase = _phase_encoding(where, torch.tensor([periods], device=self._device))[0]
        inputs = self._static_input + self._core.periodic.proj(phase)
        gain, offset = self._first_film
        x = (inputs[:padded] * gain + offset).unsqueeze(1)
        left_context = []
        for stage in self._stages:
            x = F.pad(x, (0, 0, 0, 0, 2 * stage.dilation, 0))
            left_context.append(x[-2 * stage.dilation :, 0].clone())
            x = _run_stage(stage, x)
        hidden_sum = self._core.norm(x).sum(dim=(0, 1))
        found = _Prefix(left_context, hidden_sum, inputs[padded:].clone())
        self._prefixes[key] = found
        if len(self._prefixes) > _MAX_CACHED_TUPLES:
            self._prefixes.popitem(last=False)
        return found

    def _observed_positions(
        self, values: torch.Tensor, observed: torch.Tensor, prefixes: list[_Prefix]
    ) -> torch.Tensor:
        """Encoder outputs [S, rows, D] at the observed positions of one tile of rows."""
        x = torch.stack([prefix.observed_input for prefix in prefixes], dim=1)
        x.addcmul_(values.t().unsqueeze(-1), self._value_weight)
        x.addcmul_(observed.t().unsqueeze(-1).to(x.dtype), self._coverage_weight)
        gain, offset = self._first_film
        x = torch.addcmul(offset, x, gain)
        for index, stage in enumerate(self._stages):
            left = torch.stack([prefix.left_context[index] for prefix in prefixes], dim=1)
            x = _run_stage(stage, torch.cat([left, x]))
        hidden: torch.Tensor = self._core.norm(x)
        return hidden

    def _future_states(self, encoded: Encoded) -> torch.Tensor:
        """Seasonal fill run through the head's causal convolutions, [B, 48, D]."""
        future = self._head.future_conv
        rows = encoded.mean.shape[0]
        fill = self._seasonal_fill(encoded)
        recency = self._future_recency.expand(rows, -1, -1)
        steps = future.in_proj(torch.cat([fill.unsqueeze(-1), recency], dim=-1))
        x = torch.cat([encoded.tail, steps], dim=1).transpose(0, 1).contiguous()
        for stage in self._future_stages:
            x = _run_stage(stage, F.pad(x, (0, 0, 0, 0, 2 * stage.dilation, 0)))
        states: torch.Tensor = future.out_proj(x[-self.block :]).transpose(0, 1)
        return states

    def _seasonal_fill(self, encoded: Encoded) -> torch.Tensor:
        """Mean of the observed values in each future step's phase of the primary period, [B, 48]."""
        bins = self._head.phase_bins
        primary = encoded.periods[:, :1].clamp(min=1).float()
        size = encoded.values.shape[1]
        where = torch.arange(self.positions - size, self.positions + self.block, device=self._device)
        phase = ((where.float() % primary) / primary * bins).long().clamp_(max=bins - 1)
        weight = encoded.observed.to(encoded.values.dtype)
        past = phase[:, :size]
        count = torch.zeros(len(phase), bins, device=self._device).scatter_add_(1, past, weight)
        total = torch.zeros_like(count).scatter_add_(1, past, encoded.values * weight)
        overall = total.sum(dim=1, keepdim=True) / count.sum(dim=1, keepdim=True).clamp(min=1.0)
        mean = torch.where(count > 0, total / count.clamp(min=1.0), overall)
        return mean.gather(1, phase[:, size:])
