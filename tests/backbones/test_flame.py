import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.flame import (
    CONTEXT_LIMIT,
    FlameBackbone,
    load,
    make_backbone,
    save_config,
)
from tsbench.errors import TsbenchError
from tsbench.models.flame.model import PRESETS, Flame, FlameConfig

TINY = FlameConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=8, state=4, legendre_order=4)
BLOCK = 256
"""Steps of one pass at a patch of 8."""


def network(seed: int = 0) -> Flame:
    """Random weights, zero-initialised ones too, so that every part tells."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Flame(TINY)
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


FLAME = make_backbone("flame-small", network())
EXPANDING = make_backbone("flame-small", network(), rollout="expand")


def series(batch: int = 3, length: int = 200, seed: int = 1) -> Tensor:
    """Random walks with a season, at several levels and scales."""
    generator = torch.Generator().manual_seed(seed)
    walk = torch.randn(batch, length, generator=generator).cumsum(dim=1)
    units = torch.tensor([1.0, 40.0, 0.01]).repeat(batch)[:batch, None]
    return (walk + 3 * torch.sin(torch.arange(length) / 4) - 20) * units


def assert_close(actual: Tensor, expected: Tensor, context: Tensor, share: float = 2e-4) -> None:
    """Equal to within a share of the standard deviation of what each context observes."""
    assert actual.shape == expected.shape
    deviation = torch.from_numpy(np.nanstd(context.numpy(), axis=1))[:, None, None]
    assert ((actual - expected).abs() <= share * deviation).all()


def test_result_has_the_shape_type_and_order_of_the_protocol() -> None:
    for batch, length, horizon in ((1, 1, 1), (3, 200, 96), (2, 50, BLOCK + 1)):
        forecast = FLAME.predict(series(batch, length), horizon)
        assert forecast.shape == (batch, 9, horizon)
        assert forecast.dtype == torch.float32
        assert (forecast.diff(dim=1) >= 0).all()
    assert FLAME.quantile_levels == tuple(round(0.1 * j, 1) for j in range(1, 10))
    assert FLAME.block == BLOCK
    assert not FLAME.model.training
    assert not any(parameter.requires_grad for parameter in FLAME.model.parameters())


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    length=st.integers(20, 90),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-10, 10),
)
def test_forecasts_ascend_and_follow_a_change_of_units(
    seed: int, length: int, scale: float, shift: float
) -> None:
    context = torch.randn(2, length, generator=torch.Generator().manual_seed(seed))
    forecast = FLAME.predict(context, 20)
    assert (forecast.diff(dim=1) >= 0).all()
    moved = context * scale + shift * scale
    assert_close(FLAME.predict(moved, 20), forecast * scale + shift * scale, moved, share=2e-3)


@pytest.mark.parametrize("backbone", [FLAME, EXPANDING], ids=["median", "expand"])
def test_a_shorter_horizon_is_the_prefix_of_a_longer_one(backbone: FlameBackbone) -> None:
    context = series(batch=2, length=120)
    long = backbone.predict(context, BLOCK + 40)
    assert backbone.prefix_consistent
    for horizon in (1, 30, BLOCK, BLOCK + 7):
        assert_close(backbone.predict(context, horizon), long[..., :horizon], context, share=1e-3)


def test_rows_do_not_influence_each_other() -> None:
    context = series(batch=131, length=40)  # more rows than one call takes
    context[7, :20] = torch.nan
    together = FLAME.predict(context, 10)
    for row in (0, 7, 127, 128, 130):
        here = slice(row, row + 1)
        assert_close(FLAME.predict(context[here], 10), together[here], context[here], share=1e-5)
    order = torch.randperm(131, generator=torch.Generator().manual_seed(0))
    assert_close(FLAME.predict(context[order], 10), together[order], context[order], share=1e-5)
    torch.testing.assert_close(FLAME.embed(context)[order], FLAME.embed(context[order]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_pass_is_the_networks_distribution_in_data_units() -> None:
    context = series()
    forecast = FLAME.model(context, 24)
    expected = forecast.distribution.quantiles(FLAME.quantile_levels)
    expected = expected * forecast.scale[:, None] + forecast.mean[:, None]
    assert_close(FLAME.predict(context, 24), expected, context, share=1e-5)


def one_pass(context: Tensor) -> Tensor:
    return FLAME.predict(context[:, -CONTEXT_LIMIT:], BLOCK)


def test_beyond_one_pass_medians_are_fed_back() -> None:
    context = series(batch=2, length=CONTEXT_LIMIT - 100)  # with what is fed back it exceeds the limit
    first = one_pass(context)
    second = one_pass(torch.cat([context, first[:, 4]], dim=1))
    expected = torch.cat([first, second], dim=-1)[..., : BLOCK + 50]
    assert_close(FLAME.predict(context, BLOCK + 50), expected, context, share=1e-3)


def test_beyond_one_pass_expand_feeds_every_quantile_back() -> None:
    context = series(batch=1, length=120)
    first = one_pass(context)
    paths = torch.cat([torch.cat([context, first[:, level]], dim=1) for level in range(9)])
    branches = one_pass(paths).flatten(0, 1)  # [81, block]
    second = torch.quantile(branches, torch.tensor(FLAME.quantile_levels), dim=0)[None]
    expected = torch.cat([first, second], dim=-1)[..., : BLOCK + 50]
    assert_close(EXPANDING.predict(context, BLOCK + 50), expected, context, share=1e-3)
    assert not torch.allclose(FLAME.predict(context, BLOCK + 50), expected, rtol=1e-2)


def test_only_the_latest_points_of_a_long_context_count() -> None:
    context = series(batch=2, length=CONTEXT_LIMIT + 172)
    latest = context[:, -CONTEXT_LIMIT:]
    assert torch.equal(FLAME.predict(context, 40), FLAME.predict(latest, 40))
    assert torch.equal(FLAME.embed(context), FLAME.embed(latest))
    assert torch.equal(FLAME.sample(context, 40, 3), FLAME.sample(latest, 40, 3))
    assert not torch.equal(FLAME.predict(latest[:, 1:], 40), FLAME.predict(latest, 40))


def test_missing_and_constant_contexts_give_finite_forecasts() -> None:
    context = series(batch=5)
    context[0, :150] = torch.nan
    context[1, ::3] = torch.nan
    context[2, -30:] = torch.nan
    context[3] = torch.nan
    context[4] = -3.7
    forecast = FLAME.predict(context, BLOCK + 10)
    assert forecast.isfinite().all()
    assert (forecast[4] + 3.7).abs().max() < 1e-3
    assert FLAME.embed(context).isfinite().all()


def test_embedding_is_deterministic_and_the_same_in_any_units() -> None:
    context = series()
    embedding = FLAME.embed(context)
    assert embedding.shape == (3, 16)
    assert embedding.dtype == torch.float32
    assert torch.equal(FLAME.embed(context), embedding)
    torch.testing.assert_close(FLAME.embed(context * 3.7 + 20), embedding, rtol=1e-3, atol=1e-3)
    assert (torch.cdist(embedding, embedding) + torch.eye(3) > 1e-2).all()


def test_samples_are_reproducible_and_follow_the_seed() -> None:
    context = series(batch=130, length=40)
    paths = FLAME.sample(context, 12, n=5, seed=3)
    assert paths.shape == (130, 5, 12)
    assert paths.dtype == torch.float32
    torch.rand(7)  # the global generator has no part in it
    assert torch.equal(FLAME.sample(context, 12, n=5, seed=3), paths)
    assert not torch.equal(FLAME.sample(context, 12, n=5, seed=4), paths)
    twins = FLAME.sample(context[:1].repeat(130, 1), 12, n=5)
    assert len(torch.unique(twins[:, 0], dim=0)) == 130  # each context has draws of its own


def test_deciles_of_the_samples_are_those_predicted() -> None:
    context = series()
    paths = FLAME.sample(context, 16, n=20_000)
    exact = FLAME.predict(context, 16)
    below = (paths[:, None] <= exact[:, :, None]).float().mean(dim=2)  # [B, Q, H]
    levels = torch.tensor(FLAME.quantile_levels)[None, :, None]
    assert (below - levels).abs().max() < 0.02


def test_samples_are_joint_over_steps_and_independent_between_contexts() -> None:
    model = network()
    with torch.no_grad():
        model.head.skip.bias[2 * TINY.patch : 3 * TINY.patch] = 3.0  # correlation of neighbouring steps
    context = series(batch=1, length=64).repeat(2, 1)
    paths = make_backbone("flame-small", model).sample(context, 24, n=2_000)
    one = torch.corrcoef(paths[0].T)
    assert (one.diagonal(offset=1) > 0.6).all()  # within patches and across their borders
    between = torch.corrcoef(torch.stack([paths[0, :, 0], paths[1, :, 0]]))[0, 1]
    assert abs(between) < 0.1


def test_identity_follows_weights_shape_name_and_roll_out_and_nothing_else() -> None:
    same = make_backbone("flame-small", network())
    assert same.identity == FLAME.identity
    changed = network()
    changed.head.skip.bias.data[0] += 1e-3
    weighted = Flame(replace(TINY, pinball_weight=0.5))
    weighted.load_state_dict(network().state_dict())
    identities = {
        FLAME.identity,
        EXPANDING.identity,
        make_backbone("flame-small", changed).identity,
        make_backbone("flame-small", weighted).identity,
        make_backbone("flame-base", network()).identity,
    }
    assert len(identities) == 5


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pre-trained directory of a flame-small that is as small as the tests' network."""
    monkeypatch.setitem(PRESETS, "flame-small", TINY)
    save_file(network().state_dict(), tmp_path / "model.safetensors")
    save_config(tmp_path, TINY, {"steps": 3})
    return tmp_path


