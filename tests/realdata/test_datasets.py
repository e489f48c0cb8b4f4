import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tsbench.data.catalog import find
from tsbench.data.dataset import Dataset
from tsbench.data.download import download
from tsbench.data.load import load_collection, load_dataset
from tsbench.data.splits import Scaler, split_borders
from tsbench.data.windows import gather_contexts, gather_targets, window_grid
from tsbench.errors import TsbenchError

pytestmark = pytest.mark.realdata

# Rows, channels, first and last time.
SHAPES = {
    "ETTh1": (17420, 7, "2016-07-01T00", "2018-06-26T19"),
    "ETTh2": (17420, 7, "2016-07-01T00", "2018-06-26T19"),
    "ETTm1": (69680, 7, "2016-07-01T00", "2018-06-26T19:45"),
    "ETTm2": (69680, 7, "2016-07-01T00", "2018-06-26T19:45"),
    "Weather": (52696, 21, "2020-01-01T00:10", "2021-01-01T00"),
    "Exchange": (7588, 8, "1990-01-01", "2010-10-10"),
    "ILI": (966, 7, "2002-01-01", "2020-06-30"),
}
# Mean and std of the first three channels over the train rows, computed without tsbench.
STATISTICS = {
    "ETTh1": ((7.937742, 2.021039, 5.079771), (5.812749, 2.090105, 5.518794)),
    "ETTh2": ((41.536835, 12.273453, 46.609773), (10.448841, 4.587113, 16.858190)),
    "ETTm1": ((7.990013, 2.038748, 5.109928), (5.833093, 2.089646, 5.519043)),
    "ETTm2": ((41.563521, 12.296357, 46.635320), (10.468250, 4.604146, 16.854366)),
    "Weather": ((990.642462, 11.978743, 285.909500), (8.630710, 7.718422, 7.916676)),
    "Exchange": ((0.722936, 1.671601, 0.785566), (0.103108, 0.167559, 0.103529)),
    "ILI": ((1.740130, 1.710411, 2672.452663), (1.227786, 1.150895, 2129.548547)),
}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Iterator[Path]:
    """One TSBENCH_HOME for this file, so that every source is parsed once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(folder))
        yield folder


@pytest.mark.parametrize("name", SHAPES)
def test_long_data_sets_have_their_shape_times_and_train_statistics(name: str) -> None:
    rows, channels, first, last = SHAPES[name]
    mean, std = STATISTICS[name]
    dataset = load_dataset(name)
    assert dataset.values.shape == (rows, channels)
    assert len(dataset.channels) == channels
    assert dataset.timestamps[[0, -1]].tolist() == np.array([first, last], "datetime64[s]").tolist()
    assert np.isfinite(dataset.values).all()
    borders = split_borders(dataset.split, rows)
    scaler = Scaler.fit(dataset.values[slice(*borders.train)])
    np.testing.assert_allclose(scaler.mean[:3], mean, atol=5e-7)
    np.testing.assert_allclose(scaler.std[:3], std, atol=5e-7)


@pytest.mark.parametrize("name", ["ETTh1", "Exchange", "ILI"])
def test_values_equal_those_of_the_csv_module_bit_for_bit(name: str, mirror: Path, home: Path) -> None:
    (path,) = download(find(name), mirror, home)
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    dataset = load_dataset(name)
    assert list(dataset.channels) == header[1:]
    np.testing.assert_array_equal(dataset.values, [[float(cell) for cell in row[1:]] for row in rows])


def test_times_are_regular_but_for_the_known_faults_of_weather() -> None:
    steps = {"ETTh1": 3600, "ETTm1": 900, "Exchange": 86_400, "ILI": 7 * 86_400}
    for name, step in steps.items():
        assert np.unique(np.diff(load_dataset(name).timestamps).astype(int)).tolist() == [step]
    times = load_dataset("Weather").timestamps
    assert times[19043] == times[19044] == np.datetime64("2020-05-12T06:00:00")
    odd = np.flatnonzero(np.diff(times).astype(int) != 600)
    assert odd.tolist() == [19043, 21513]
    assert times[21514] - times[21513] == np.timedelta64(100, "m")


def test_weather_keeps_its_sentinels_in_the_train_rows() -> None:
    dataset = load_dataset("Weather")
    rows, columns = np.nonzero(dataset.values == -9999)
    assert len(rows) == 81
    assert rows.max() < split_borders(dataset.split, len(dataset.values)).train[1]
    counts = {name: int((columns == i).sum()) for i, name in enumerate(dataset.channels)}
    assert (counts["wv (m/s)"], counts["OT"]) == (1, 50)


def repeat_last(dataset: Dataset, lookback: int, horizon: int, drop_last: int | None) -> tuple[float, float]:
    borders = split_borders(dataset.split, len(dataset.values))
    scaled = Scaler.fit(dataset.values[slice(*borders.train)]).transform(dataset.values)
    starts = window_grid(borders, "test", lookback, horizon, drop_last=drop_last).starts
    squared, absolute = 0.0, 0.0
    for batch in np.array_split(starts, 8):
        last = gather_contexts(scaled, batch, lookback)[:, :, -1:]
        errors = gather_targets(scaled, batch, horizon).astype(np.float64) - last
        squared += float((errors**2).sum())
        absolute += float(np.abs(errors).sum())
    count = len(starts) * horizon * scaled.shape[1]
    return squared / count, absolute / count


@pytest.mark.parametrize(
    ("name", "lookback", "horizon", "mse", "mae"),
    [
        ("ETTh1", 512, 96, 1.294371, 0.713181),
        ("ETTh2", 512, 720, 0.594472, 0.518991),
        ("Exchange", 512, 96, 0.081126, 0.196357),
        ("Exchange", 512, 720, 0.810064, 0.676445),
        ("ILI", 104, 24, 6.213324, 1.622231),
        ("ILI", 104, 60, 6.884904, 1.788430),
    ],
)
def test_repeating_the_last_value_gives_the_reference_error(
    name: str, lookback: int, horizon: int, mse: float, mae: float
) -> None:
    measured = repeat_last(load_dataset(name), lookback, horizon, drop_last=None)
    np.testing.assert_allclose(measured, (mse, mae), atol=2e-6)


@pytest.mark.parametrize(
    ("name", "lookback", "horizon", "mse", "mae"),
    [
        ("ETTh1", 336, 720, 1.339, 0.756),
        ("ETTh2", 336, 720, 0.588, 0.517),
        ("Exchange", 336, 720, 0.823, 0.681),
        ("ILI", 104, 60, 5.893, 1.677),
    ],
)
def test_with_the_last_batch_of_32_dropped_the_published_error_is_met(
    name: str, lookback: int, horizon: int, mse: float, mae: float
) -> None:
    """The Repeat rows of Zeng et al. 2023, arXiv 2205.13504, whose test loader dropped the last batch."""
    measured = repeat_last(load_dataset(name), lookback, horizon, drop_last=32)
    np.testing.assert_allclose(measured, (mse, mae), atol=6e-4)


@pytest.mark.parametrize(
    ("name", "series", "horizon", "first", "last"),
    [
        ("M3-Yearly", 645, 6, "N1", "N645"),
        ("M3-Quarterly", 756, 8, "N646", "N1401"),
        ("M3-Monthly", 1428, 18, "N1402", "N2829"),
        ("M3-Other", 174, 8, "N2830", "N3003"),
        ("M4-Weekly", 359, 13, "W1", "W359"),
        ("M4-Hourly", 414, 48, "H1", "H414"),
    ],
)
def test_collections_have_their_published_counts(
    name: str, series: int, horizon: int, first: str, last: str
) -> None:
    collection = load_collection(name)
    assert collection.test.shape == (series, horizon)
    assert len(collection.train) == len(collection.ids) == series
    assert (collection.ids[0], collection.ids[-1]) == (first, last)
    assert np.isfinite(collection.test).all()
    assert all(np.isfinite(train).all() and len(train) for train in collection.train)


def test_m3_train_and_test_parts_make_up_the_stated_lengths() -> None:
    yearly = load_collection("M3-Yearly")
    assert len(yearly.train[0]) == 20 - 6
    assert yearly.train[0][:3].tolist() == [940.66, 1084.86, 1244.98]
    assert len(yearly.train[644]) == 38 - 6
    monthly = load_collection("M3-Monthly")
    assert len(monthly.train[0]) == 68 - 18


def test_m3_keeps_its_one_non_positive_value() -> None:
    monthly = load_collection("M3-Monthly")
    series = monthly.ids.index("N2786")
    assert len(monthly.train[series]) + monthly.test[series].tolist().index(-1200.0) + 1 == 84
    for name in ("M3-Yearly", "M3-Quarterly", "M3-Monthly", "M3-Other"):
        collection = load_collection(name)
        assert all((train > 0).all() for train in collection.train)
        assert (collection.test <= 0).sum() == (name == "M3-Monthly")


def test_m4_train_lengths_are_the_published_ones() -> None:
    assert {len(train) for train in load_collection("M4-Hourly").train} == {700, 960}
    lengths = [len(train) for train in load_collection("M4-Weekly").train]
    assert (min(lengths), max(lengths)) == (80, 2597)


def test_when_the_mirror_lacks_a_data_set_then_the_remedy_is_named(mirror: Path) -> None:
    if (mirror / "thuml" / "Time-Series-Library" / "traffic" / "traffic.csv").is_file():
        pytest.skip("this mirror holds Traffic")
    with pytest.raises(TsbenchError, match=r"lacks traffic/traffic\.csv of Traffic; leave the mirror out"):
        load_dataset("Traffic", mirror)
