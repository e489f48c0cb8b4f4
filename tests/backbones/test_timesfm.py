"""The package timesfm knows one size; here its network is built from a tiny configuration of that kind."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.timesfm import TimesFM, load
from tsbench.bench.networks import networks, parameter_count, require_compilable
from tsbench.errors import TsbenchError

pytest.importorskip("timesfm")
from timesfm import ForecastConfig, TimesFM_2p5_200M_torch
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition
from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module

PATCH, BLOCK, LONGEST, WIDTH = 8, 16, 64, 16


class Tiny(TimesFM_2p5_200M_Definition):
    context_limit = 256


def tiny_definition() -> Tiny:
    full = Tiny()
    transformer = replace(
        full.stacked_transformers.transformer, model_dims=WIDTH, hidden_dims=WIDTH, num_heads=2
    )
    point = replace(full.output_projection_point, input_dims=WIDTH, hidden_dims=WIDTH, output_dims=10 * BLOCK)
    return replace(
        full,
        input_patch_len=PATCH,
        output_patch_len=BLOCK,
        output_quantile_len=LONGEST,
        tokenizer=replace(full.tokenizer, input_dims=2 * PATCH, hidden_dims=WIDTH, output_dims=WIDTH),
        stacked_transformers=replace(full.stacked_transformers, num_layers=2, transformer=transformer),
        output_projection_point=point,
        output_projection_quantiles=replace(point, output_dims=10 * LONGEST),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights under the published file's name and keys."""
    folder = tmp_path_factory.mktemp("timesfm")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(TimesFM_2p5_200M_torch_module, "config", tiny_definition())
        torch.manual_seed(0)
        network = TimesFM_2p5_200M_torch_module()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        save_file(network.state_dict(), folder / "model.safetensors")
        yield folder


def options(folder: Path) -> BackboneOptions:
    return BackboneOptions("timesfm-2.5", checkpoint=str(folder))


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> TimesFM:
    return load(options(checkpoint))


@pytest.fixture(scope="module")
def package(checkpoint: Path) -> TimesFM_2p5_200M_torch:
    return TimesFM_2p5_200M_torch.from_pretrained(str(checkpoint), torch_compile=False)


def package_forecast(
    package: TimesFM_2p5_200M_torch, context: torch.Tensor, horizon: int, *, positive: bool = False
) -> torch.Tensor:
    """What the package forecasts in batches of 3, whose last one it pads, always as far as it can."""
    package.compile(
        ForecastConfig(
            max_context=min(context.shape[1], 192),
            max_horizon=LONGEST,
            normalize_inputs=True,
            per_core_batch_size=3,
            use_continuous_quantile_head=True,
            force_flip_invariance=True,
            infer_is_positive=positive,
            fix_quantile_crossing=True,
        )
    )
    _, forecast = package.forecast(horizon, list(context.numpy()))
    return torch.from_numpy(forecast[..., 1:]).transpose(1, 2)


@pytest.mark.parametrize(("lookback", "horizon"), [(40, 1), (100, 16), (100, 50), (200, 64)])
def test_forecast_equals_the_packages(
    backbone: TimesFM,
    package: TimesFM_2p5_200M_torch,
    walks: torch.Tensor,
    lookback: int,
    horizon: int,
) -> None:
    context = walks[:, -lookback:]
    expected = package_forecast(package, context, horizon)
    torch.testing.assert_close(backbone.predict(context, horizon), expected, rtol=1e-4, atol=1e-4)


def test_median_is_the_naive_roll_out_averaged_with_that_of_the_mirrored_context(
    backbone: TimesFM, walks: torch.Tensor
) -> None:
    network = backbone.package_model.model
    context = walks[:, -100:].numpy()
    ahead, mirrored = (np.stack(network.forecast_naive(50, list(sign * context))) for sign in (1, -1))
    expected = torch.from_numpy((ahead - mirrored)[:, :50, 5] / 2)
    torch.testing.assert_close(backbone.predict(walks[:, -100:], 50)[:, 4], expected, rtol=1e-4, atol=1e-4)


