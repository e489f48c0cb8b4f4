import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tsbench.backbones.flame import FlameBackbone, make_backbone
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import PROFILES, CellSpec, Profile
from tsbench.data.load import load_dataset
from tsbench.errors import TsbenchError
from tsbench.methods import flame
from tsbench.methods.task import Task, make_task
from tsbench.models.flame.model import Flame, FlameConfig

TINY = FlameConfig(width=16, encoder_layers=1, decoder_layers=1, patch=12, heads=2, state=4, legendre_order=4)
PROFILE: Profile = PROFILES["quick"].model_copy(
    update={
        "max_train_values": 20_000,
        "max_stop_values": 4_000,
        "batch_size": 16,
        "max_steps": 30,
        "eval_every": 10,
    }
)


@pytest.fixture
def backbone() -> FlameBackbone:
    torch.manual_seed(0)
    return make_backbone("flame-small", Flame(TINY))


@pytest.fixture
def fitting(tmp_path: Path) -> Callable[..., tuple[Task, FrozenBackbone]]:
    def make(backbone: FlameBackbone, profile: Profile = PROFILE) -> tuple[Task, FrozenBackbone]:
        spec = CellSpec(
            method="flame", backbone="flame-small", dataset="demo", horizon=24, lookback=48, profile="quick"
        )
        task = make_task(spec, profile, load_dataset("demo"), tmp_path, lambda line: None)
        return task, FrozenBackbone(backbone, task.scaled, 48, None, 0)

    return make


def weights(forecaster: object) -> torch.Tensor:
    assert isinstance(forecaster, FlameBackbone)
    return torch.cat([parameter.flatten() for parameter in forecaster.model.parameters()])


def test_fine_tuning_lowers_the_validation_loss_and_leaves_the_backbone_alone(
    backbone: FlameBackbone, fitting: Callable[..., tuple[Task, FrozenBackbone]]
) -> None:
    before = weights(backbone).clone()
    fitted = flame.fit(*fitting(backbone))
    diagnostics = fitted.diagnostics
    assert diagnostics["val_pinball_after"] < diagnostics["val_pinball_before"]
    assert not torch.equal(weights(fitted.forecaster), before)
    assert torch.equal(weights(backbone), before)
    assert isinstance(fitted.forecaster, FlameBackbone)
    assert fitted.forecaster.identity != backbone.identity


def test_a_second_fit_reuses_the_first(
    backbone: FlameBackbone, fitting: Callable[..., tuple[Task, FrozenBackbone]]
) -> None:
    first = flame.fit(*fitting(backbone))
    second = flame.fit(*fitting(backbone))
    assert torch.equal(weights(first.forecaster), weights(second.forecaster))


def test_another_split_of_the_same_data_is_trained_anew(
    backbone: FlameBackbone, fitting: Callable[..., tuple[Task, FrozenBackbone]]
) -> None:
    task, frozen = fitting(backbone)
    first = flame.fit(task, frozen)
    shorter = replace(task.borders, train=(0, task.borders.train[1] // 2))
    second = flame.fit(replace(task, borders=shorter), frozen)
    assert not torch.equal(weights(first.forecaster), weights(second.forecaster))


def test_when_training_does_not_help_then_the_zero_shot_weights_stay(
    backbone: FlameBackbone,
    fitting: Callable[..., tuple[Task, FrozenBackbone]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flame, "window_loss", lambda model, windows: -_size(model))
    fitted = flame.fit(*fitting(backbone))
    assert fitted.forecaster is backbone
    assert fitted.diagnostics["fine_tune_steps"] == 0
    assert fitted.diagnostics["val_pinball_after"] == fitted.diagnostics["val_pinball_before"]


def _size(model: torch.nn.Module) -> torch.Tensor:
    """Rewarding large weights ruins any forecast."""
    return torch.stack([parameter.abs().mean() for parameter in model.parameters()]).sum()


def test_training_windows_are_those_of_the_train_split_alone(
    backbone: FlameBackbone, fitting: Callable[..., tuple[Task, FrozenBackbone]]
) -> None:
    task, frozen = fitting(backbone)
    first, last = task.borders.train
    poisoned = task.scaled.copy()
    poisoned[task.borders.val[1] :] = np.nan  # nothing after the validation split may be read
    hidden = replace(task, scaled=poisoned)
    fitted = flame.fit(hidden, replace(frozen, scaled=poisoned))
    assert math.isfinite(fitted.diagnostics["val_pinball_after"])
    assert last - first < len(task.scaled)


def test_when_the_backbone_is_another_then_it_is_refused(
    fitting: Callable[..., tuple[Task, FrozenBackbone]], backbone: FlameBackbone
) -> None:
    from tsbench.backbones.naive import SeasonalNaive

    task, frozen = fitting(backbone)
    other = replace(frozen, backbone=SeasonalNaive("naive-last", season=1))
    with pytest.raises(TsbenchError, match="use --backbone flame-small"):
        flame.fit(task, other)
