import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft")
pytest.importorskip("chronos")
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.chronos import load_bolt, load_chronos2
from tsbench.backbones.flame import make_backbone
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.naive import SeasonalNaive
from tsbench.bench.evaluate import evaluate
from tsbench.config import PROFILES, CellSpec, Profile
from tsbench.data.load import load_dataset
from tsbench.data.pretraining import PretrainingWindows
from tsbench.errors import TsbenchError
from tsbench.methods import lora
from tsbench.methods.lora import adaptable_family
from tsbench.methods.task import Fitted, Source, Task, make_task
from tsbench.metrics.quantile import pinball_loss
from tsbench.models.flame.model import Flame, FlameConfig
from tsbench.models.lora import adapted_copy, adapters, nearest_rank
from tsbench.models.plugmem import PlugMemConfig, parameter_count

TINY = FlameConfig(width=16, encoder_layers=1, decoder_layers=1, patch=12, heads=2, state=4, legendre_order=4)
FAMILIES = ("bolt", "chronos2", "flame")
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)
PROFILE: Profile = PROFILES["quick"].model_copy(
    update={
        "max_train_values": 20_000,
        "max_stop_values": 4_000,
        "batch_size": 16,
        "max_steps": 20,
        "eval_every": 10,
    }
)

Fitting = Callable[..., tuple[Task, FrozenBackbone]]