def test_non_negative_contexts_are_not_cut_off_at_zero(
    backbone: TimesFM, package: TimesFM_2p5_200M_torch, walks: torch.Tensor
) -> None:
    context = walks[:, -192:] - walks[:, -192:].amin(dim=1, keepdim=True)
    forecast = backbone.predict(context, 64)
    assert (forecast < 0).any()
    cut = package_forecast(package, context, 64, positive=True)
    torch.testing.assert_close(forecast.clamp(min=0), cut, rtol=1e-4, atol=1e-4)


def test_embedding_is_the_last_output_token_that_the_packages_decoding_has(
    backbone: TimesFM, walks: torch.Tensor
) -> None:
    network = backbone.package_model.model
    seen: list[torch.Tensor] = []
    hook = network.stacked_xf[-1].register_forward_hook(lambda _, __, output: seen.append(output[0][:, -1]))
    padded = torch.nn.functional.pad(walks[:, -100:], (4, 0))
    masks = (torch.arange(104) < 4).expand(5, -1)
    network.decode(BLOCK, padded, masks)
    hook.remove()
    vectors = backbone.embed(walks[:, -100:])
    assert vectors.shape == (5, WIDTH)
    torch.testing.assert_close(vectors, seen[0], rtol=1e-4, atol=1e-4)


def test_every_parameter_of_the_checkpoint_counts_and_torch_compile_reaches_them(
    backbone: TimesFM, checkpoint: Path
) -> None:
    stored = load_file(checkpoint / "model.safetensors")
    names = {name for name, _ in networks(backbone)[0].named_parameters()}
    assert names <= stored.keys()
    assert parameter_count(backbone) == sum(stored[name].numel() for name in names)
    require_compilable(backbone, 100)


def test_a_longer_horizon_leaves_the_first_steps_as_they_are(backbone: TimesFM, walks: torch.Tensor) -> None:
    assert backbone.prefix_consistent
    long = backbone.predict(walks, 64)
    for horizon in (10, 16, 40):
        torch.testing.assert_close(
            backbone.predict(walks, horizon), long[..., :horizon], rtol=1e-4, atol=1e-4
        )


