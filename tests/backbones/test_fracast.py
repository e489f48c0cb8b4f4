import sys
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tsbench.backbones import fracast_encoder
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.fracast import Fracast, load
from tsbench.errors import TsbenchError
from tsbench.registry import load_backbone

fracast = pytest.importorskip("fracast")

POSITIONS = 2048


@pytest.fixture(scope="module")
def package() -> Any:
    return fracast.FracastModel.from_pretrained(weights="fp32")


@pytest.fixture(scope="module")
def median() -> Fracast:
    return load(BackboneOptions("fracast"))


@pytest.fixture(scope="module")
def expand(median: Fracast) -> Fracast:
    return load(BackboneOptions("fracast", rollout="expand"))


def series(batch: int = 3, length: int = 512) -> torch.Tensor:
    """Noisy seasons of several periods on random walks, at several levels and scales."""
    generator = torch.Generator().manual_seed(2)
    periods = torch.tensor([24.0, 7.0, 96.0, 13.0, 50.0])[:batch, None]
    seasons = 2 * torch.sin(2 * torch.pi * torch.arange(length) / periods)
    noise = 0.3 * torch.randn(batch, length, generator=generator)
    walk = 0.1 * torch.randn(batch, length, generator=generator).cumsum(dim=1)
    units = torch.tensor([1.0, 40.0, 0.01, 3.0, 1.0])[:batch, None]
    return (seasons + noise + walk - 5) * units


def reference(package: Any, context: torch.Tensor, horizon: int) -> NDArray[np.float64]:
    """The package's forecast, sorted along the levels, [B, Q, H]."""
    return np.sort(package.forecast_batch(context.numpy(), horizon=horizon), axis=2).transpose(0, 2, 1)


def assert_equal_to_range(
    actual: torch.Tensor, expected: NDArray[np.float64], context: torch.Tensor, share: float = 1e-4
) -> None:
    """Equal to within a share of the range of what the model sees of each context."""
    visible = context[:, -POSITIONS:].numpy()
    span = np.nanmax(visible, axis=1) - np.nanmin(visible, axis=1)
    assert actual.shape == expected.shape
    assert (np.abs(actual.numpy() - expected) <= share * span[:, None, None]).all()


@pytest.mark.parametrize(
    ("lookback", "horizon"),
    [(100, 48), (512, 20), (512, 48), (512, 100), (560, 48), (2048, 20), (2500, 100)],
)
def test_forecast_equals_the_packages_own(median: Fracast, package: Any, lookback: int, horizon: int) -> None:
    context = series(length=lookback)
    forecast = median.predict(context, horizon)
    assert forecast.dtype == torch.float32
    assert_equal_to_range(forecast, reference(package, context, horizon), context)


def test_missing_values_count_as_in_the_package(median: Fracast, package: Any) -> None:
    context = series()
    context[0, 100:130] = torch.nan
    context[1, ::3] = torch.nan
    context[2, -5:] = torch.nan
    assert_equal_to_range(median.predict(context, 60), reference(package, context, 60), context)


def test_constant_context_gives_the_packages_forecast(median: Fracast, package: Any) -> None:
    context = torch.tensor([[3.7], [0.0], [-1e4]]).expand(-1, 300)
    expected = reference(package, context, 20)
    np.testing.assert_allclose(median.predict(context, 20), expected, rtol=1e-6, atol=1e-9)


def test_rows_do_not_influence_each_other(median: Fracast) -> None:
    context = series(batch=5)
    together = median.predict(context, 60)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert_equal_to_range(median.predict(context[order], 60), together[order].numpy(), context[order], 1e-5)
    assert_equal_to_range(median.predict(context[2:3], 60), together[2:3].numpy(), context[2:3], 1e-5)


@pytest.mark.parametrize("rollout", ["median", "expand"])
def test_a_shorter_horizon_is_the_prefix_of_a_longer_one(
    request: pytest.FixtureRequest, rollout: str
) -> None:
    backbone = request.getfixturevalue(rollout)
    context = series(batch=2, length=300)
    long = backbone.predict(context, 90)
    assert backbone.prefix_consistent
    assert (long.diff(dim=1) >= 0).all()
    for horizon in (10, 60):
        assert torch.equal(backbone.predict(context, horizon), long[..., :horizon])


