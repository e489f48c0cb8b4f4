from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tsbench.models.plugmem import PlugMem, PlugMemConfig, PlugMemSize, parameter_count

TINY = PlugMemConfig(
    lookback=20, horizon=12, quantiles=3, width=16, encoder_layers=2, decoder_layers=2, patch=8, heads=4
)


def tiny(seed: int = 0, config: PlugMemConfig = TINY) -> PlugMem:
    torch.manual_seed(seed)
    return PlugMem(config).eval()


def contexts(rows: int, seed: int = 1, lookback: int = TINY.lookback) -> Tensor:
    return torch.randn(rows, lookback, generator=torch.Generator().manual_seed(seed)).cumsum(1)


@pytest.mark.parametrize(
    ("size", "horizon", "published"),
    [
        ("base", 96, 5_306_377),
        ("base", 192, 5_330_953),
        ("base", 336, 5_367_817),
        ("base", 720, 5_466_121),
        ("small", 720, 2_523_081),
        ("large", 720, 10_936_969),
    ],
)
def test_presets_have_the_published_parameter_counts(size: PlugMemSize, horizon: int, published: int) -> None:
    assert parameter_count(PlugMemConfig.preset(size, lookback=512, horizon=horizon)) == published


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, patch=20),
        replace(TINY, lookback=33, quantiles=9, encoder_layers=1, decoder_layers=3),
        *(PlugMemConfig.preset(size, 512, 96) for size in get_args(PlugMemSize)),
    ],
)
def test_closed_form_parameter_count_is_that_of_the_network(config: PlugMemConfig) -> None:
    assert sum(p.numel() for p in PlugMem(config).parameters()) == parameter_count(config)


def copy_attention(ours: nn.Module, reference: nn.MultiheadAttention) -> None:
    reference.in_proj_weight.data.copy_(ours.get_parameter("in_proj.weight"))
    reference.in_proj_bias.data.copy_(ours.get_parameter("in_proj.bias"))
    reference.out_proj.load_state_dict(ours.get_submodule("out_proj").state_dict())


def reference_forecast(model: PlugMem, context: Tensor) -> Tensor:
    """The same weights in PyTorch's own Transformer layers, with every decoder query expanded per window."""
    c = model.config
    mean, std = context.mean(1, keepdim=True), context.std(1, correction=0, keepdim=True)
    padded = torch.zeros(len(context), c.patches * c.patch)
    padded[:, -c.lookback :] = (context - mean) / std
    tokens = model.embed_patch(padded.reshape(len(context), c.patches, c.patch))
    tokens = tokens + model.positions[: c.patches]
    shape: dict[str, Any] = {
        "dim_feedforward": 4 * c.width,
        "activation": "gelu",
        "batch_first": True,
        "norm_first": True,
    }
    for ours in model.encoder:
        layer = nn.TransformerEncoderLayer(c.width, c.heads, **shape).eval()
        copy_attention(ours.get_submodule("attention"), layer.self_attn)
        for name, target in {
            "feed_forward.0": "linear1",
            "feed_forward.3": "linear2",
            "norm1": "norm1",
            "norm2": "norm2",
        }.items():
            layer.get_submodule(target).load_state_dict(ours.get_submodule(name).state_dict())
        tokens = layer(tokens)
    steps = model.queries.expand(len(context), -1, -1)
    for ours in model.decoder:
        decoder = nn.TransformerDecoderLayer(c.width, c.heads, **shape).eval()
        copy_attention(ours.get_submodule("self_attention"), decoder.self_attn)
        copy_attention(ours.get_submodule("cross_attention"), decoder.multihead_attn)
        for name, target in {
            "feed_forward.0": "linear1",
            "feed_forward.3": "linear2",
            "norm1": "norm1",
            "norm2": "norm2",
            "norm3": "norm3",
        }.items():
            decoder.get_submodule(target).load_state_dict(ours.get_submodule(name).state_dict())
        steps = decoder(steps, tokens)
    quantiles: Tensor = model.head(steps).transpose(1, 2)
    return mean[:, :, None] + std[:, :, None] * quantiles


