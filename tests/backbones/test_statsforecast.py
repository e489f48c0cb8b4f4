import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.statsforecast import CLASSES, load
from tsbench.errors import TsbenchError


class Recorder:
    """Stands for a model of statsforecast: repeats the mean, and keeps what it was given."""

    def __init__(self, season_length: int) -> None:
        self.season_length = season_length
        self.seen: list[Any] = []

    def forecast(self, y: np.ndarray, h: int) -> dict[str, np.ndarray]:
        self.seen.append((y.dtype, y.shape, h))
        return {"mean": np.full(h, y.mean() + self.season_length)}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("statsforecast.models")
    for name in CLASSES.values():
        setattr(module, name, Recorder)
    package = ModuleType("statsforecast")
    monkeypatch.setitem(sys.modules, "statsforecast", package)
    monkeypatch.setitem(sys.modules, "statsforecast.models", module)
    monkeypatch.setattr("tsbench.backbones.statsforecast.version", lambda name: "2.1")


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.usefixtures("stand_in")
def test_every_row_is_fitted_alone_with_the_season_of_the_data(name: str) -> None:
    backbone = load(BackboneOptions(name, season=12))
    assert backbone.identity == f"{name}-m12-statsforecast-2.1-v1"
    forecast = backbone.predict(torch.tensor([[1.0, 3.0], [10.0, 20.0]]), 3)
    assert forecast.dtype == torch.float32
    assert forecast.tolist() == [[[14.0] * 3], [[27.0] * 3]]
    with pytest.raises(TsbenchError, match="no encoder"):
        backbone.embed(torch.ones(1, 3))


def test_when_statsforecast_cannot_be_imported_then_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    monkeypatch.delitem(sys.modules, "statsforecast.models", raising=False)
    with pytest.raises(TsbenchError) as caught:
        load(BackboneOptions("theta"))
    assert str(caught.value).startswith("backbone 'theta' cannot import statsforecast (")
    assert str(caught.value).endswith("); pip install 'tsbench[stats]'")


@pytest.mark.parametrize("name", CLASSES)
def test_the_real_models_continue_a_straight_line(name: str) -> None:
    pytest.importorskip("statsforecast.models")
    rng = np.random.default_rng(0)
    line = 100 + 2 * np.arange(48) + rng.normal(0, 0.1, 48)
    forecast = load(BackboneOptions(name)).predict(torch.from_numpy(line).float()[None], 6)
    assert forecast.shape == (1, 1, 6)
    np.testing.assert_allclose(forecast[0, 0], 100 + 2 * np.arange(48, 54), rtol=0.03)  # Theta halves it
