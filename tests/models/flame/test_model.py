from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tsbench.models.flame.model import PRESETS, Flame, FlameConfig, normalise

TINY = FlameConfig(width=16, encoder_layers=1, decoder_layers=2, patch=4, heads=2, state=4, legendre_order=4)
VARIANTS = {
    "flame": TINY,
    "no LegT": replace(TINY, legendre_order=0),
    "linear decoder": replace(TINY, decoder="linear"),
    "Gaussian head": replace(TINY, head="gaussian"),
    "quantile head": replace(TINY, head="quantile"),
}
LEVELS = (0.1, 0.5, 0.9)
LENGTH, HORIZON = 26, 10  # neither is a multiple of the patch
SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def walks(rows: int, length: int = LENGTH, seed: int = 0) -> Tensor:
    return normal(rows, length, seed=seed).cumsum(1) + 3


@cache
def network(config: FlameConfig = TINY) -> Flame:
    """A network off its initial values, where parts such as Re-Norm are still switched off."""
    torch.manual_seed(0)
    model = Flame(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


@torch.no_grad()
def forecast(model: Flame, context: Tensor, horizon: int = HORIZON) -> Tensor:
    """Quantiles [B, 3, H] in data units."""
    made = model(context, horizon)
    return made.restore(made.distribution.quantiles(LEVELS))


@pytest.mark.parametrize(
    ("preset", "least", "most"),
    [("flame-small", 1.5e6, 2.5e6), ("flame-base", 5e6, 7e6), ("flame-large", 9e6, 11e6)],
)
def test_presets_have_about_the_published_sizes(preset: str, least: float, most: float) -> None:
    assert least < sum(parameter.numel() for parameter in Flame(PRESETS[preset]).parameters()) < most


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_trains_and_gradients_reach_every_parameter(config: FlameConfig) -> None:
    torch.manual_seed(0)
    model = Flame(config)
    with torch.no_grad():
        model.renorm.weight += 0.01  # at zero it passes no gradient on
    context, target = walks(4), walks(4, model.max_horizon, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(3):
        made = model(context, model.max_horizon)
        loss = made.distribution.loss(made.normalise(target).clamp(-10, 10))
        optimiser.zero_grad()
        loss.backward()
        untouched = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.any() or not parameter.grad.isfinite().all()
        ]
        assert untouched == []
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_first_steps_do_not_depend_on_the_horizon(config: FlameConfig) -> None:
    model, context = network(config), walks(2)
    long = forecast(model, context, model.max_horizon)
    for horizon in (1, 4, HORIZON):
        torch.testing.assert_close(
            forecast(model, context, horizon), long[..., :horizon], atol=1e-5, rtol=1e-5
        )


@given(exponent=st.floats(-8, 8), shift=st.floats(-30, 30))
@SEEDED
def test_forecasts_follow_a_change_of_units(exponent: float, shift: float) -> None:
    model, context, unit = network(), walks(2), 10**exponent
    plain = forecast(model, context)
    moved = forecast(model, unit * (context + shift))
    torch.testing.assert_close(moved / unit - shift, plain, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        model.embed(unit * (context + shift)), model.embed(context), atol=1e-3, rtol=1e-3
    )


def test_rows_do_not_depend_on_the_batch() -> None:
    model, context = network(), walks(6)
    context[2, 5:17] = torch.nan
    context[4] = 1.0
    together = forecast(model, context)
    for row in range(len(context)):
        torch.testing.assert_close(
            forecast(model, context[row : row + 1])[0], together[row], atol=1e-5, rtol=1e-5
        )
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(forecast(model, context[order]), together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 24, 100, 513])
def test_contexts_of_any_length_are_read(length: int) -> None:
    quantiles = forecast(network(), walks(2, length))
    assert quantiles.shape == (2, len(LEVELS), HORIZON)
    assert quantiles.isfinite().all()
    assert (quantiles.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("length", [1, 7, 26])
def test_an_incomplete_first_patch_is_filled_up_with_missing_steps(length: int) -> None:
    model, context = network(), walks(2, length)
    padded = torch.cat([torch.full((2, -length % TINY.patch), torch.nan), context], dim=1)
    torch.testing.assert_close(forecast(model, padded), forecast(model, context))


def test_future_tokens_stand_right_after_the_context() -> None:
    model, context, seen = Flame(TINY), walks(1, 24), []
    model.decoder[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2]))
    model(context, HORIZON)
    [(future, past)] = seen
    assert past.tolist() == [0, 1, 2, 3, 4, 5]
    assert future.tolist() == [6, 7, 8]


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("level", [0.0, 0.1, -7.0, 1e6])
def test_constant_contexts_are_continued(config: FlameConfig, level: float) -> None:
    quantiles = forecast(network(config), torch.full((1, 100), level))
    torch.testing.assert_close(quantiles, torch.full_like(quantiles, level), atol=1e-20, rtol=1e-4)


