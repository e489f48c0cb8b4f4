import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tsbench.data.splits import Borders
from tsbench.data.windows import Split, gather_contexts, gather_targets, window_grid
from tsbench.errors import TsbenchError

BORDERS = Borders((0, 60), (60, 80), (80, 110))
SPLITS: list[Split] = ["train", "val", "test"]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.sampled_from(SPLITS), st.integers(1, 50), st.integers(1, 20), st.integers(1, 7), st.integers(1, 5))
def test_windows_are_all_those_whose_targets_stay_in_the_split(
    split: Split, lookback: int, horizon: int, stride: int, batch: int
) -> None:
    begin, end = getattr(BORDERS, split)
    context_begin = begin if split == "train" else 0
    fitting = [
        start
        for start in range(200)
        if start - lookback >= context_begin and begin <= start and start + horizon <= end
    ]
    assume(len(fitting[::stride]) >= batch)
    grid = window_grid(BORDERS, split, lookback, horizon, stride)
    assert grid.starts.tolist() == fitting[::stride]
    assert grid.starts.dtype == np.int64
    assert grid.total == len(fitting)
    kept = window_grid(BORDERS, split, lookback, horizon, stride, drop_last=batch).starts
    assert len(kept) % batch == 0
    assert len(grid.starts) - len(kept) < batch
    np.testing.assert_array_equal(kept, grid.starts[: len(kept)])


def test_first_contexts_of_val_and_test_reach_back_over_the_border() -> None:
    for split in ("val", "test"):
        grid = window_grid(BORDERS, split, 50, 5)
        assert grid.starts[0] == getattr(BORDERS, split)[0]
        assert grid.starts[0] - grid.lookback < getattr(BORDERS, split)[0]


def test_drop_last_drops_what_old_test_loaders_dropped() -> None:
    borders = Borders((0, 8640), (8640, 11520), (11520, 14400))
    for batch, dropped in ((32, 17), (64, 49), (128, 113)):
        grid = window_grid(borders, "test", 96, 336, drop_last=batch)
        assert grid.total - len(grid.starts) == dropped


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 12),
    st.lists(st.integers(12, 28), max_size=6),
    st.booleans(),
)
def test_gathering_equals_a_loop_of_slices(
    channels: int, lookback: int, horizon: int, starts: list[int], fortran: bool
) -> None:
    scaled = np.random.default_rng(0).normal(size=(40, channels)).astype(np.float32)
    scaled = np.asfortranarray(scaled) if fortran else scaled
    contexts = gather_contexts(scaled, np.array(starts, dtype=np.int64), lookback)
    targets = gather_targets(scaled, np.array(starts, dtype=np.int64), horizon)
    assert contexts.shape == (len(starts), channels, lookback)
    assert targets.shape == (len(starts), channels, horizon)
    for array in (contexts, targets):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
    for window, start in enumerate(starts):
        for channel in range(channels):
            assert contexts[window, channel].tolist() == scaled[start - lookback : start, channel].tolist()
            assert targets[window, channel].tolist() == scaled[start : start + horizon, channel].tolist()


def test_gathered_windows_are_copies() -> None:
    scaled = np.zeros((20, 1), dtype=np.float32)
    gather_contexts(scaled, np.array([10]), 5)[:] = 1
    assert not scaled.any()


@pytest.mark.parametrize("start", [3, 17])
def test_when_a_window_leaves_the_array_then_it_is_refused(start: int) -> None:
    scaled = np.zeros((20, 1), dtype=np.float32)
    with pytest.raises(ValueError, match="leave the array"):
        (gather_contexts if start == 3 else gather_targets)(scaled, np.array([start]), 4)


@pytest.mark.parametrize(
    ("split", "lookback", "horizon", "stride", "drop_last", "cause"),
    [
        ("test", 10, 31, 1, None, "horizon 31 is longer than the test split of 30 rows"),
        ("train", 10, 61, 1, None, "horizon 61 is longer than the train split of 60 rows"),
        ("train", 41, 20, 1, None, "need 61 rows, but the train split has 60"),
        ("val", 61, 5, 1, None, "lookback 61 is longer than the 60 rows before the val split"),
        ("test", 81, 5, 1, None, "lookback 81 is longer than the 80 rows before the test split"),
        ("test", 0, 5, 1, None, "lookback is 0"),
        ("test", 5, 0, 1, None, "horizon is 0"),
        ("test", 5, 5, 0, None, "stride is 0"),
        ("test", 5, 5, 1, 0, "batch size is 0"),
        ("test", 5, 30, 1, 2, "leaves no test window"),
    ],
)
def test_when_no_window_fits_then_the_message_names_the_numbers(
    split: Split, lookback: int, horizon: int, stride: int, drop_last: int | None, cause: str
) -> None:
    with pytest.raises(TsbenchError, match=cause):
        window_grid(BORDERS, split, lookback, horizon, stride, drop_last)


def test_a_split_of_exactly_one_window_has_one() -> None:
    assert window_grid(BORDERS, "train", 40, 20).starts.tolist() == [40]
    assert window_grid(BORDERS, "test", 80, 30).starts.tolist() == [80]