def test_intervals_come_from_the_first_call_and_the_median_from_the_roll_out(
    backbone: TimesFM, walks: torch.Tensor
) -> None:
    calls: list[int] = []
    network = backbone.package_model.model
    hook = network.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[1]))
    backbone.predict(walks[:, -96:], 64)
    hook.remove()
    one_way = [96 // PATCH, *[BLOCK // PATCH] * 3]
    assert calls == one_way * 2  # and again for the mirrored context
    assert (backbone.rollout, backbone.block, backbone.max_horizon) == ("median", BLOCK, LONGEST)


def test_forecast_follows_units_and_sign_and_the_embedding_ignores_units(
    backbone: TimesFM, walks: torch.Tensor
) -> None:
    forecast = backbone.predict(walks, 64)
    moved = 5.0 * walks + 20.0
    torch.testing.assert_close(backbone.predict(moved, 64), 5.0 * forecast + 20.0, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(backbone.embed(moved), backbone.embed(walks), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(backbone.predict(-walks, 64), -forecast.flip(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows_per_call", [1, 3, 64])
def test_rows_do_not_depend_on_their_batch(
    backbone: TimesFM, walks: torch.Tensor, rows_per_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [(backbone.predict(walk[None], 50), backbone.embed(walk[None])) for walk in walks]
    monkeypatch.setattr("tsbench.backbones.timesfm._ROWS_PER_CALL", rows_per_call)
    order = torch.tensor([3, 0, 4, 1, 2])
    forecast, vectors = backbone.predict(walks[order], 50), backbone.embed(walks[order])
    torch.testing.assert_close(forecast, torch.cat([alone[row][0] for row in order]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vectors, torch.cat([alone[row][1] for row in order]), rtol=1e-4, atol=1e-4)


def test_results_are_plain_sorted_float32_and_the_context_stays_as_it_was(
    backbone: TimesFM, walks: torch.Tensor
) -> None:
    before = walks.clone()
    forecast, vectors = backbone.predict(walks, 50), backbone.embed(walks)
    assert torch.equal(walks, before)
    assert forecast.shape == (5, 9, 50)
    assert backbone.quantile_levels == tuple(j / 10 for j in range(1, 10))
    assert (forecast.diff(dim=1) >= 0).all()
    for result in (forecast, vectors):
        assert result.dtype == torch.float32
        assert not result.requires_grad
    assert torch.equal(backbone.predict(walks, 50), forecast)


@pytest.mark.parametrize("value", [0.0, -7.5])
def test_constant_context_gives_a_constant_forecast(backbone: TimesFM, value: float) -> None:
    forecast = backbone.predict(torch.full((2, 100), value), 64)
    torch.testing.assert_close(forecast, torch.full((2, 9, 64), value), rtol=0, atol=1e-3)


def test_only_the_latest_points_within_the_context_limit_count(backbone: TimesFM) -> None:
    assert backbone.context_limit == 256 - LONGEST
    context = torch.randn(2, 250, generator=torch.Generator().manual_seed(4))
    replaced = context.clone()
    replaced[:, :58] = 1e6
    assert torch.equal(backbone.predict(context, 20), backbone.predict(replaced, 20))
    assert torch.equal(backbone.embed(context), backbone.embed(replaced))


def test_horizons_beyond_the_quantile_head_are_refused(backbone: TimesFM, walks: torch.Tensor) -> None:
    with pytest.raises(TsbenchError, match=r"'timesfm-2\.5' forecasts at most 64 steps"):
        backbone.predict(walks, 65)


def test_identity_is_that_of_the_weights(backbone: TimesFM, checkpoint: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"timesfm-2\.5-[0-9a-f]{16}-median-v1", backbone.identity)
    weights = load_file(checkpoint / "model.safetensors")
    save_file(weights, tmp_path / "model.safetensors")
    assert load(options(tmp_path)).identity == backbone.identity
    weights["tokenizer.hidden_layer.bias"][0] += 1e-3
    save_file(weights, tmp_path / "model.safetensors")
    assert load(options(tmp_path)).identity != backbone.identity


@pytest.mark.parametrize("damage", ["no folder", "no weights", "cut weights", "other weights"])
def test_unusable_checkpoint_is_one_line_with_the_remedy(
    checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    if damage == "cut weights":
        weights = checkpoint.joinpath("model.safetensors").read_bytes()
        tmp_path.joinpath("model.safetensors").write_bytes(weights[: len(weights) // 2])
    if damage == "other weights":
        save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    folder = tmp_path / "absent" if damage == "no folder" else tmp_path
    with pytest.raises(TsbenchError, match=r"cannot load 'timesfm-2\.5' from .*--checkpoint DIR") as caught:
        load(options(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("checkpoint")
def test_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(source: str, file: str) -> str:
        raise OSError(f"We couldn't connect to the hub to load {source}/{file}.")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/somewhere/model.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(TsbenchError, match=r"from 'google/timesfm-2\.5-200m-pytorch'.*--checkpoint DIR"):
        load(BackboneOptions("timesfm-2.5"))


def test_weights_in_the_hubs_cache_need_no_hub(
    checkpoint: Path, backbone: TimesFM, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(checkpoint / "model.safetensors")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda _, file: path if "safe" in file else None
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: path)
    monkeypatch.setattr("requests.head", lambda *_, **__: pytest.fail("the hub was asked"))
    assert load(BackboneOptions("timesfm-2.5")).identity == backbone.identity


def test_another_roll_out_is_refused(checkpoint: Path) -> None:
    with pytest.raises(TsbenchError, match="no roll-out 'expand'; use median"):
        load(replace(options(checkpoint), rollout="expand"))


def test_a_cell_runs(checkpoint: Path, tmp_path: Path) -> None:
    table = tsbench.run(
        "origin",
        backbone="timesfm",
        checkpoint=str(checkpoint),
        dataset="demo",
        horizon=24,
        profile="quick",
        test_stride=200,
        results=tmp_path,
    )
    assert "timesfm-2.5" in set(table["backbone"])
    assert table["mse"].notna().all()
