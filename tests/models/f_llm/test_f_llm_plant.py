from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("transformers")
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, OPTConfig, OPTModel

from tsbench.errors import TsbenchError
from tsbench.models.f_llm.lipschitz import LipschitzConfig, lipschitz_penalty
from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import (
    FlattenHeadForecaster,
    FrozenDecoder,
    Plant,
    PlantConfig,
    TokenMLP,
    plant_loss,
)
from tsbench.training.loop import TrainingConfig, load_trained, train

CONFIG = PlantConfig(patch=6, tokens=4, hidden=10)
KINDS = ("gpt2", "opt", "narrow-opt", "llama")
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
SEEDED = settings(deadline=None, max_examples=25, derandomize=True)


def language_model(kind: str = "gpt2", seed: int = 0) -> nn.Module:
    """Random weights large enough for every token to matter; dropout on in training mode."""
    torch.manual_seed(seed)
    heads: dict[str, Any] = {"vocab_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "gpt2":
        return GPT2Model(GPT2Config(n_positions=32, n_embd=16, initializer_range=0.3, **heads))
    if kind == "llama":
        return LlamaModel(
            LlamaConfig(hidden_size=16, intermediate_size=24, initializer_range=0.3, **heads)
        ).train()
    inner = 8 if kind == "narrow-opt" else 16
    return OPTModel(
        OPTConfig(hidden_size=16, ffn_dim=24, word_embed_proj_dim=inner, init_std=0.3, **heads)
    ).train()


def plant(kind: str = "gpt2", config: PlantConfig = CONFIG, seed: int = 1) -> Plant:
    decoder = FrozenDecoder(language_model(kind))
    torch.manual_seed(seed)
    return Plant(config, decoder)


def contexts(rows: int, steps: int = CONFIG.lookback, seed: int = 2) -> Tensor:
    return 3 + torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed)).cumsum(1)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


# --- the prediction


@EACH_KIND
def test_predictions_are_those_of_each_prefix_alone(kind: str) -> None:
    model, context = plant(kind), contexts(3)
    predicted = model(context)
    assert predicted.shape == (3, 4, 6)
    assert predicted.dtype == torch.float32
    for row, series in enumerate(context.double().numpy()):
        mean, std = series.mean(), np.sqrt(series.var() + 1e-5)
        patches = torch.from_numpy((series - mean) / std).float().reshape(1, 4, 6)
        for seen in range(1, 5):
            tokens = model.embed(patches[:, :seen])
            hidden = model.decoder.language_model(inputs_embeds=tokens, use_cache=False).last_hidden_state
            expected = mean + std * model.deembed(hidden[0, -1]).double()
            torch.testing.assert_close(predicted[row, seen - 1].double(), expected, rtol=1e-4, atol=1e-4)


@EACH_KIND
@pytest.mark.parametrize("changed", range(4))
def test_a_patch_changes_no_prediction_before_it(kind: str, changed: int) -> None:
    model = plant(kind)
    patches = contexts(2).reshape(2, 4, 6)
    other = patches.clone()
    other[:, changed] += torch.tensor([1.0, -2, 3, 1, -1, 2])
    difference = (model.advance(patches)[0] - model.advance(other)[0]).abs().amax((0, 2))
    assert bool((difference[:changed] < 1e-5).all())
    assert bool((difference[changed:] > 1e-3).all())


@EACH_KIND
def test_patch_by_patch_with_the_cache_is_as_good_as_at_once(kind: str) -> None:
    model = plant(kind)
    patches = contexts(2, 42).reshape(2, 7, 6)
    whole, none = model.advance(patches)
    assert none is None
    first, cache = model.advance(patches[:, :4], use_cache=True)
    parts = [first]
    for step in range(4, 7):
        part, cache = model.advance(patches[:, step : step + 1], cache, use_cache=True)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)


@SEEDED
@given(st.floats(0.5, 50), st.floats(-50, 50))
def test_predictions_move_and_stretch_with_the_context(scale: float, shift: float) -> None:
    model, context = plant(), contexts(2)
    with torch.no_grad():
        expected = scale * model(context) + shift
        torch.testing.assert_close(model(scale * context + shift), expected, rtol=2e-3, atol=2e-3)


