import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.chronos import Chronos2, ChronosBolt, load_bolt, load_chronos2
from tsbench.errors import TsbenchError

pytest.importorskip("chronos")
from chronos import Chronos2Pipeline, ChronosBoltPipeline

EACH_KIND = pytest.mark.parametrize("fixture", ["bolt_median", "bolt_expand", "chronos2"])
CHANNELS = 3


def bolt_options(folder: Path, rollout: str | None = None) -> BackboneOptions:
    return BackboneOptions("chronos-bolt-tiny", checkpoint=str(folder), rollout=rollout)


@pytest.fixture(scope="module")
def bolt_median(tiny_bolt: Path) -> ChronosBolt:
    return load_bolt(bolt_options(tiny_bolt))


@pytest.fixture(scope="module")
def bolt_expand(tiny_bolt: Path) -> ChronosBolt:
    return load_bolt(bolt_options(tiny_bolt, "expand"))


@pytest.fixture(scope="module")
def chronos2(tiny_chronos2: Path) -> Chronos2:
    return load_chronos2(BackboneOptions("chronos-2", checkpoint=str(tiny_chronos2)))


@pytest.fixture(scope="module")
def grouped(tiny_chronos2: Path) -> Chronos2:
    options = BackboneOptions("chronos-2-multivariate", checkpoint=str(tiny_chronos2), channels=CHANNELS)
    return load_chronos2(options)


@pytest.fixture
def windows() -> torch.Tensor:
    """Four windows of three channels and 100 steps [4, 3, 100]."""
    return torch.randn(4, CHANNELS, 100, generator=torch.Generator().manual_seed(5)).cumsum(dim=-1)


@pytest.fixture(scope="module")
def bolt_pipeline(tiny_bolt: Path) -> ChronosBoltPipeline:
    return ChronosBoltPipeline.from_pretrained(tiny_bolt)


@pytest.fixture(scope="module")
def chronos2_pipeline(tiny_chronos2: Path) -> Chronos2Pipeline:
    return Chronos2Pipeline.from_pretrained(tiny_chronos2)


@pytest.mark.parametrize("horizon", [1, 40, 64])
def test_one_bolt_block_equals_the_packages(
    bolt_median: ChronosBolt, bolt_pipeline: ChronosBoltPipeline, walks: torch.Tensor, horizon: int
) -> None:
    raw = bolt_pipeline.predict(walks, horizon)
    assert (raw.diff(dim=1) < 0).any()
    assert torch.equal(bolt_median.predict(walks, horizon), raw.sort(dim=1).values)


@pytest.mark.filterwarnings("ignore:We recommend keeping prediction length:UserWarning")
@pytest.mark.parametrize("horizon", [65, 200])
def test_bolt_expand_equals_the_packages_long_forecast(
    bolt_expand: ChronosBolt, bolt_pipeline: ChronosBoltPipeline, walks: torch.Tensor, horizon: int
) -> None:
    expected = bolt_pipeline.predict(walks, horizon).sort(dim=1).values
    torch.testing.assert_close(bolt_expand.predict(walks, horizon), expected)


def test_bolt_median_equals_a_loop_of_the_packages_single_blocks(
    bolt_median: ChronosBolt, bolt_pipeline: ChronosBoltPipeline, walks: torch.Tensor
) -> None:
    blocks, context = [], walks
    for _ in range(4):
        blocks.append(bolt_pipeline.predict(context, 64))
        context = torch.cat([context, blocks[-1][:, 4]], dim=1)
    expected = torch.cat(blocks, dim=-1)[..., :200].sort(dim=1).values
    torch.testing.assert_close(bolt_median.predict(walks, 200), expected)


@pytest.mark.parametrize("horizon", [1, 50, 128])
def test_chronos2_equals_the_deciles_of_the_packages_forecast(
    chronos2: Chronos2, chronos2_pipeline: Chronos2Pipeline, walks: torch.Tensor, horizon: int
) -> None:
    series, _ = chronos2_pipeline.predict_quantiles(
        walks[:, None], horizon, quantile_levels=list(chronos2.quantile_levels)
    )
    expected = torch.cat(series).transpose(1, 2).sort(dim=1).values
    torch.testing.assert_close(chronos2.predict(walks, horizon), expected)