def test_rollouts_agree_on_the_first_block_alone_and_have_identities_of_their_own(
    median: Fracast, expand: Fracast
) -> None:
    context = series(batch=2, length=300)
    fed_back, spread = median.predict(context, 96), expand.predict(context, 96)
    torch.testing.assert_close(fed_back[..., :48], spread[..., :48])
    width = [(forecast[:, 8, 48:] - forecast[:, 0, 48:]).mean(dim=-1) for forecast in (fed_back, spread)]
    assert (width[0] < width[1]).all()
    assert median.identity != expand.identity
    assert (median.rollout, expand.rollout) == ("median", "expand")
    assert load(BackboneOptions("fracast")).identity == median.identity


def test_forecast_follows_a_change_of_units(median: Fracast) -> None:
    context = series()
    moved = context * 3.7 + 20
    expected = median.predict(context, 60) * 3.7 + 20
    assert_equal_to_range(median.predict(moved, 60), expected.numpy(), moved)


def test_embedding_is_the_packages_encoder_output_at_the_last_position(median: Fracast, package: Any) -> None:
    outputs: list[torch.Tensor] = []
    context = series()
    with package.core.register_forward_hook(lambda module, inputs, output: outputs.append(output)):
        package.forecast_batch(context.numpy(), horizon=48)
    assert median.embed(context).shape == (3, 64)
    torch.testing.assert_close(median.embed(context), outputs[0][:, -1].clone(), rtol=1e-4, atol=1e-4)


def test_embedding_is_deterministic_and_the_same_in_any_units(median: Fracast) -> None:
    context = series()
    embedding = median.embed(context)
    assert torch.equal(median.embed(context), embedding)
    torch.testing.assert_close(median.embed(context * 3.7 + 20), embedding, rtol=1e-3, atol=1e-3)
    assert (torch.cdist(embedding, embedding) + torch.eye(3) > 0.1).all()


def test_when_few_prefixes_may_be_cached_then_forecasts_stay_the_same(
    median: Fracast, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = series(batch=5)
    expected = median.predict(context, 48)
    monkeypatch.setattr(median.encoder, "_prefixes", OrderedDict())
    monkeypatch.setattr(fracast_encoder, "_MAX_CACHED_TUPLES", 2)
    for _ in range(2):
        assert_equal_to_range(median.predict(context, 48), expected.numpy(), context, 1e-5)
        assert len(median.encoder._prefixes) == 2


def test_after_forgetting_a_forecast_takes_the_work_of_a_first_one(
    median: Fracast, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage, stages = fracast_encoder._run_stage, 0

    def counting(*arguments: Any) -> torch.Tensor:
        nonlocal stages
        stages += 1
        return run_stage(*arguments)

    monkeypatch.setattr(fracast_encoder, "_run_stage", counting)
    work = []
    for action in (median.forget, lambda: None, median.forget):
        action()
        before = stages
        median.predict(series(batch=1), 48)
        work.append(stages - before)
    first, again, after_forgetting = work
    assert again < first == after_forgetting


def test_context_with_too_few_finite_values_is_refused(median: Fracast) -> None:
    context = series(length=50)
    context[1, :-7] = torch.nan
    with pytest.raises(TsbenchError, match="fracast needs 8 finite values per context; use a longer"):
        median.predict(context, 10)
    assert median.predict(series(length=8), 10).isfinite().all()


def test_missing_package_is_one_line_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fracast", None)
    for loader in (load, load_backbone):
        with pytest.raises(TsbenchError) as caught:
            loader(BackboneOptions("fracast"))
        assert str(caught.value) == (
            "backbone 'fracast' needs the package fracast; pip install 'tsbench[fracast]'"
        )


def test_checkpoint_that_cannot_be_read_is_named(tmp_path: Any) -> None:
    empty = replace(BackboneOptions("fracast"), checkpoint=str(tmp_path))
    with pytest.raises(TsbenchError, match="cannot load fracast from"):
        load(empty)
    file = tmp_path / "weights.bin"
    file.touch()
    with pytest.raises(TsbenchError, match="is not a directory; give the folder that holds config"):
        load(replace(empty, checkpoint=str(file)))