def test_all_that_is_not_finite_is_missing_and_missing_is_not_zero() -> None:
    model, context = network(), walks(2)
    missing = torch.zeros_like(context, dtype=torch.bool)
    missing[:, [0, 9, 10, 11, 12, 13, 14, 15, 25]] = True
    with_nan = forecast(model, context.masked_fill(missing, torch.nan))
    assert torch.equal(forecast(model, context.masked_fill(missing, torch.inf)), with_nan)
    assert torch.equal(forecast(model, context.masked_fill(missing, -torch.inf)), with_nan)
    _, _, mean, _ = normalise(context.masked_fill(missing, torch.nan))
    filled = forecast(model, torch.where(missing, mean, context))
    assert (filled - with_nan).abs().max() > 1e-3


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_rows_without_any_value_get_a_finite_forecast(config: FlameConfig) -> None:
    model, context = network(config), walks(3)
    context[1] = torch.nan
    quantiles = forecast(model, context)
    assert quantiles.isfinite().all()
    torch.testing.assert_close(quantiles[::2], forecast(model, context[::2]), atol=1e-5, rtol=1e-5)


def test_whole_missing_patches_before_the_series_count_as_time_for_the_legs_decoder_alone() -> None:
    context = walks(2, 24)
    padded = torch.cat([torch.full((2, 3 * TINY.patch), torch.nan), context], dim=1)
    legs, linear = network(), network(VARIANTS["linear decoder"])
    torch.testing.assert_close(legs.embed(padded), legs.embed(context), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(forecast(linear, padded), forecast(linear, context), atol=1e-5, rtol=1e-5)
    assert (forecast(legs, padded) - forecast(legs, context)).abs().max() > 1e-3


def test_normalised_rows_have_mean_zero_and_deviation_one_over_what_is_observed() -> None:
    context = 5_000 + 3 * normal(2, 40)
    context[1, ::3] = torch.nan
    values, observed, mean, scale = normalise(context)
    assert torch.equal(observed, context.isfinite())
    assert (values[~observed] == 0).all()
    for row in range(2):
        known = context[row, observed[row]]
        torch.testing.assert_close(mean[row, 0], known.mean())
        torch.testing.assert_close(scale[row, 0], known.std(correction=0), atol=0, rtol=1e-5)
        torch.testing.assert_close(values[row, observed[row]], (known - mean[row]) / scale[row])


def test_forecast_converts_between_units() -> None:
    made = network()(walks(2), HORIZON)
    values = walks(2, HORIZON, seed=1)
    torch.testing.assert_close(made.restore(made.normalise(values)[:, None])[:, 0], values)


def test_every_step_of_the_context_is_read() -> None:
    model, context = network(), walks(1).requires_grad_()
    made = model(context, HORIZON)
    made.restore(made.distribution.quantiles((0.5,))).sum().backward()
    assert context.grad is not None
    assert (context.grad != 0).all()


@pytest.mark.parametrize("horizon", [0, -1, 129])
def test_when_the_horizon_is_out_of_range_then_it_is_refused(horizon: int) -> None:
    with pytest.raises(ValueError, match=r"not within 1\.\.128"):
        Flame(TINY)(walks(1), horizon)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_under_bfloat16_autocast_the_distribution_stays_float32(config: FlameConfig) -> None:
    model, context = network(config), walks(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = model(context, HORIZON)
    assert made.distribution.loss(made.normalise(walks(4, HORIZON, seed=1))).dtype == torch.float32
    quantiles = made.restore(made.distribution.quantiles(LEVELS))
    assert quantiles.dtype == torch.float32
    assert (quantiles - forecast(model, context)).abs().mean() < 0.05 * context.std()
