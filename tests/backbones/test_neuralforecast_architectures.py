import copy
import inspect
import logging
import os
import random
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import tsbench
from tsbench import registry
from tsbench.backbones import neuralforecast as adapter
from tsbench.backbones.architectures import Architecture, Shape
from tsbench.backbones.base import BackboneOptions
from tsbench.cli import app
from tsbench.cli import bench as _commands
from tsbench.data.catalog import catalogue
from tsbench.errors import TsbenchError
from tsbench.training.loop import TrainingConfig, load_trained, train

if find_spec("neuralforecast") is None:  # importing it takes long, and only the tests below need it
    pytest.skip("neuralforecast is not installed", allow_module_level=True)
assert _commands  # importing it registers the commands

LOOKBACK, HORIZON, CHANNELS, WINDOWS = 32, 8, 3, 5
SHAPE = Shape(LOOKBACK, HORIZON, CHANNELS, "demo")
NAMES = tuple(adapter._ENTRIES)
MULTIVARIATE = ("itransformer", "timemixer")
SMALL = {
    "patchtst": {"linear_hidden_size": 16},
    "itransformer": {"hidden_size": 16, "d_ff": 16},
    "timesnet": {"hidden_size": 8, "conv_hidden_size": 8, "num_kernels": 2, "top_k": 3},
    "timemixer": {"d_model": 8, "d_ff": 8},
    **{name: {"hidden_size": 32, "conv_hidden_size": 16} for name in ("fedformer", "informer", "autoformer")},
}
UNREACHED = {
    "timemixer": ("layer_norm",),  # each block has one that its forward pass leaves out
    "fedformer": ("key_projection", "value_projection"),  # Fourier blocks use the query alone
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in SMALL.items():
        entry = adapter._ENTRIES[name]
        monkeypatch.setitem(adapter._ENTRIES, name, replace(entry, settings=entry.settings | settings))


def architecture(name: str) -> Architecture:
    return adapter.load(BackboneOptions(name))


def network(name: str, seed: int = 0, shape: Shape = SHAPE) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return architecture(name).build(shape)


def contexts(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(WINDOWS, CHANNELS, LOOKBACK, generator=generator).cumsum(-1)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_forecasts_are_finite_repeat_and_leave_the_contexts_alone(name: str) -> None:
    model, context = network(name).eval(), contexts()
    forecast = model(context)
    assert forecast.shape == (WINDOWS, CHANNELS, HORIZON)
    assert torch.isfinite(forecast).all()
    assert torch.equal(context, contexts())
    assert torch.equal(model(context), forecast)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_trained_parameter_that_the_network_uses(name: str) -> None:
    model = network(name).train()
    model(contexts()).square().mean().backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    unreached = {key for key, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0}
    known = {key for key in trained if any(part in key for part in UNREACHED.get(name, ()))}
    assert unreached <= known
    assert not [key for key, p in trained.items() if p.is_complex()]


@pytest.mark.parametrize("name", NAMES)
def test_a_forecast_depends_on_its_own_window_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, context = network(name).eval(), contexts()
    forecast = model(context)
    others = contexts(seed=1)
    others[2] = context[2]
    torch.testing.assert_close(model(others)[2], forecast[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(context.flip(0)).flip(0), forecast, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(adapter, "_ROWS_PER_CALL", 2 * CHANNELS)
    torch.testing.assert_close(model(context), forecast, rtol=1e-4, atol=1e-5)


def test_timesnet_alone_would_mix_windows() -> None:
    """The periods are those of the mean spectrum of a call; hence its windows go one by one."""
    model, context = network("timesnet").eval(), contexts()
    together = model._forecast(context)
    assert not torch.allclose(together[2], model(context)[2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 7), (1, 12), (12, 2), (14, 15)])
def test_timesnets_merged_kernels_have_the_values_and_gradients_of_the_packages_block(
    shape: tuple[int, int],
) -> None:
    from neuralforecast.models.timesnet import Inception_Block_V1

    block = Inception_Block_V1(3, 4, num_kernels=6)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter)
        rows = torch.randn(2, 3, *shape)
    gradients = []
    for convolve in (block, adapter.MergedKernels(block.kernels)):
        block.zero_grad()
        values = convolve(rows)
        values.square().sum().backward()
        gradients.append([values.detach(), *(parameter.grad.clone() for parameter in block.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-3)
    merged = [each for each in network("timesnet").modules() if isinstance(each, adapter.MergedKernels)]
    assert merged, "no block of TimesNet was replaced"


def test_timesnet_of_one_channel_is_the_packages_on_standardised_contexts() -> None:
    model = network("timesnet", shape=replace(SHAPE, channels=1)).eval()
    context = contexts()[:1, :1]
    mean, scale = context.mean(), torch.sqrt(context.var(correction=0) + 1e-5)
    rows = ((context - mean) / scale).transpose(1, 2)
    nothing = dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))
    package = model.model({"insample_y": rows, "insample_mask": torch.ones_like(rows)} | nothing)
    torch.testing.assert_close(model(context), (package * scale + mean).transpose(1, 2))


def test_timesnet_forecasts_the_same_shape_at_any_level_and_scale() -> None:
    model, context = network("timesnet").eval(), contexts()
    scale, level = torch.tensor([2.0, 0.5, 10]).view(3, 1), torch.tensor([100.0, -5, 0]).view(3, 1)
    torch.testing.assert_close(
        model(scale * context + level), scale * model(context) + level, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_independent_except_in_itransformer_and_timesnet(name: str) -> None:
    model, context = network(name).eval(), contexts()
    others = contexts(seed=1)
    others[:, 1] = context[:, 1]
    equal = torch.allclose(model(others)[:, 1], model(context)[:, 1], rtol=1e-4, atol=1e-5)
    assert equal == (name not in ("itransformer", "timesnet"))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_weights_and_nothing_global_changes(name: str) -> None:
    def globals_() -> list[object]:
        numpy = np.random.get_state()  # noqa: NPY002
        lightning = {key: value for key, value in os.environ.items() if key.startswith("PL_")}
        return [torch.get_rng_state().tolist(), random.getstate(), str(numpy), lightning]

    before = globals_()
    first = network(name, seed=3).state_dict()
    assert globals_() == before
    random.random()
    np.random.rand()  # noqa: NPY002
    assert same(network(name, seed=3).state_dict(), first)
    assert not same(network(name, seed=5).state_dict(), first)


def test_building_logs_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        network("patchtst")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_training_keeps_and_finds_its_weights(name: str, tmp_path: Path) -> None:
    data = torch.randn(WINDOWS, CHANNELS, LOOKBACK + HORIZON, generator=torch.Generator().manual_seed(0))

    def error(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(model(windows[..., :LOOKBACK]), windows[..., LOOKBACK:])

    model = network(name)
    start = copy.deepcopy(model)
    report = train(
        model,
        batches=lambda step: data,
        loss_fn=error,
        validate=lambda trained: error(trained, data).item(),
        config=TrainingConfig(max_steps=4, eval_every=2, patience=5, learning_rate=1e-3, weight_decay=0.0),
        checkpoint_dir=tmp_path,
    )
    assert report.steps == 4
    assert not same(start.state_dict(), model.state_dict())
    loaded = network(name)
    assert load_trained(loaded, tmp_path) == report
    assert torch.equal(loaded(contexts()), model(contexts()))
    assert error(loaded, data).item() == pytest.approx(report.best_score, rel=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "training.json"}


def test_timemixer_says_which_lookback_it_can_halve() -> None:
    with pytest.raises(TsbenchError, match=r"divisible by 8, not 30; use --lookback 32$"):
        network("timemixer", shape=replace(SHAPE, lookback=30))


def test_patchtst_at_ett_size_has_the_papers_parameters() -> None:
    """PatchTST/64: 16-step patches, every 8, one repeated at the end; three layers of width 16."""
    adapter._ENTRIES["patchtst"].settings["linear_hidden_size"] = 128
    model = network("patchtst", shape=Shape(512, 96, 7, "ETTh1"))
    width, inner, patches = 16, 128, (512 - 16) // 8 + 2
    layer = 4 * (width * width + width) + (width * inner + inner) + (inner * width + width) + 4 * width
    expected = (16 * width + width) + patches * width + 3 * layer + (patches * width * 96 + 96)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_table_names_data_sets_and_arguments_that_exist(name: str) -> None:
    from neuralforecast import models

    entry = adapter._ENTRIES[name]
    assert {*entry.settings_of, *entry.recipe_of} <= set(catalogue().entries)
    settings = set(entry.settings).union(*entry.settings_of.values())
    assert settings <= set(inspect.signature(getattr(models, entry.model)).parameters)
    for dataset in ("unknown", *entry.recipe_of):
        recipe = architecture(name).recipe(replace(SHAPE, dataset=dataset))
        assert recipe.batch_windows > 0
    assert registry.find("backbone", name).lookback


def test_the_data_set_decides_size_and_recipe() -> None:
    def width(dataset: str) -> int:
        model = network("patchtst", shape=replace(SHAPE, dataset=dataset))
        return next(p.shape[0] for key, p in model.named_parameters() if key.endswith("W_P.weight"))

    assert (width("ETTh1"), width("unknown"), width("Weather")) == (16, 16, 128)
    recipe = architecture("patchtst").recipe
    assert recipe(replace(SHAPE, dataset="ETTh1")).learning_rates == (1e-4, 1e-3)
    assert recipe(replace(SHAPE, dataset="Weather")).learning_rates == (1e-4,)


def test_the_identity_changes_with_the_settings() -> None:
    before = architecture("patchtst").identity
    adapter._ENTRIES["patchtst"] = replace(adapter._ENTRIES["patchtst"], settings={"n_heads": 2})
    assert architecture("patchtst").identity != before
    assert before.startswith("patchtst-neuralforecast-3.")


CELL = {"horizon": 24, "lookback": 32, "profile": "quick", "train_stride": 40, "test_stride": 40}


def test_patchtst_runs_as_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    table = tsbench.run(
        "supervised", backbone="patchtst", dataset="demo", results=tmp_path / "results", **CELL
    ).set_index("backbone")  # type: ignore[arg-type]
    assert sorted(table.index) == ["naive-last", "naive-seasonal", "patchtst"]
    assert 0 < table["mse"]["patchtst"] < 10
    assert np.isnan(table["crps"]["patchtst"])
    assert table["learning_rate"]["patchtst"] in (1e-4, 1e-3)


def test_the_command_line_trains_itransformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    options = [word for key, value in CELL.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    line = ["run", "--method", "supervised", "--backbone", "itransformer", "--dataset", "demo", *options]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "│ iTransformer" in result.stdout
    assert not list(tmp_path.glob("*lightning*"))


def test_a_missing_package_is_one_line_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: Callable[[str], None] = lambda name: None  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", absent)
    with pytest.raises(
        TsbenchError, match=r"needs the package neuralforecast; pip install 'tsbench\[supervised\]'"
    ):
        registry.load("backbone", "patchtst")
