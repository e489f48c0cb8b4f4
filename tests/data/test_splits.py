import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.data.catalog import LongEntry, find
from tsbench.data.splits import Borders, Scaler, SplitRule, parse_split, split_borders
from tsbench.data.windows import window_grid
from tsbench.errors import TsbenchError

RATIO = SplitRule("ratio", 0.7, 0.1, 0.2)


@pytest.mark.parametrize(
    ("name", "train", "val", "test"),
    [
        ("ETTh1", 8640, 2880, 2880),
        ("ETTh2", 8640, 2880, 2880),
        ("ETTm1", 34560, 11520, 11520),
        ("ETTm2", 34560, 11520, 11520),
        ("Electricity", 18412, 2632, 5260),
        ("Traffic", 12280, 1756, 3508),
        ("Weather", 36887, 5270, 10539),
        ("Exchange", 5311, 760, 1517),
        ("ILI", 676, 97, 193),
    ],
)
def test_borders_are_those_of_the_literature(name: str, train: int, val: int, test: int) -> None:
    entry = find(name)
    assert isinstance(entry, LongEntry)
    borders = split_borders(entry.split, entry.rows)
    assert borders == Borders((0, train), (train, train + val), (train + val, train + val + test))


@pytest.mark.parametrize(
    ("name", "test_windows", "val_windows"),
    [
        ("ETTh1", (2785, 2689, 2545, 2161), (2785, 2689, 2545, 2161)),
        ("ETTm1", (11425, 11329, 11185, 10801), (11425, 11329, 11185, 10801)),
        ("Electricity", (5165, 5069, 4925, 4541), (2537, 2441, 2297, 1913)),
        ("Traffic", (3413, 3317, 3173, 2789), (1661, 1565, 1421, 1037)),
        ("Weather", (10444, 10348, 10204, 9820), (5175, 5079, 4935, 4551)),
        ("Exchange", (1422, 1326, 1182, 798), (665, 569, 425, 41)),
    ],
)
@pytest.mark.parametrize("lookback", [96, 512])
def test_window_counts_are_those_of_the_literature(
    name: str, test_windows: tuple[int, ...], val_windows: tuple[int, ...], lookback: int
) -> None:
    entry = find(name)
    assert isinstance(entry, LongEntry)
    borders = split_borders(entry.split, entry.rows)
    for index, horizon in enumerate(entry.horizons):
        assert len(window_grid(borders, "test", lookback, horizon).starts) == test_windows[index]
        assert len(window_grid(borders, "val", lookback, horizon).starts) == val_windows[index]
        train = window_grid(borders, "train", lookback, horizon)
        assert len(train.starts) == borders.train[1] - lookback - horizon + 1


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(10, 100_000))
def test_ratio_splits_cover_all_rows_without_overlap(n_rows: int) -> None:
    borders = split_borders(RATIO, n_rows)
    assert borders.train[0] == 0
    assert borders.train[1] == borders.val[0] == int(n_rows * 0.7)
    assert borders.val[1] == borders.test[0]
    assert borders.test[1] == n_rows


@pytest.mark.parametrize(
    ("text", "rule"),
    [("0.7,0.1,0.2", RATIO), ("8640, 2880, 2880", SplitRule("rows", 8640, 2880, 2880))],
)
def test_split_text_is_shares_or_rows(text: str, rule: SplitRule) -> None:
    assert parse_split(text) == rule


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("0.7,0.3", "three numbers"),
        ("a,b,c", "three numbers"),
        ("0.7,0.1,0.1", "sums to 0.9"),
        ("0.8,0,0.2", "empty part"),
        ("nan,0.1,0.2", "empty part"),
        ("100.5,20,20", "whole rows"),
    ],
)
def test_when_the_split_is_wrong_then_the_message_says_why(text: str, cause: str) -> None:
    with pytest.raises(TsbenchError, match=cause):
        parse_split(text)


@pytest.mark.parametrize(("rule", "n_rows"), [(RATIO, 4), (SplitRule("rows", 60, 20, 20), 99)])
def test_when_there_are_too_few_rows_then_it_is_refused(rule: SplitRule, n_rows: int) -> None:
    with pytest.raises(TsbenchError, match=f"{n_rows} rows do not suffice"):
        split_borders(rule, n_rows)


def test_scaler_equals_the_written_out_formula() -> None:
    values = np.random.default_rng(0).normal(5, 3, (200, 3))
    scaler = Scaler.fit(values[:120])
    for channel in range(3):
        train = values[:120, channel]
        mean = sum(train) / 120
        std = (sum((train - mean) ** 2) / 120) ** 0.5
        expected = (values[:, channel] - mean) / std
        np.testing.assert_allclose(scaler.transform(values)[:, channel], expected, rtol=1e-6, atol=1e-6)


def test_a_constant_channel_is_only_centred() -> None:
    values = np.full((1000, 1), 0.1)  # its mean is not exactly 0.1
    scaler = Scaler.fit(values)
    assert scaler.std == 1.0
    np.testing.assert_allclose(scaler.transform(values + 2), 2.0, rtol=1e-6)


def test_scaled_values_are_float32_with_contiguous_channels() -> None:
    scaled = Scaler.fit(np.eye(5)).transform(np.eye(5))
    assert scaled.dtype == np.float32
    assert scaled.flags.f_contiguous


def test_inverse_undoes_transform_on_any_leading_shape() -> None:
    values = np.random.default_rng(1).normal(-4, 2, (60, 2))
    scaler = Scaler.fit(values)
    restored = scaler.inverse(scaler.transform(values).reshape(6, 10, 2))
    np.testing.assert_allclose(restored.reshape(60, 2), values, rtol=1e-6)


def test_when_rows_after_train_change_then_the_scaler_does_not() -> None:
    values = np.random.default_rng(2).normal(size=(100, 2))
    changed = values.copy()
    changed[70:] = 1e9
    borders = split_borders(RATIO, 100)
    before, after = (Scaler.fit(array[slice(*borders.train)]) for array in (values, changed))
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.std, after.std)
