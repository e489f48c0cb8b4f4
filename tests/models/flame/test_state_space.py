import numpy as np
import pytest
import torch
from torch import Tensor

from tsbench.models.flame.legendre import legs_kernel, legs_moments_to_legendre
from tsbench.models.flame.state_space import (
    DecoderLayer,
    LinearDecoder,
    ScaledLegendreLayer,
    log_time_steps,
    scaled_memory,
)

BATCH, HEADS, STEPS, CHANNELS, STATE, WIDTH = 2, 2, 12, 3, 4, 16


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(heads: int = HEADS, timed: bool = True) -> ScaledLegendreLayer:
    """A layer off its initial values; `timed` makes the elapsed time depend on the input."""
    torch.manual_seed(0)
    built = ScaledLegendreLayer(WIDTH, heads, STATE)
    if timed:
        with torch.no_grad():
            built.project.weight[-heads:] = 0.5 * normal(heads, WIDTH)
            built.time_bias += normal(heads)
    return built


def test_log_time_steps_add_up_to_log_time() -> None:
    steps = log_time_steps(60)
    assert steps[0] == 0
    torch.testing.assert_close(steps.cumsum(0), torch.arange(1.0, 61).log())


def test_masked_product_equals_the_recurrence() -> None:
    double = torch.float64
    values = normal(BATCH, HEADS, STEPS, CHANNELS, dtype=double)
    write, read = (normal(BATCH, STEPS, STATE, seed=seed, dtype=double) for seed in (1, 2))
    log_decay = -normal(BATCH, HEADS, STEPS, seed=3, dtype=double).exp()
    gain = normal(BATCH, HEADS, STEPS, seed=4, dtype=double).exp()
    state = torch.zeros(BATCH, HEADS, STATE, CHANNELS, dtype=double)
    outputs = []
    for k in range(STEPS):
        written = torch.einsum("bn,bhp->bhnp", write[:, k], values[:, :, k])
        state = log_decay[:, :, k, None, None].exp() * state + gain[:, :, k, None, None] * written
        outputs.append(torch.einsum("bn,bhnp->bhp", read[:, k], state))
    product = scaled_memory(values, write, read, log_decay, gain)
    torch.testing.assert_close(product, torch.stack(outputs, dim=2), atol=1e-12, rtol=1e-12)


def test_layer_is_causal() -> None:
    memory, x = layer(), normal(BATCH, STEPS, WIDTH)
    changed = torch.cat([x[:, :5], 10 * normal(BATCH, STEPS - 5, WIDTH, seed=1)], dim=1)
    before, after = memory(x), memory(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5], atol=1e-6, rtol=1e-6)
    assert (after[:, 5:] - before[:, 5:]).abs().amax(-1).min() > 1e-3


def memory_of_the_layer(built: ScaledLegendreLayer, series: Tensor) -> Tensor:
    """What each head holds [B, heads, T] of series [B, T] when its first channel takes the series itself.

    Feature 0 of every token is 1 and feature 1 the series; the gate is constant, the direct path closed.
    """
    heads, inner, gate = built.heads, 2 * WIDTH, 4.0
    with torch.no_grad():
        built.skip.zero_()
        weight = built.project.weight.zero_()
        weight[:inner, 0] = gate
        weight[inner : 2 * inner : inner // heads, 1] = 1
        weight[2 * inner, 0] = weight[2 * inner + STATE, 0] = 1  # write and read along the first direction
    tokens = torch.zeros(*series.shape, WIDTH)
    tokens[..., 0], tokens[..., 1] = 1, series
    seen: list[Tensor] = []
    hook = built.norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    built(tokens)
    hook.remove()
    channels = seen[0] / torch.nn.functional.silu(torch.tensor(gate))
    return channels[..., :: inner // heads].transpose(1, 2)


def test_heads_hold_the_relative_time_moments_that_make_up_the_legs_state() -> None:
    order = 4
    series = normal(BATCH, 30)
    moments = memory_of_the_layer(layer(heads=order, timed=False), series)
    expected = np.empty((BATCH, order, 30))
    for t in range(1, 31):  # (1/t) times the integral of f(x) (x/t)^(r-1), for a staircase f
        for rate in range(1, order + 1):
            edges = (np.arange(t + 1) / t) ** rate / rate
            expected[:, rate - 1, t - 1] = series[:, :t].numpy() @ np.diff(edges)
    np.testing.assert_allclose(moments.detach(), expected, atol=1e-6)

    legendre = np.einsum("nr,brt->btn", legs_moments_to_legendre(order), moments.detach())
    legs = np.einsum("tsn,bs->btn", legs_kernel(30, order), series)
    np.testing.assert_allclose(legendre, legs, atol=1e-4)  # moments are ill-conditioned, in float32


@pytest.mark.parametrize("repeats", [2, 5])
def test_slower_series_leave_the_same_memory(repeats: int) -> None:
    memory, x = layer(), normal(BATCH, STEPS, WIDTH)
    slow = memory(x.repeat_interleave(repeats, dim=1))[:, repeats - 1 :: repeats]
    torch.testing.assert_close(slow, memory(x), atol=1e-5, rtol=1e-4)


def test_at_the_start_every_token_counts_as_one_step_and_rates_are_those_of_legs() -> None:
    built = layer(timed=False)
    torch.testing.assert_close(torch.nn.functional.softplus(built.time_bias), torch.ones(HEADS))
    torch.testing.assert_close(built.log_rate.exp(), torch.arange(1.0, HEADS + 1))
    assert (built.project.weight[-HEADS:] == 0).all()


@pytest.mark.parametrize("log_rate", [-8.0, 0.0, 5.0])
def test_gradients_stay_finite_over_long_sequences(log_rate: float) -> None:
    memory = layer()
    with torch.no_grad():
        memory.log_rate.fill_(log_rate)
    x = (10 * normal(1, 400, WIDTH)).requires_grad_()
    output = memory(x)
    output.square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in memory.parameters())]
    assert output.isfinite().all()
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_future_tokens_depend_on_no_later_one_and_on_no_masked_encoder_token() -> None:
    torch.manual_seed(0)
    decoder = DecoderLayer(WIDTH, HEADS, STATE)
    context, future = normal(BATCH, 5, WIDTH), normal(BATCH, 4, WIDTH, seed=1)
    observed = torch.tensor([True, False, True, True, True]).expand(BATCH, -1)
    positions = (torch.arange(5, 9), torch.arange(5))
    tokens = decoder(torch.cat([context, future], dim=1), context, positions, observed)

    fewer = decoder(
        torch.cat([context, future[:, :2]], dim=1), context, (positions[0][:2], positions[1]), observed
    )
    torch.testing.assert_close(fewer, tokens[:, :7], atol=1e-6, rtol=1e-6)

    other = context.clone()
    other[:, 1] = 100
    masked = decoder(torch.cat([context, future], dim=1), other, positions, observed)
    torch.testing.assert_close(masked, tokens, atol=0, rtol=0)


def test_linear_decoder_moves_every_query_by_the_same_map_of_the_summary() -> None:
    torch.manual_seed(0)
    decoder, summary, queries = LinearDecoder(WIDTH), normal(BATCH, 2 * WIDTH), normal(3, WIDTH, seed=1)
    expected = queries + (summary @ decoder.read_out.weight.T + decoder.read_out.bias)[:, None]
    torch.testing.assert_close(decoder(summary, queries), expected)