@pytest.fixture(scope="module")
def backbones(tiny_bolt: Path, tiny_chronos2: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    bolt = load_bolt(BackboneOptions("chronos-bolt-tiny", checkpoint=str(tiny_bolt)))
    spread(bolt.model.output_patch_embedding, bolt.quantile_levels)
    return {
        "bolt": bolt,
        "chronos2": load_chronos2(BackboneOptions("chronos-2", checkpoint=str(tiny_chronos2))),
        "flame": make_backbone("flame-small", Flame(TINY)),
    }


def spread(head: Any, levels: tuple[float, ...]) -> None:
    """Let a random head forecast the quantiles of a standard normal, and a little of its own."""
    quantiles = torch.distributions.Normal(0, 1).icdf(torch.tensor(levels))
    for layer in (head.output_layer, head.residual_layer):
        layer.weight.mul_(0.3)
        layer.bias.zero_()
    head.residual_layer.bias.copy_(quantiles.repeat_interleave(64))


@pytest.fixture
def fitting(backbones: dict[str, Any], tmp_path: Path) -> Fitting:
    def make(
        family: str, profile: Profile = PROFILE, cache: Path | None = None, **fields: Any
    ) -> tuple[Task, FrozenBackbone]:
        backbone = backbones[family]
        shape = {"dataset": "demo", "horizon": 24, "lookback": 48, "profile": "quick"}
        spec = CellSpec.model_validate({"method": "lora", "backbone": backbone.name, **shape, **fields})
        task = make_task(spec, profile, load_dataset("demo"), tmp_path, lambda line: None)
        return task, FrozenBackbone(backbone, task.scaled, 48, cache, 10**9)

    return make


def contexts(rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 48, generator=torch.Generator().manual_seed(3)).cumsum(1)


def with_adapters(backbone: Any, rank: int = 2, alpha: int = 4) -> Any:
    network = adapted_copy(backbone.model, adaptable_family(backbone).projections, rank, alpha)
    return replace(backbone, model=network)


def randomise(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(4)
    for weight in adapters(network).parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3


def test_multivariate_chronos2_is_refused_for_its_training_pairs_are_single_channels(
    tiny_chronos2: Path,
) -> None:
    options = BackboneOptions("chronos-2-multivariate", checkpoint=str(tiny_chronos2), channels=2)
    with pytest.raises(TsbenchError, match=r"adapts .*, not chronos-2-multivariate"):
        adaptable_family(load_chronos2(options))


@EACH_FAMILY
@pytest.mark.parametrize("horizon", [20, 100])  # 100 is beyond a block of Chronos-Bolt
def test_untrained_adapters_leave_every_forecast_as_it_is(
    backbones: dict[str, Any], family: str, horizon: int
) -> None:
    backbone = backbones[family]
    forecast = with_adapters(backbone).predict(contexts(), horizon)
    assert torch.equal(forecast, backbone.predict(contexts(), horizon))


def test_trained_adapters_are_an_update_of_the_attention_weights(backbones: dict[str, Any]) -> None:
    """W + (alpha / r) B A in place of W, by hand."""
    adapted = with_adapters(backbones["bolt"])
    randomise(adapted.model)
    merged = with_adapters(backbones["bolt"]).model
    pairs = iter(adapters(adapted.model))
    for module in merged.modules():
        for name in "qkvo":
            if hasattr(getattr(module, name, None), "base_layer"):
                down, up = (part.weight for part in next(pairs))  # type: ignore[attr-defined]
                layer = torch.nn.Linear(down.shape[1], up.shape[0], bias=False)
                layer.weight.data = getattr(module, name).base_layer.weight + 4 / 2 * up @ down
                setattr(module, name, layer)
    assert next(pairs, None) is None
    by_hand = replace(adapted, model=merged)
    torch.testing.assert_close(by_hand.predict(contexts(), 80), adapted.predict(contexts(), 80))
    assert not torch.equal(adapted.predict(contexts(), 80), backbones["bolt"].predict(contexts(), 80))


@pytest.mark.parametrize(
    ("family", "layers", "per_rank"),
    [
        ("bolt", 2 * 4 + 2 * 8, 24 * (16 + 16)),  # encoder; self and cross attention in the decoder
        ("chronos2", 2 * 8, 16 * (16 + 16)),  # attention over time and over the group
        ("flame", 2 * 3, 2 * (16 + 16 + 16 + 32 + 16 + 16)),  # key and value are one layer
    ],
)
def test_all_attention_projections_and_nothing_else_are_adapted(
    backbones: dict[str, Any], family: str, layers: int, per_rank: int
) -> None:
    found = adapters(with_adapters(backbones[family], rank=3).model)
    assert len(found) == layers
    assert sum(parameter.numel() for parameter in found.parameters()) == 3 * per_rank


@pytest.mark.parametrize(
    ("width", "inner", "blocks", "per_rank"),
    [(256, 256, 4, 24_576), (384, 512, 4, 43_008), (512, 512, 6, 73_728), (768, 768, 12, 221_184)],
)
def test_rank_of_the_published_chronos_bolt_shapes(
    width: int, inner: int, blocks: int, per_rank: int
) -> None:
    from transformers import T5Config, T5EncoderModel
    from transformers.models.t5.modeling_t5 import T5Stack

    config = T5Config(
        d_model=width,
        d_kv=64,
        num_heads=inner // 64,
        d_ff=8,
        vocab_size=2,
        num_layers=blocks,
        use_cache=False,
    )
    decoder = T5Config(**config.to_dict() | {"is_decoder": True})
    with torch.device("meta"):
        network = torch.nn.ModuleList([T5EncoderModel(config), T5Stack(decoder)])
    budget = parameter_count(PlugMemConfig.preset("base", lookback=512, horizon=720))
    projections = lora._CHRONOS_BOLT.projections
    assert nearest_rank(network, projections, budget) == round(budget / per_rank)


@pytest.mark.parametrize(
    ("family", "steps"), [("bolt", 24), ("chronos2", 24), ("bolt", 64), ("chronos2", 96)]
)
def test_the_loss_of_chronos_is_the_pinball_loss_in_its_own_units_up_to_the_target(
    backbones: dict[str, Any], family: str, steps: int
) -> None:
    backbone = backbones[family]
    context, target = contexts(), torch.randn(4, steps, generator=torch.Generator().manual_seed(5))
    mean, scale = context.mean(1, keepdim=True), context.std(1, correction=0, keepdim=True)
    patches = {} if family == "bolt" else {"num_output_patches": -(-steps // 16)}
    quantiles = backbone.model(context=context, **patches).quantile_preds
    computed = (quantiles - mean[..., None]) / scale[..., None], (target - mean) / scale
    forecast, truth = computed if family == "bolt" else (part.arcsinh() for part in computed)
    levels = backbone.model.chronos_config.quantiles
    by_step = 2 * pinball_loss(truth, forecast[..., :steps], levels)  # [B, Q, h]
    expected = (
        by_step.mean(1).sum(-1) if family == "bolt" else by_step.sum(-1).sum(1) / forecast.shape[-1]
    ).mean()
    windows = PretrainingWindows(context.numpy(), target.numpy())
    torch.testing.assert_close(adaptable_family(backbone).loss(backbone.model, windows), expected)


@EACH_FAMILY
def test_training_lowers_the_validation_loss_and_moves_the_adapters_alone(
    family: str, backbones: dict[str, Any], fitting: Fitting
) -> None:
    network = backbones[family].model
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = backbones[family].predict(contexts(), 24)
    task, frozen = fitting(family)
    fitted = lora.fit(task, frozen)
    diagnostics, forecaster = fitted.diagnostics, fitted.forecaster
    assert diagnostics["val_pinball_after"] < diagnostics["val_pinball_before"]
    assert 0 < diagnostics["lora_steps"] <= 20
    assert type(forecaster) is type(backbones[family])
    assert forecaster.identity != backbones[family].identity  # type: ignore[attr-defined]
    assert not torch.equal(forecaster.predict(contexts(), 24), before)

    assert torch.equal(backbones[family].predict(contexts(), 24), before)
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    [saved] = task.artifacts.glob("lora/*/model.safetensors")
    tensors = load_file(saved)
    assert all("lora_" in name for name in tensors)
    assert sum(tensor.numel() for tensor in tensors.values()) == diagnostics["lora_parameters"]
    assert diagnostics["lora_rank"] == 16  # the networks' width: PlugMem is larger than any adapter of theirs


@pytest.mark.parametrize("family", ["bolt", "flame"])
def test_validation_scores_the_forecast_that_is_evaluated_roll_out_included(
    family: str, fitting: Fitting, tmp_path: Path
) -> None:
    task, frozen = fitting(family, cache=tmp_path / "forecasts", horizon=80, precision="bf16")
    fitted = lora.fit(task, frozen)
    stop = task.windows("val", PROFILE.max_stop_values)
    stored = sorted((tmp_path / "forecasts").iterdir())
    for forecaster, when in ((frozen.backbone, "before"), (fitted.forecaster, "after")):
        scores = evaluate(forecaster, frozen, stop).scores
        assert fitted.diagnostics[f"val_pinball_{when}"] == pytest.approx(scores.crps_unnormalised, rel=1e-6)
    assert fitted.diagnostics["val_pinball_after"] < fitted.diagnostics["val_pinball_before"]
    assert sorted((tmp_path / "forecasts").iterdir()) == stored  # the adapted backbone caches nothing


def refuse(network: torch.nn.Module, windows: PretrainingWindows) -> torch.Tensor:
    raise AssertionError("trained again")


def test_a_second_fit_finds_it_trained(fitting: Fitting, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lora.fit(*fitting("flame"))
    monkeypatch.setattr(lora, "_FLAME", replace(lora._FLAME, loss=refuse))
    second = lora.fit(*fitting("flame"))
    assert second.diagnostics == first.diagnostics
    assert torch.equal(forecast(first), forecast(second))
    assert torch.equal(forecast(first), forecast(lora.fit(*fitting("flame", test_stride=7))))
    with pytest.raises(AssertionError, match="trained again"):
        lora.fit(*fitting("flame", seed=1))


def forecast(fitted: Fitted) -> torch.Tensor:
    return fitted.forecaster.predict(contexts(), 24)


def test_a_killed_training_continues_to_the_same_weights(
    fitting: Fitting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task, frozen = fitting("flame")
    whole = lora.fit(replace(task, artifacts=tmp_path / "whole"), frozen)
    calls = 0

    def interrupted(network: torch.nn.Module, windows: PretrainingWindows) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return loss(network, windows)

    loss = lora._FLAME.loss
    with monkeypatch.context() as patch:
        patch.setattr(lora, "_FLAME", replace(lora._FLAME, loss=interrupted))
        with pytest.raises(KeyboardInterrupt):
            lora.fit(task, frozen)
    assert torch.equal(forecast(lora.fit(task, frozen)), forecast(whole))


def test_when_training_does_not_help_then_the_backbone_itself_stays(
    backbones: dict[str, Any], fitting: Fitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = lora._FLAME.loss
    opposite = replace(lora._FLAME, loss=lambda network, windows: -loss(network, windows))
    monkeypatch.setattr(lora, "_FLAME", opposite)
    fitted = lora.fit(*fitting("flame"))
    assert fitted.forecaster is backbones["flame"]
    assert fitted.diagnostics["lora_steps"] == 0
    assert fitted.diagnostics["val_pinball_after"] == fitted.diagnostics["val_pinball_before"]


def test_the_validation_split_chooses_the_learning_rate(fitting: Fitting) -> None:
    task, frozen = fitting("flame", PROFILE.model_copy(update={"name": "standard"}))
    fitted = lora.fit(task, frozen)
    assert len(list(task.artifacts.glob("lora/*/training.json"))) == 2
    assert fitted.diagnostics["learning_rate"] == 1e-3  # 20 steps are few


def test_nothing_after_the_validation_split_is_read(fitting: Fitting) -> None:
    task, frozen = fitting("bolt")
    poisoned = task.scaled.copy()
    poisoned[task.borders.val[1] :] = np.nan
    fitted = lora.fit(replace(task, scaled=poisoned), replace(frozen, scaled=poisoned))
    assert math.isfinite(fitted.diagnostics["val_pinball_after"])


def test_adapters_of_another_data_set_are_its_own_cells_and_nothing_of_the_target_is_read(
    fitting: Fitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, frozen = fitting("flame")
    own = lora.fit(task, frozen)
    monkeypatch.setattr(lora, "_FLAME", replace(lora._FLAME, loss=refuse))
    nothing = np.full_like(task.scaled, np.nan)
    target = replace(task, scaled=nothing, sources=(Source(task, frozen),))
    transferred = lora.fit(target, replace(frozen, scaled=nothing))
    assert torch.equal(forecast(transferred), forecast(own))
    assert transferred.diagnostics == own.diagnostics


def test_a_pool_trains_on_both_sources_and_scores_the_mean_over_them(
    fitting: Fitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, frozen = fitting("flame")
    higher = replace(task, scaled=100 + 2 * task.scaled)
    sources = Source(task, frozen), Source(higher, replace(frozen, scaled=higher.scaled))
    loss, drawn = lora._FLAME.loss, []

    def watched(network: torch.nn.Module, windows: PretrainingWindows) -> torch.Tensor:
        drawn.append(windows.context.mean(axis=1) > 50)
        return loss(network, windows)

    monkeypatch.setattr(lora, "_FLAME", replace(lora._FLAME, loss=watched))
    fitted = lora.fit(replace(task, sources=sources), frozen)
    assert 0.4 < np.concatenate(drawn).mean() < 0.6
    stop = task.windows("val", PROFILE.max_stop_values)
    before = [evaluate(frozen.backbone, source.frozen, stop).scores.crps_unnormalised for source in sources]
    assert fitted.diagnostics["val_pinball_before"] == pytest.approx(np.mean(before), rel=1e-6)
    assert not torch.equal(forecast(fitted), forecast(lora.fit(task, frozen)))


def test_when_the_backbone_cannot_be_adapted_then_it_is_refused(fitting: Fitting) -> None:
    task, frozen = fitting("flame")
    other = replace(frozen, backbone=SeasonalNaive("naive-last", season=1))
    with pytest.raises(TsbenchError, match="not naive-last; use --backbone flame-small"):
        lora.fit(task, other)