def test_forecast_equals_that_of_torch_transformer_layers() -> None:
    model, context = tiny(), contexts(5)
    for parameter in model.parameters():  # zero biases and unit norms would hide a misplaced one
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    torch.testing.assert_close(model(context), reference_forecast(model, context), atol=1e-5, rtol=1e-5)


def test_shape_and_dtype_are_those_documented() -> None:
    forecast = tiny()(contexts(1))
    assert forecast.shape == (1, TINY.quantiles, TINY.horizon)
    assert forecast.dtype == torch.float32


@settings(deadline=None, max_examples=25, derandomize=True)
@given(shift=st.floats(-50, 50), scale=st.floats(0.01, 100))
def test_shift_and_scale_of_the_context_carry_over_to_the_forecast(shift: float, scale: float) -> None:
    model, context = tiny(), contexts(3)
    expected = scale * model(context) + shift
    torch.testing.assert_close(model(scale * context + shift), expected, rtol=1e-3, atol=1e-3 * (1 + scale))


def test_rows_of_a_batch_do_not_influence_each_other() -> None:
    model, context = tiny(), contexts(6)
    alone = torch.cat([model(row[None]) for row in context])
    torch.testing.assert_close(model(context), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e20])
def test_constant_context_yields_its_value(value: float) -> None:
    context = contexts(2)
    context[1] = value
    forecast = tiny()(context)
    assert (forecast[1] == value).all()
    assert (forecast[0] != forecast[0, 0, 0]).any()


def test_gradients_stay_finite_beside_a_constant_context() -> None:
    model, context = tiny().train(), contexts(3)
    context[0] = 4.0
    model(context).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_shorter_horizon_equals_the_network_with_the_later_queries_removed() -> None:
    model, short = tiny(), tiny(config=replace(TINY, horizon=5))
    state = model.state_dict()
    short.load_state_dict(state | {"queries": state["queries"][:5]})
    context = contexts(4)
    torch.testing.assert_close(model(context, horizon=5), short(context))


def test_every_context_step_reaches_the_forecast() -> None:
    context = contexts(1).requires_grad_()
    tiny()(context)[0, 0, 0].backward()
    assert context.grad is not None
    assert (context.grad != 0).all()


def test_dropout_is_seeded_unbiased_and_off_in_evaluation() -> None:
    model, context = tiny(config=replace(TINY, dropout=0.25)), contexts(2)
    model.train()
    torch.manual_seed(3)
    first = model(context)
    torch.manual_seed(3)
    assert torch.equal(model(context), first)
    assert not torch.equal(model(context), first)
    dropped = model.dropout(torch.ones(1000, 64))
    assert dropped.eq(0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    model.eval()
    assert torch.equal(model(context), model(context))


def test_bfloat16_autocast_stays_close_to_float32_and_returns_float32() -> None:
    model, context = tiny(), contexts(8)
    expected = model(context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forecast = model(context)
        with torch.inference_mode():
            inferred = model(context)
    assert forecast.dtype == inferred.dtype == torch.float32
    tolerance = 0.05 * expected.std().item()
    torch.testing.assert_close(forecast, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(inferred, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("shape", "horizon"), [((2, 19), 12), ((20,), 12), ((2, 20), 13), ((2, 20), 0)])
def test_when_the_shape_or_horizon_is_wrong_then_it_is_refused(shape: tuple[int, ...], horizon: int) -> None:
    with pytest.raises(ValueError, match=r"context must be|horizon must be"):
        tiny()(torch.zeros(shape), horizon)


def test_when_the_configuration_is_impossible_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        replace(TINY, heads=3)
    with pytest.raises(ValueError, match="positive"):
        replace(TINY, horizon=0)


def test_tables_start_on_one_time_axis_around_the_forecast_origin() -> None:
    config = PlugMemConfig(lookback=512, horizon=96, width=128, encoder_layers=1, decoder_layers=1)
    network = PlugMem(config)
    # Sines and cosines of one wave: the product of two rows is a function of their distance in time alone.
    patches = network.positions[:32].detach() @ network.positions[:32].detach().T
    assert torch.allclose(patches[0, :20], patches[5, 5:25], atol=1e-4)
    steps = network.queries.detach() @ network.positions[:32].detach().T
    # Moving a step and a patch by one patch length leaves their similarity.
    assert torch.allclose(steps[0, :31], steps[16, 1:], atol=1e-4)