def options(checkpoint: Path | None, name: str = "flame-small", **others: str) -> BackboneOptions:
    return BackboneOptions(name, str(checkpoint) if checkpoint else None, **others)  # type: ignore[arg-type]


def test_a_checkpoint_directory_gives_the_saved_network(checkpoint: Path) -> None:
    loaded = load(options(checkpoint))
    assert loaded.identity == FLAME.identity
    assert torch.equal(loaded.predict(series(), 30), FLAME.predict(series(), 30))
    assert load(options(checkpoint, rollout="expand")).identity == EXPANDING.identity
    assert json.loads((checkpoint / "flame.json").read_text())["card"] == {"steps": 3}
    ablation = replace(TINY, head="quantile", legendre_order=0)
    save_file(Flame(ablation).state_dict(), checkpoint / "model.safetensors")
    save_config(checkpoint, ablation, {})
    assert load(options(checkpoint)).model.config == ablation


def refusal(asked: BackboneOptions) -> str:
    with pytest.raises(TsbenchError) as caught:
        load(asked)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 450
    assert ";" in message  # cause; remedy
    return message


def test_when_a_file_is_missing_then_it_is_named(checkpoint: Path) -> None:
    assert "flame.json is missing; give a directory that" in refusal(options(checkpoint / "nowhere"))
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors is missing; give" in refusal(options(checkpoint))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "\udcff",
        '{"config": null}',
        '{"config": {"width": "wide"}}',
        '{"config": {"head": "diffusion"}}',
        '{"config": {"patch": -8}}',
        '{"config": {"width": 32}}',
    ],
)
def test_when_the_configuration_is_damaged_then_the_directory_is_refused(
    checkpoint: Path, content: str
) -> None:
    (checkpoint / "flame.json").write_text(content, errors="surrogateescape")
    assert f"cannot read the FLAME checkpoint '{checkpoint}': " in refusal(options(checkpoint))