def test_a_constant_context_gives_finite_predictions_near_it() -> None:
    predicted = plant()(torch.full((1, CONFIG.lookback), -7.0))
    assert (predicted + 7).abs().max() < 0.1


@pytest.mark.parametrize("steps", [18, 23, 30])
def test_a_context_of_another_length_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="4 patches of 6"):
        plant()(contexts(1, steps))


@pytest.mark.parametrize("sizes", [{"patch": 0}, {"tokens": 0}, {"hidden": 0}])
def test_sizes_must_be_positive(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        PlantConfig(**sizes)


# --- the frozen language model


@EACH_KIND
def test_gradients_pass_through_the_language_model_and_leave_none_in_it(kind: str) -> None:
    model = plant(kind).train()
    model(contexts(2)).square().mean().backward()
    assert model.embed.weight.grad.abs().max() > 1e-4
    assert model.deembed.weight.grad.abs().max() > 1e-4
    frozen = model.decoder.language_model
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_gradient_of_the_embedding_is_the_slope_of_the_loss() -> None:
    frozen = FrozenDecoder(language_model().double())
    model, context = Plant(CONFIG, frozen).double(), contexts(2).double()
    loss = model(context).square().mean()
    (gradient,) = torch.autograd.grad(loss, model.embed.weight)
    with torch.no_grad():
        model.embed.weight[3, 2] += 1e-6
        slope = (model(context).square().mean() - loss) / 1e-6
    assert slope.item() == pytest.approx(gradient[3, 2].item(), rel=1e-4)


@EACH_KIND
def test_the_language_model_stays_in_evaluation_mode(kind: str) -> None:
    frozen = language_model(kind)
    assert frozen.training
    model = Plant(CONFIG, FrozenDecoder(frozen)).train()
    assert not any(module.training for module in frozen.modules())
    assert torch.equal(model(contexts(2)), model(contexts(2)))


def test_state_holds_embedding_and_de_embedding_alone() -> None:
    model = plant()
    assert set(model.state_dict()) == {"embed.weight", "embed.bias", "deembed.weight", "deembed.bias"}
    fresh = plant(seed=5)
    assert not torch.equal(fresh(contexts(2)), model(contexts(2)))
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(fresh(contexts(2)), model(contexts(2)))


def test_casting_the_plant_leaves_the_language_model_as_it_is() -> None:
    model = plant().double()
    assert next(model.decoder.language_model.parameters()).dtype == torch.float32
    assert model(contexts(2).double()).dtype == torch.float64


@EACH_KIND
@pytest.mark.parametrize("autocast", [False, True])
def test_a_language_model_in_bfloat16_serves_a_plant_in_float32(kind: str, autocast: bool) -> None:
    expected = plant(kind)(contexts(2))
    model = plant(kind)
    model.decoder.language_model.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        predicted = model(contexts(2))
    predicted.square().mean().backward()
    assert predicted.dtype == model.embed.weight.grad.dtype == torch.float32
    assert bool(model.embed.weight.grad.isfinite().all())
    torch.testing.assert_close(predicted, expected, rtol=0.1, atol=0.3)


def test_narrow_opt_is_read_and_written_at_its_outer_width() -> None:
    assert [FrozenDecoder(language_model(kind)).width for kind in KINDS] == [16, 16, 8, 16]


def test_trained_sizes_on_llama_7b_are_those_of_linear_layers() -> None:
    bare = LlamaConfig(vocab_size=8, hidden_size=4096, intermediate_size=8, num_hidden_layers=0)
    model = Plant(PlantConfig(), FrozenDecoder(LlamaModel(bare)))
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.embed, model.deembed, model)]
    assert counts == [397_312, 393_312, 790_624]
    assert sum(p.numel() for p in Observer(96).parameters()) == 36_960


# --- variants


def test_the_mlp_in_the_language_models_place_sees_one_token_at_a_time() -> None:
    torch.manual_seed(0)
    model = Plant(CONFIG, TokenMLP(16))
    patches = contexts(2).reshape(2, 4, 6)
    whole, cache = model.advance(patches, use_cache=True)
    alone = torch.cat([model.advance(patches[:, [i]], cache)[0] for i in range(4)], dim=1)
    torch.testing.assert_close(whole, alone)