@pytest.mark.parametrize("rows_per_call", [1, 7, 64])
def test_multivariate_chronos2_equals_the_packages_forecast_of_each_window(
    grouped: Chronos2,
    chronos2_pipeline: Chronos2Pipeline,
    windows: torch.Tensor,
    rows_per_call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, vectors = [], []
    for window in windows:
        series, _ = chronos2_pipeline.predict_quantiles(
            window[None], 50, quantile_levels=list(grouped.quantile_levels)
        )
        expected.append(series[0].transpose(1, 2).sort(dim=1).values)
        vectors.append(chronos2_pipeline.embed(window[None])[0][0][:, -2])
    monkeypatch.setattr("tsbench.backbones.chronos._ROWS_PER_CALL", {"cpu": rows_per_call})
    rows = windows.flatten(0, 1)
    torch.testing.assert_close(grouped.predict(rows, 50), torch.cat(expected))
    torch.testing.assert_close(grouped.embed(rows), torch.cat(vectors))


def test_only_multivariate_chronos2_reads_the_other_channels_of_a_window(
    grouped: Chronos2, chronos2: Chronos2, windows: torch.Tensor
) -> None:
    changed = windows.clone()
    changed[1, 2] = changed[1, 2].flip(0)
    moved = (grouped.predict(windows.flatten(0, 1), 50) - grouped.predict(changed.flatten(0, 1), 50)).abs()
    alone = (chronos2.predict(windows.flatten(0, 1), 50) - chronos2.predict(changed.flatten(0, 1), 50)).abs()
    by_row = moved.amax(dim=(1, 2)).view(4, CHANNELS)
    assert (by_row[1] > 1e-2).all()
    assert by_row[[0, 2, 3]].max() < 1e-4
    assert alone.amax(dim=(1, 2)).view(4, CHANNELS)[1, :2].max() < 1e-4


def test_chronos2_refuses_horizons_beyond_one_call(chronos2: Chronos2, walks: torch.Tensor) -> None:
    with pytest.raises(TsbenchError, match="'chronos-2' forecasts at most 128 steps"):
        chronos2.predict(walks, 129)


def test_bolt_embedding_is_the_last_token_of_the_packages(
    bolt_median: ChronosBolt, bolt_pipeline: ChronosBoltPipeline, walks: torch.Tensor
) -> None:
    tokens, _ = bolt_pipeline.embed(walks)
    assert tokens.shape == (5, 14, 16)
    assert torch.equal(bolt_median.embed(walks), tokens[:, -1])


def test_chronos2_embedding_is_the_token_before_the_masked_patch(
    chronos2: Chronos2, chronos2_pipeline: Chronos2Pipeline, walks: torch.Tensor
) -> None:
    series, _ = chronos2_pipeline.embed(walks[:, None])
    assert series[0].shape == (1, 15, 16)
    torch.testing.assert_close(chronos2.embed(walks), torch.cat(series)[:, -2])


@EACH_KIND
def test_declared_prefix_property_is_the_real_one(
    fixture: str, request: pytest.FixtureRequest, walks: torch.Tensor
) -> None:
    backbone = request.getfixturevalue(fixture)
    long = backbone.predict(walks, 128)
    same = [
        torch.allclose(backbone.predict(walks, h), long[..., :h], rtol=1e-4, atol=1e-5) for h in (10, 64, 96)
    ]
    assert all(same) if backbone.prefix_consistent else not any(same)


@EACH_KIND
def test_forecast_follows_units_and_embedding_ignores_them(
    fixture: str, request: pytest.FixtureRequest, walks: torch.Tensor
) -> None:
    backbone = request.getfixturevalue(fixture)
    context = walks - walks.mean(dim=1, keepdim=True)
    moved = 5.0 * context + 20.0
    expected = 5.0 * backbone.predict(context, 100) + 20.0
    torch.testing.assert_close(backbone.predict(moved, 100), expected, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(backbone.embed(moved), backbone.embed(context), rtol=1e-3, atol=1e-4)


@EACH_KIND
@pytest.mark.parametrize("rows_per_call", [1, 3, 64])
def test_rows_do_not_depend_on_their_batch(
    fixture: str,
    rows_per_call: int,
    request: pytest.FixtureRequest,
    walks: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = request.getfixturevalue(fixture)
    alone = [(backbone.predict(walk[None], 100), backbone.embed(walk[None])) for walk in walks]
    monkeypatch.setattr("tsbench.backbones.chronos._ROWS_PER_CALL", {"cpu": rows_per_call})
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    forecast, vectors = backbone.predict(walks[shuffled], 100), backbone.embed(walks[shuffled])
    torch.testing.assert_close(forecast, torch.cat([alone[row][0] for row in shuffled]))
    torch.testing.assert_close(vectors, torch.cat([alone[row][1] for row in shuffled]))


@EACH_KIND
def test_results_are_plain_sorted_float32_and_repeatable(
    fixture: str, request: pytest.FixtureRequest, walks: torch.Tensor
) -> None:
    backbone = request.getfixturevalue(fixture)
    forecast, vectors = backbone.predict(walks[:1], 100), backbone.embed(walks)
    assert forecast.shape == (1, 9, 100)
    assert vectors.shape == (5, 16)
    assert backbone.quantile_levels == tuple(j / 10 for j in range(1, 10))
    assert (forecast.diff(dim=1) >= 0).all()
    for result in (forecast, vectors):
        assert result.dtype == torch.float32
        assert not result.requires_grad
        assert not result.is_inference()
    assert torch.equal(backbone.predict(walks[:1], 100), forecast)
    assert torch.equal(backbone.embed(walks), vectors)


@EACH_KIND
@pytest.mark.parametrize("value", [0.0, -7.5])
def test_constant_context_gives_a_constant_forecast(
    fixture: str, request: pytest.FixtureRequest, value: float
) -> None:
    forecast = request.getfixturevalue(fixture).predict(torch.full((2, 100), value), 100)
    torch.testing.assert_close(forecast, torch.full((2, 9, 100), value), rtol=0, atol=1e-2)


@pytest.mark.parametrize("fixture", ["bolt_median", "chronos2"])
def test_only_the_latest_points_within_the_context_limit_count(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(fixture)
    context = torch.randn(2, 600, generator=torch.Generator().manual_seed(4))
    replaced = context.clone()
    replaced[:, :80] = 1e6
    assert torch.equal(backbone.predict(context, 20), backbone.predict(replaced, 20))


def test_identity_tells_rollouts_weights_and_settings_apart_but_not_copies(
    bolt_median: ChronosBolt, bolt_expand: ChronosBolt, tiny_bolt: Path, tmp_path: Path
) -> None:
    assert re.fullmatch(r"chronos-bolt-tiny-[0-9a-f]{16}-median-v1", bolt_median.identity)
    assert bolt_median.identity != bolt_expand.identity
    bolt_median.model.save_pretrained(tmp_path / "copy")
    assert load_bolt(bolt_options(tmp_path / "copy")).identity == bolt_median.identity

    config = tiny_bolt.joinpath("config.json").read_text()
    shorter = tmp_path / "copy" / "config.json"
    shorter.write_text(config.replace('"context_length": 256', '"context_length": 128'))
    assert load_bolt(bolt_options(tmp_path / "copy")).identity != bolt_median.identity

    shorter.write_text(config)
    other = load_bolt(bolt_options(tmp_path / "copy"))
    with torch.no_grad():
        other.model.shared.weight[0, 0] += 1e-3
    other.model.save_pretrained(tmp_path / "copy")
    assert load_bolt(bolt_options(tmp_path / "copy")).identity != bolt_median.identity


@pytest.mark.parametrize("damage", ["no folder", "no weights", "cut weights", "not a chronos"])
def test_unusable_checkpoint_is_one_line_with_the_remedy(
    tiny_bolt: Path, tmp_path: Path, damage: str
) -> None:
    if damage != "no folder":
        tmp_path.joinpath("config.json").write_bytes(tiny_bolt.joinpath("config.json").read_bytes())
    if damage == "cut weights":
        weights = tiny_bolt.joinpath("model.safetensors").read_bytes()
        tmp_path.joinpath("model.safetensors").write_bytes(weights[: len(weights) // 2])
    if damage == "not a chronos":
        tmp_path.joinpath("config.json").write_text('{"model_type": "t5"}')
    folder = tmp_path / "absent" if damage == "no folder" else tmp_path
    with pytest.raises(
        TsbenchError, match=r"cannot load 'chronos-bolt-tiny' from .*--checkpoint DIR"
    ) as caught:
        load_bolt(bolt_options(folder))
    assert "\n" not in str(caught.value)


def test_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(source: str, **_: object) -> None:
        raise OSError(f"We couldn't connect to the hub to load {source}.")

    monkeypatch.setattr("chronos.BaseChronosPipeline.from_pretrained", offline)
    with pytest.raises(TsbenchError, match=r"from 'amazon/chronos-bolt-mini'.*--checkpoint DIR"):
        load_bolt(BackboneOptions("chronos-bolt-mini"))


def test_checkpoint_of_the_other_family_is_refused(tiny_bolt: Path, tiny_chronos2: Path) -> None:
    with pytest.raises(TsbenchError, match="holds a Chronos2Model"):
        load_bolt(bolt_options(tiny_chronos2))
    with pytest.raises(TsbenchError, match="holds a ChronosBoltModelForForecasting"):
        load_chronos2(BackboneOptions("chronos-2", checkpoint=str(tiny_bolt)))


def test_cells_run_on_each_family(tiny_bolt: Path, tiny_chronos2: Path, tmp_path: Path) -> None:
    for name, checkpoint in (
        ("chronos-bolt-tiny", tiny_bolt),
        ("chronos-2", tiny_chronos2),
        ("chronos-2-multivariate", tiny_chronos2),
    ):
        table = tsbench.run(
            "origin",
            backbone=name,
            checkpoint=str(checkpoint),
            dataset="demo",
            horizon=24,
            profile="quick",
            test_stride=200,
            results=tmp_path,
        )
        assert name in set(table["backbone"])
        assert table["mse"].notna().all()


def test_unsupported_rollout_and_device_are_refused(tiny_bolt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TsbenchError, match="no roll-out 'sample'; use median or expand"):
        load_bolt(bolt_options(tiny_bolt, "sample"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device, message in (
        ("cuda", "'cuda' is not available.*--device cpu"),
        ("gpu", "unknown device 'gpu'"),
    ):
        with pytest.raises(TsbenchError, match=message):
            load_bolt(replace(bolt_options(tiny_bolt), device=device))
