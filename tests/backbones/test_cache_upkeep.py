import errno
import mmap
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import (
    CHANNELS,
    EVERY,
    HORIZON,
    SCALED,
    CountingBackbone,
    RefusingBackbone,
    collect,
    direct,
    entries,
    frozen,
)
from filelock import Timeout
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import LIMIT_S

from tsbench.backbones import forecast_cache
from tsbench.backbones.forecast_cache import RowFile, evict
from tsbench.errors import TsbenchError


def entry(root: Path, name: str, n_bytes: int, last_used: int) -> Path:
    """An entry with one file of a size, used at a time."""
    folder = root / name / "h0006"
    folder.mkdir(parents=True)
    folder.joinpath("values.f32").write_bytes(os.urandom(n_bytes))
    os.utime(folder, (last_used, last_used))
    os.utime(folder.parent, (last_used, last_used))
    return folder.parent


def allocated(root: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in root.rglob("values.f32"))


def test_least_recently_used_entries_are_removed_until_the_rest_fits(tmp_path: Path) -> None:
    old, middle, new = (
        entry(tmp_path, name, 2**15, last_used)
        for name, last_used in (("b", 1_000), ("c", 2_000), ("a", 3_000))
    )
    everything = allocated(tmp_path)
    evict(tmp_path, everything, keep=new)
    assert old.exists() and middle.exists() and new.exists()
    evict(tmp_path, everything - 1, keep=new)
    assert not old.exists() and middle.exists() and new.exists()
    evict(tmp_path, 0, keep=middle)
    assert middle.exists() and not new.exists()


def test_when_an_entry_is_read_then_it_outlives_one_that_is_not(tmp_path: Path) -> None:
    collect(frozen(tmp_path), EVERY)
    (read,) = entries(tmp_path)
    for path in (read, *read.rglob("*")):
        os.utime(path, (1_000, 1_000))
    unread = entry(tmp_path, "unread", 2**15, last_used=2_000)
    collect(frozen(tmp_path), EVERY)
    evict(tmp_path, 2**15, keep=tmp_path / "another")
    assert read.exists() and not unread.exists()


def test_when_the_budget_is_exceeded_then_the_entry_in_use_stays(tmp_path: Path) -> None:
    others = [entry(tmp_path, name, 2**20, last_used=2**33) for name in "ab"]
    cache = frozen(tmp_path, budget=2**17)
    assert torch.equal(collect(cache, EVERY), direct(EVERY))
    assert not any(other.exists() for other in others)
    assert torch.equal(collect(frozen(tmp_path, RefusingBackbone(), 2**17), EVERY), direct(EVERY))


def test_directory_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    cache = frozen(tmp_path / "file" / "forecasts")
    with pytest.raises(TsbenchError, match=r"cannot write the forecast cache .*; set TSBENCH_HOME to a"):
        collect(cache, EVERY)


def test_while_windows_are_computed_a_second_process_waits_for_them(tmp_path: Path) -> None:
    class Locked(CountingBackbone):
        """Sees that whoever asks for the windows being computed would wait, and for others would not."""

        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            self.check("h0006")
            return super().predict(context, horizon)

        def embed(self, context: torch.Tensor) -> torch.Tensor:
            if len(context) > CHANNELS:  # one window is embedded first for its shape
                self.check("embeddings")
            return super().embed(context)

        def check(self, name: str) -> None:
            (directory,) = tmp_path.glob(f"*/{name}")
            file = RowFile(directory, len(SCALED) + 1, item_shape[name])
            with file.reserved(EVERY[:5]).acquire(blocking=False):
                pass
            with pytest.raises(Timeout):
                file.reserved(EVERY).acquire(blocking=False)
            checked.append(name)

    item_shape = {"h0006": (CHANNELS, 3, HORIZON), "embeddings": (CHANNELS, 3)}
    checked: list[str] = []
    cache = frozen(tmp_path, Locked())
    assert torch.equal(collect(cache, EVERY), direct(EVERY))
    cache.embeddings(EVERY)
    assert checked == ["h0006", "embeddings"]


def evict_and_fill(root: Path, first: int, barrier: "multiprocessing.synchronize.Barrier") -> None:
    """What each of two processes does: empty one cache, then fill another from two grids."""
    barrier.wait(LIMIT_S)
    evict(root / "full", 0, keep=root)
    for offset in range(first, first + 5):
        grid = EVERY[offset::2]
        assert torch.equal(collect(frozen(root / "shared"), grid), direct(grid))


def test_two_processes_may_evict_and_fill_the_same_entries(tmp_path: Path) -> None:
    for number in range(100):
        entry(tmp_path / "full", str(number), 2**12, last_used=1_000 + number)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    other = context.Process(target=evict_and_fill, args=(tmp_path, 1, barrier))
    other.start()
    evict_and_fill(tmp_path, 0, barrier)
    other.join(LIMIT_S)
    assert other.exitcode == 0
    assert not entries(tmp_path / "full")
    assert torch.equal(collect(frozen(tmp_path / "shared", RefusingBackbone()), EVERY), direct(EVERY))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the platform cannot reserve blocks")
def test_on_a_full_disk_nothing_is_written_and_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = RowFile(tmp_path, 100, (8,))
    monkeypatch.setattr("os.posix_fallocate", full)
    rows = np.arange(3)
    with pytest.raises(TsbenchError, match=r"cannot write the forecast cache .*: No space left on device; "):
        file.write(rows, np.ones((3, 8), dtype=np.float32))
    np.testing.assert_array_equal(file.missing(rows), rows)
    assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the platform cannot reserve blocks")
@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=20, unique=True),
    st.sampled_from([4, 700, 4096, 10_000]),
)
def test_blocks_are_reserved_for_the_rows_written_and_no_others(rows: list[int], row_bytes: int) -> None:
    reserved = np.zeros(1000 * row_bytes, dtype=bool)

    def reserve(descriptor: int, offset: int, length: int) -> None:
        assert offset + length <= len(reserved)
        reserved[offset : offset + length] = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.posix_fallocate", reserve)
        forecast_cache._allocate(0, np.array(rows), row_bytes)
    written = np.zeros((1000, row_bytes), dtype=bool)
    written[rows] = True
    pages = [set((np.flatnonzero(bytes_) // mmap.PAGESIZE).tolist()) for bytes_ in (reserved, written)]
    assert reserved[written.ravel()].all()
    assert pages[0] == pages[1]
