from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

pytest.importorskip("transformers")
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, OPTConfig, OPTModel

from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import FrozenDecoder, Plant, PlantConfig, TokenMLP
from tsbench.models.f_llm.rollout import RollOutConfig, forecast, observer_loss, roll_out
from tsbench.training.loop import TrainingConfig, train

PATCH, TOKENS, STEPS = 6, 4, 5
CONFIG = PlantConfig(patch=PATCH, tokens=TOKENS)
EVERY_WAY = [
    RollOutConfig(context, seed) for context, seed in product(("sliding", "growing"), ("lookback", "zeros"))
]
EACH_WAY = pytest.mark.parametrize("way", EVERY_WAY, ids=lambda way: f"{way.context}-{way.seed}")
SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def plant(kind: str = "gpt2", config: PlantConfig = CONFIG) -> Plant:
    """Random weights large enough for every token to matter."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "mlp":
        return Plant(config, TokenMLP(16))
    if kind == "gpt2":
        language_model = GPT2Model(GPT2Config(n_positions=32, n_embd=16, initializer_range=0.3, **sizes))
    elif kind == "opt":
        language_model = OPTModel(OPTConfig(hidden_size=16, ffn_dim=24, init_std=0.3, **sizes))
    else:
        language_model = LlamaModel(
            LlamaConfig(hidden_size=16, intermediate_size=24, initializer_range=0.3, **sizes)
        )
    return Plant(config, FrozenDecoder(language_model))


def observer(strength: float = 0.1, window: int = 2) -> Observer:
    made = Observer(PATCH, window)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(strength * torch.randn(parameter.shape, generator=generator))
    return made


def series(rows: int, steps: int = CONFIG.lookback, seed: int = 2) -> Tensor:
    return 3 + torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed)).cumsum(1)


def slow_roll_out(
    model: Plant, g: Observer | None, context: Tensor, steps: int, way: RollOutConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
    """Predictions and corrections [n, P] of one context [L], and what the observer saw at each step [w * P].

    No cache, no batch; everything but the plant's passes in float64.
    """
    patch = model.config.patch
    patches = list(context.double().numpy().reshape(-1, patch))
    lookback = np.concatenate(patches)
    residuals: list[NDArray[np.float64]] = []
    predictions, corrections, seen = [], [], []
    for step in range(steps):
        state = np.concatenate(patches) if way.context == "sliding" else lookback
        mean, std = state.mean(), np.sqrt(state.var() + 1e-5)
        inputs = torch.from_numpy((np.stack(patches) - mean) / std).float()
        with torch.no_grad():
            predicted = mean + std * model.advance(inputs[None])[0][0].double().numpy()
        if step == 0 and way.seed == "lookback":
            residuals = [patches[i + 1] - predicted[i] for i in range(len(patches) - 1)]
        correction = np.zeros(patch)
        if g is not None:
            padded = [np.zeros(patch)] * g.window + residuals
            seen.append(np.concatenate(padded[-g.window :]) / std)
            weight, bias = (tensor.detach().double().numpy() for tensor in (g.linear.weight, g.linear.bias))
            correction = std * (weight @ seen[-1] + bias)
        predictions.append(predicted[-1])
        corrections.append(correction)
        residuals.append(correction)
        patches.append(predicted[-1] + correction)
        if way.context == "sliding":
            patches.pop(0)
    return np.stack(predictions), np.stack(corrections), seen


# --- against the slow way


@EACH_WAY
@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "mlp"])
def test_roll_out_is_that_of_a_loop_without_cache_and_batch(kind: str, way: RollOutConfig) -> None:
    model, g, context = plant(kind), observer(), series(3)
    rolled = roll_out(model, g, context, STEPS, way)
    assert rolled.corrected.shape == (3, STEPS, PATCH)
    assert rolled.corrected.dtype == torch.float32
    assert rolled.corrections.abs().max() > 0.1
    for row in range(3):
        predictions, corrections, _ = slow_roll_out(model, g, context[row], STEPS, way)
        np.testing.assert_allclose(rolled.predictions[row], predictions, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(rolled.corrections[row].detach(), corrections, rtol=2e-3, atol=2e-3)


@EACH_WAY
def test_when_the_window_is_longer_than_the_lookback_zeros_stand_before_the_first(way: RollOutConfig) -> None:
    model, g, context = plant(), observer(window=5), series(1)
    rolled = roll_out(model, g, context, STEPS, way)
    _, corrections, _ = slow_roll_out(model, g, context[0], STEPS, way)
    np.testing.assert_allclose(rolled.corrections[0].detach(), corrections, rtol=2e-3, atol=2e-3)


def test_a_lookback_of_one_patch_has_no_residuals_to_start_from() -> None:
    model, g = plant(config=PlantConfig(patch=PATCH, tokens=1)), observer()
    context = series(2, PATCH)
    seeded, unseeded = (roll_out(model, g, context, 3, RollOutConfig(seed=s)) for s in ("lookback", "zeros"))
    assert torch.equal(seeded.corrected, unseeded.corrected)


def test_seeds_differ_from_the_first_correction_on() -> None:
    model, g, context = plant(), observer(), series(2)
    seeded, unseeded = (roll_out(model, g, context, 1, RollOutConfig(seed=s)) for s in ("lookback", "zeros"))
    assert torch.equal(seeded.predictions, unseeded.predictions)
    assert (seeded.corrections - unseeded.corrections).abs().amin() > 1e-4
    scale = (context.var(1, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(unseeded.corrections[:, 0], scale[:, None] * g.linear.bias)


# --- properties


@EACH_WAY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_untrained_observer_changes_no_bit_of_open_loop(way: RollOutConfig, dtype: torch.dtype) -> None:
    model, context = plant(), series(3)
    model.decoder.language_model.to(dtype)
    open_loop = roll_out(model, None, context, STEPS, way)
    closed_loop = roll_out(model, Observer(PATCH), context, STEPS, way)
    assert open_loop.corrected.dtype == torch.float32
    assert torch.equal(open_loop.corrected, closed_loop.corrected)
    assert torch.equal(open_loop.corrections, torch.zeros(3, STEPS, PATCH))


def test_first_open_loop_step_is_the_last_teacher_forced_prediction() -> None:
    model, context = plant(), series(3)
    assert torch.equal(roll_out(model, None, context, 1).corrected[:, 0], model(context)[:, -1])
    growing = roll_out(model, None, context, 1, RollOutConfig("growing")).corrected[:, 0]
    torch.testing.assert_close(growing, model(context)[:, -1])


@EACH_WAY
def test_rows_do_not_influence_one_another(way: RollOutConfig) -> None:
    model, g, context = plant(), observer(), series(4) * torch.tensor([[1.0], [100], [0.01], [-1]])
    together = forecast(model, g, context, 20, way)
    alone = torch.cat([forecast(model, g, context[[row]], 20, way) for row in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@EACH_WAY
@pytest.mark.parametrize("horizon", [1, 5, 6, 7, 29])
def test_a_shorter_horizon_is_the_start_of_a_longer_one(way: RollOutConfig, horizon: int) -> None:
    model, g, context = plant(), observer(), series(2)
    cut = forecast(model, g, context, horizon, way)
    assert cut.shape == (2, horizon)
    assert torch.equal(cut, forecast(model, g, context, 30, way)[:, :horizon])


@SEEDED
@given(st.floats(0.5, 20), st.floats(-20, 20), st.sampled_from(EVERY_WAY))
def test_forecasts_move_and_stretch_with_the_context(scale: float, shift: float, way: RollOutConfig) -> None:
    model, g, context = plant(), observer(), series(2)
    with torch.no_grad():
        expected = scale * forecast(model, g, context, 18, way) + shift
        moved = forecast(model, g, scale * context + shift, 18, way)
    torch.testing.assert_close(moved, expected, rtol=5e-3, atol=5e-3)


def test_a_context_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="4 patches of 6"):
        forecast(plant(), None, series(1, 30), 6)


# --- stage 2


@EACH_WAY
def test_loss_and_gradient_are_those_of_a_regression_on_the_slow_roll_out(way: RollOutConfig) -> None:
    model, g, windows = plant(), observer(), series(3, 6 * (4 + 3))
    inputs, targets, scales = [], [], []  # scales: standard deviations of the contexts
    for row in range(3):
        truth = windows[row, 24:].double().numpy().reshape(3, 6)
        predictions, corrections, seen = slow_roll_out(model, g, windows[row, :24], 3, way)
        inputs += seen
        targets += list(truth - predictions)
        weight, bias = (tensor.detach().double().numpy() for tensor in (g.linear.weight, g.linear.bias))
        scales += [np.mean(corrections[step] / (weight @ seen[step] + bias)) for step in range(3)]
    x, y, std = np.stack(inputs), np.stack(targets), np.array(scales)[:, None]
    error = std * (x @ weight.T + bias) - y

    loss = observer_loss(model, g, windows, way)
    loss.backward()
    assert loss.item() == pytest.approx(np.mean(error**2), rel=1e-3)
    np.testing.assert_allclose(g.linear.weight.grad, 2 * (std * error).T @ x / y.size, rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(g.linear.bias.grad, 2 * (std * error).sum(0) / y.size, rtol=5e-3, atol=5e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


@EACH_WAY
def test_residuals_are_what_turns_predictions_into_the_truth(way: RollOutConfig) -> None:
    truth = series(3, PATCH * STEPS, seed=8)
    rolled = roll_out(plant(), observer(), series(3), STEPS, way)
    assert not rolled.residuals(truth).requires_grad
    torch.testing.assert_close((rolled.predictions + rolled.residuals(truth)).flatten(1), truth)


def test_loss_is_the_squared_error_of_the_closed_loop_forecast() -> None:
    model, g, windows = plant(), observer(), series(3, 6 * (4 + 3))
    error = forecast(model, g, windows[:, :24], 18) - windows[:, 24:]
    assert observer_loss(model, g, windows).item() == pytest.approx(error.square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("steps", [24, 29, 31])
def test_windows_without_whole_patches_to_forecast_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="to forecast are not patches of 6"):
        observer_loss(plant(), Observer(PATCH), series(1, steps))


def test_training_the_observer_improves_on_the_open_loop_and_leaves_the_plant(tmp_path: Path) -> None:
    model, windows = plant(), series(16, 6 * (4 + 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = partial(observer_loss, model)
    open_loop = loss(Observer(PATCH), windows).item()
    report = train(
        Observer(PATCH),
        batches=lambda step: windows,
        loss_fn=loss,
        validate=lambda trained: loss(trained, windows).item(),
        config=TrainingConfig(max_steps=20, eval_every=10, patience=2, learning_rate=1e-2),
        checkpoint_dir=tmp_path,
    )
    assert report.history[-1].score < 0.8 * open_loop
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