def test_the_mlp_in_the_language_models_place_is_trained_and_saved() -> None:
    model = Plant(CONFIG, TokenMLP(16))
    plant_loss(model, contexts(3, 30)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert "decoder.layers.0.weight" in model.state_dict()


def test_the_mlp_tokeniser_has_one_hidden_tanh_layer_each_way() -> None:
    model = plant(config=PlantConfig(patch=6, tokens=4, tokeniser="mlp", hidden=10))
    assert model(contexts(2)).shape == (2, 4, 6)
    patches = contexts(2).reshape(2, 4, 6)
    first, _, second = model.embed
    expected = torch.tanh(patches @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(model.embed(patches), expected)
    assert [tuple(p.shape) for p in model.deembed.parameters()] == [(10, 16), (10,), (6, 10), (6,)]


def test_flatten_head_is_one_linear_map_of_all_hidden_states() -> None:
    decoder = FrozenDecoder(language_model())
    model, context = FlattenHeadForecaster(CONFIG, decoder, horizon=13).train(), contexts(3)
    mean = context.mean(1, keepdim=True)
    std = (context.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    hidden, _ = decoder(model.embed(((context - mean) / std).reshape(3, 4, 6)))
    expected = mean + std * (hidden.reshape(3, -1) @ model.head.weight.T + model.head.bias)
    forecast = model(context)
    assert forecast.shape == (3, 13)
    torch.testing.assert_close(forecast, expected)
    assert set(model.state_dict()) == {"embed.weight", "embed.bias", "head.weight", "head.bias"}
    with pytest.raises(ValueError, match="4 patches of 6"):
        model(context[:, 1:])


# --- stage 1


def test_loss_is_the_mean_over_every_position_plus_the_weighted_penalty() -> None:
    model, windows = plant(), contexts(5, 30)
    predicted = model(windows[:, :24]).detach().numpy()
    squares = [
        (predicted[row, patch, step] - windows[row, 6 + 6 * patch + step].item()) ** 2
        for row in range(5)
        for patch in range(4)
        for step in range(6)
    ]
    assert plant_loss(model, windows).item() == pytest.approx(np.mean(squares), rel=1e-5)

    lipschitz = LipschitzConfig(weight=0.25, limit=0.01, kind="spectral")
    penalty = lipschitz_penalty(model.deembed.weight, lipschitz).item()
    assert penalty > 0.1
    total = plant_loss(model, windows, lipschitz).item()
    assert total == pytest.approx(np.mean(squares) + 0.25 * penalty, rel=1e-5)


@pytest.mark.parametrize("steps", [24, 29, 36])
def test_windows_of_another_length_have_no_loss(steps: int) -> None:
    with pytest.raises(ValueError, match="4 patches of 6"):
        plant_loss(plant(), contexts(2, steps))


def test_the_penalty_is_refused_where_the_de_embedding_is_not_linear() -> None:
    model = plant(config=PlantConfig(patch=6, tokens=4, tokeniser="mlp"))
    with pytest.raises(TsbenchError, match="linear tokeniser"):
        plant_loss(model, contexts(2, 30), LipschitzConfig())


def test_training_improves_the_plant_and_leaves_the_language_model(tmp_path: Path) -> None:
    model, windows = plant(), contexts(8, 30)
    frozen = model.decoder.language_model
    before, untrained = weights(frozen), plant_loss(model, windows).item()
    lipschitz = LipschitzConfig()
    report = train(
        model,
        batches=lambda step: windows,
        loss_fn=lambda plant, batch: plant_loss(plant, batch, lipschitz),
        validate=lambda plant: plant_loss(plant, windows).item(),
        config=TrainingConfig(max_steps=20, eval_every=10, patience=2, learning_rate=1e-2),
        checkpoint_dir=tmp_path,
    )
    assert report.history[-1].score < 0.8 * untrained
    assert_same_weights(frozen, before)

    fresh = plant(seed=9)
    load_trained(fresh, tmp_path)
    assert_same_weights(fresh, weights(model))