@pytest.mark.parametrize("damage", ["empty", "truncated", "not tensors", "foreign"])
def test_when_the_weights_are_damaged_or_foreign_then_the_directory_is_refused(
    checkpoint: Path, damage: str
) -> None:
    path = checkpoint / "model.safetensors"
    if damage == "foreign":
        save_file({"layer.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(
            {"empty": b"", "truncated": path.read_bytes()[:-40], "not tensors": b"<html>" * 20}[damage]
        )
    assert f"cannot read the FLAME checkpoint '{checkpoint}': " in refusal(options(checkpoint))


def test_when_the_weights_are_those_of_another_size_then_the_directory_is_refused(checkpoint: Path) -> None:
    assert f"the weights in '{checkpoint}' are not those of a flame-base; give another" in refusal(
        options(checkpoint, "flame-base")
    )


def test_a_size_without_weights_says_how_to_get_them() -> None:
    message = refusal(options(None, "flame-base"))
    assert "'flame-base' ships no weights; use flame-small, or pre-train it" in message
    assert "tsbench pretrain --model flame-base" in message
    assert "--checkpoint" in message


def test_unknown_devices_and_foreign_roll_outs_are_refused(checkpoint: Path) -> None:
    assert "unknown device 'tpu9'; use cpu, cuda" in refusal(options(checkpoint, device="tpu9"))
    assert "is not available: PyTorch sees" in refusal(options(checkpoint, device="cuda:99"))
    assert "no roll-out 'sample'; use median or expand" in refusal(options(checkpoint, rollout="sample"))
