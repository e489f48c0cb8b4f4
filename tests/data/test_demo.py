import numpy as np

from tsbench.data.demo import generate_demo
from tsbench.data.load import load_dataset
from tsbench.data.splits import Scaler, split_borders
from tsbench.data.windows import window_grid


def test_demo_is_the_same_everywhere() -> None:
    dataset = load_dataset("demo")
    assert dataset.sha256 == "6ab5fcd0e5175f6f2432ac5de880a221b8788e2fb22bfcad0f6f6a65c6315206"
    assert dataset.values.shape == (4000, 4)
    assert not dataset.values.flags.writeable
    assert np.isfinite(dataset.values).all()
    assert np.unique(np.diff(dataset.timestamps)).tolist() == [np.timedelta64(3600, "s")]


def test_demo_has_windows_for_its_horizons_at_a_long_lookback() -> None:
    dataset = load_dataset("demo")
    borders = split_borders(dataset.split, len(dataset.values))
    for split in ("train", "val", "test"):
        for horizon in dataset.horizons:
            assert window_grid(borders, split, 512, horizon).total > 500


def test_demo_has_a_daily_cycle_a_regime_change_and_varying_noise() -> None:
    values = load_dataset("demo").values
    scaled = Scaler.fit(values).transform(values)
    before, after = scaled[:2800], scaled[2800:]
    for channel in range(4):
        by_day = [np.corrcoef(scaled[lag:, channel], scaled[:-lag, channel])[0, 1] for lag in (12, 24)]
        assert by_day[1] > by_day[0] + 0.5
    assert (np.abs(after.mean(axis=0) - before.mean(axis=0)) > 0.2).any()
    changes = np.diff(values[:2689], 2, axis=0)[:2664].reshape(-1, 24, 4)
    spread = np.abs(changes - changes.mean(axis=0)).mean(axis=0)
    assert (spread.max(axis=0) > 1.5 * spread.min(axis=0)).all()


def test_fewer_rows_or_channels_can_be_generated() -> None:
    assert generate_demo(50, 2).shape == (50, 2)
