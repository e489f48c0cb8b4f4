"""The weights of flame-small that ship with the package."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.flame import CONFIG_FILE, FlameBackbone, load
from tsbench.bench.store import ResultsStore
from tsbench.data.splits import Scaler, split_borders
from tsbench.data.windows import gather_contexts, gather_targets
from tsbench.report.select import select

WEIGHTS = Path(str(files("tsbench.models.flame"))) / "weights" / "flame-small"
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def backbone() -> FlameBackbone:
    return load(BackboneOptions("flame-small"))


def test_they_fit_into_eight_megabytes() -> None:
    shipped = [path for path in WEIGHTS.parent.rglob("*") if path.is_file()]
    assert {path.name for path in shipped} == {"flame.json", "model.safetensors", "README.md"}
    assert sum(path.stat().st_size for path in shipped) <= 8_000_000


def test_their_card_tells_corpus_and_effort() -> None:
    card = json.loads((WEIGHTS / CONFIG_FILE).read_text())["card"]
    assert card["model"] == "flame-small"
    assert card["real"] == ["M4-Hourly", "M4-Weekly"]  # so it is not zero-shot on M4
    assert sum(card["synthetic_corpus"].values()) == pytest.approx(1)
    assert card["windows"] == card["batch_size"] * card["training"]["max_steps"]
    assert card["best_step"] == min(card["validation"], key=lambda evaluation: evaluation["score"])["step"]
    readme = (WEIGHTS / "README.md").read_text()
    for figure in (f"{card['windows']:,}", f"{card['training']['max_steps']:,}", card["device"]):
        assert figure in readme


def test_they_forecast_the_demo_better_than_both_naive_forecasts(tmp_path: Path) -> None:
    table = tsbench.run("flame", dataset="demo", horizon=96, profile="quick", results=tmp_path)
    error = table.set_index("backbone")["mse"]
    assert error["flame-small"] < 0.8 * error[["naive-last", "naive-seasonal"]].min()


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "horizon"), [("ETTh1", 96), ("ETTh2", 720), ("Exchange", 192)])
def test_they_still_give_the_committed_forecast_errors(
    backbone: FlameBackbone, mirror: Path, name: str, horizon: int
) -> None:
    wanted = f"backbone=flame-small method=origin dataset={name} horizon={horizon} test_stride=1"
    store = ResultsStore(RESULTS)
    [found] = select(store.records(), wanted)
    record = store.load(found.key)
    assert record is not None
    assert record.window_scores is not None
    assert record.windows == record.windows_total
    assert record.provenance.backbone_identity == backbone.identity

    dataset = tsbench.load_dataset(name, mirror)
    borders = split_borders(dataset.split, len(dataset.values))
    scaled = Scaler.fit(dataset.values[slice(*borders.train)]).transform(dataset.values)
    starts = record.window_scores.start[::100]
    contexts, targets = gather_contexts(scaled, starts, 512), gather_targets(scaled, starts, horizon)
    forecast = backbone.predict(torch.from_numpy(contexts).flatten(0, 1), horizon)
    median = forecast[:, 4].numpy().reshape(targets.shape)
    errors = np.square(median - targets).mean(axis=(1, 2))
    np.testing.assert_allclose(errors, record.window_scores.mse[::100], rtol=1e-3)
