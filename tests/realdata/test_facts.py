"""Errors of the trivial forecasters on the public data, against figures made without tsbench.

The reference figures were made in float64 and printed to 6 decimals, the published ones to 3; tsbench
standardises to float32, which moves an error by less than 1e-6. So half a unit and 1e-6 are allowed.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.naive import SeasonalNaive, load
from tsbench.bench.evaluate import evaluate
from tsbench.config import CellSpec, profile
from tsbench.data.load import load_dataset
from tsbench.methods.task import make_task
from tsbench.metrics.streaming import Scores

pytestmark = pytest.mark.realdata

FLOAT32 = 1e-6

# Data set, lookback, horizon, windows; MSE and MAE of the last value; MSE and MAE of the last season.
FIGURES = [
    ("ETTh1", 512, 96, 2785, (1.294371, 0.713181), (0.512225, 0.433303)),
    ("ETTh1", 512, 720, 2161, (1.335121, 0.755045), (0.655405, 0.514122)),
    ("ETTh2", 512, 96, 2785, (0.431657, 0.421621), (0.390518, 0.380203)),
    ("ETTh2", 512, 720, 2161, (0.594472, 0.518991), (0.525465, 0.473918)),
    ("ETTm1", 512, 96, 11425, (1.213897, 0.664785), (0.422696, 0.386527)),
    ("ETTm1", 512, 720, 10801, (1.322312, 0.729468), (0.573934, 0.464500)),
    ("ETTm2", 512, 96, 11425, (0.266462, 0.327765), (0.263149, 0.300543)),
    ("ETTm2", 512, 720, 10801, (0.521559, 0.465622), (0.470845, 0.421548)),
    ("Weather", 512, 96, 10444, (0.259133, 0.254220), (0.316707, 0.287956)),
    ("Weather", 512, 720, 9820, (0.465187, 0.393504), (0.443129, 0.370077)),
    ("Exchange", 512, 96, 1422, (0.081126, 0.196357), (0.086209, 0.204812)),
    ("Exchange", 512, 720, 798, (0.810064, 0.676445), (0.819348, 0.681318)),
    ("ILI", 104, 24, 170, (6.213324, 1.622231), (2.563768, 1.004200)),
    ("ILI", 104, 60, 134, (6.884904, 1.788430), (1.917433, 0.939163)),
]

# Data set, lookback, horizon, windows kept, MSE, MAE: the Repeat rows of Zeng et al. 2023
# (arXiv 2205.13504), whose test loader dropped its last incomplete batch of 32 windows.
PUBLISHED = [
    ("ETTh1", 512, 96, 2784, 1.295, 0.713),
    ("ETTh1", 512, 720, 2144, 1.339, 0.756),
    ("ETTh2", 512, 96, 2784, 0.432, 0.422),
    ("ETTh2", 512, 720, 2144, 0.588, 0.517),
    ("ETTm1", 512, 96, 11424, 1.214, 0.665),
    ("ETTm1", 512, 720, 10784, 1.319, 0.729),
    ("ETTm2", 512, 96, 11424, 0.266, 0.328),
    ("ETTm2", 512, 720, 10784, 0.521, 0.465),
    ("Weather", 512, 96, 10432, 0.259, 0.254),
    ("Weather", 512, 720, 9792, 0.465, 0.394),
    ("Exchange", 512, 96, 1408, 0.081, 0.196),
    ("Exchange", 512, 720, 768, 0.823, 0.681),
    ("ILI", 104, 24, 160, 6.587, 1.701),
    ("ILI", 104, 60, 128, 5.893, 1.677),
]


class PointOnly(SeasonalNaive):
    """The median of the first season, repeated: without the spread, which costs a sort per row."""

    quantile_levels = ()

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        whole = SeasonalNaive(self.name, self.season)
        season = whole.predict(context[:, -self.season :], min(self.season, horizon))[:, 4:5]
        return season.repeat(1, 1, -(-horizon // self.season))[..., :horizon]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Iterator[Path]:
    """One TSBENCH_HOME for this file, so that every source is parsed once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(folder))
        yield folder


def score(
    name: str,
    backbone: str,
    lookback: int,
    horizon: int,
    folder: Path,
    *,
    drop_last: int | None = None,
    point_only: bool = False,
) -> Scores:
    """Scores over every test window, by the path a cell takes."""
    dataset = load_dataset(name)
    spec = CellSpec(
        method="origin",
        backbone=backbone,
        dataset=name,
        horizon=horizon,
        lookback=lookback,
        test_stride=1,
        drop_last=drop_last,
    )
    task = make_task(spec, profile("paper"), dataset, folder, print)
    model = load(BackboneOptions(backbone, season=dataset.season))
    if point_only:
        model = PointOnly(model.name, model.season)
    frozen = FrozenBackbone(model, task.scaled, lookback, None, 0)
    return evaluate(frozen.backbone, frozen, task.test_windows()).scores


def ids(rows: list[tuple[str, int, int, int, object, object]]) -> list[str]:
    return [f"{row[0]}-{row[2]}" for row in rows]


@pytest.mark.parametrize("backbone", ["naive-last", "naive-seasonal"])
@pytest.mark.parametrize(
    ("name", "lookback", "horizon", "windows", "last", "seasonal"), FIGURES, ids=ids(FIGURES)
)
def test_trivial_forecasters_have_the_reference_errors_over_every_test_window(
    tmp_path: Path,
    backbone: str,
    name: str,
    lookback: int,
    horizon: int,
    windows: int,
    last: tuple[float, float],
    seasonal: tuple[float, float],
) -> None:
    point_only = horizon == 720 or windows > 10_000
    scores = score(name, backbone, lookback, horizon, tmp_path, point_only=point_only)
    assert scores.n_windows == windows
    expected = last if backbone == "naive-last" else seasonal
    assert (scores.mse, scores.mae) == pytest.approx(expected, rel=0, abs=5e-7 + FLOAT32)


@pytest.mark.parametrize(
    ("name", "lookback", "horizon", "windows", "mse", "mae"), PUBLISHED, ids=ids(PUBLISHED)
)
def test_with_the_last_batch_of_32_dropped_repeating_the_last_value_has_the_published_errors(
    tmp_path: Path, name: str, lookback: int, horizon: int, windows: int, mse: float, mae: float
) -> None:
    scores = score(name, "naive-last", lookback, horizon, tmp_path, drop_last=32, point_only=True)
    assert scores.n_windows == windows
    assert (scores.mse, scores.mae) == pytest.approx((mse, mae), rel=0, abs=5e-4 + FLOAT32)
