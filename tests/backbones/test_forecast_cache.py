import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from filelock import Timeout
from numpy.typing import NDArray
from programs import LIMIT_S

from tsbench.backbones.forecast_cache import FrozenBackbone, RowFile, evict
from tsbench.data.windows import gather_contexts
from tsbench.errors import TsbenchError

LOOKBACK, HORIZON, CHANNELS = 16, 6, 2
EVERY = np.arange(LOOKBACK, 100)
SCALED = np.random.default_rng(4).standard_normal((120, CHANNELS)).cumsum(axis=0).astype(np.float32)


@dataclass
class CountingBackbone:
    """A fan around the last value; counts the contexts it forecasts and embeds."""

    identity: str = "fan"
    prefix_consistent: bool = True
    forecast: int = 0
    embedded: int = 0
    name: ClassVar[str] = "fan"
    quantile_levels: ClassVar[tuple[float, ...]] = (0.1, 0.5, 0.9)
    rollout: ClassVar[str] = "direct"
    block: ClassVar[None] = None

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        self.forecast += len(context)
        assert not torch.is_autocast_enabled("cpu")
        step = torch.arange(1.0, horizon + 1)
        if not self.prefix_consistent:
            step = step / horizon
        width = (context.amax(dim=1) - context.amin(dim=1))[:, None, None] + 1
        return context[:, -1:, None] + width * torch.tensor([[-1.0], [0.1], [1.0]]) * step

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        self.embedded += len(context)
        return torch.stack([context[:, 0], context.mean(dim=1), context.abs().amax(dim=1)], dim=1)


class RefusingBackbone(CountingBackbone):
    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        raise AssertionError("computed although it is stored")


def frozen(
    directory: Path | None, backbone: CountingBackbone | None = None, budget: int = 10**9
) -> FrozenBackbone:
    return FrozenBackbone(backbone or CountingBackbone(), SCALED, LOOKBACK, directory, budget)


def collect(cache: FrozenBackbone, starts: NDArray[np.int64], horizon: int = HORIZON) -> torch.Tensor:
    """All forecasts [W, C, Q, H]; the parts must be consecutive and cover `starts`."""
    parts, chunks = zip(*cache.forecasts(starts, horizon), strict=True)
    covered = np.concatenate([np.arange(len(starts))[part] for part in parts])
    assert covered.tolist() == list(range(len(starts)))
    return torch.cat(chunks)


def direct(
    starts: NDArray[np.int64],
    horizon: int = HORIZON,
    backbone: CountingBackbone | None = None,
    scaled: NDArray[np.float32] = SCALED,
    lookback: int = LOOKBACK,
) -> torch.Tensor:
    """The same without the cache, one window at a time."""
    model = backbone or CountingBackbone()
    contexts = torch.from_numpy(gather_contexts(scaled, starts, lookback))
    return torch.stack([model.predict(context, horizon) for context in contexts])


def values_file(directory: Path) -> Path:
    (path,) = directory.rglob("values.f32")
    return path


def entries(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()]


def row_bytes(horizon: int = HORIZON) -> int:
    return 4 * CHANNELS * 3 * horizon


def test_when_asked_again_on_any_grid_then_nothing_is_computed_twice(tmp_path: Path) -> None:
    backbone = CountingBackbone()
    cache = frozen(tmp_path, backbone)
    assert torch.equal(collect(cache, EVERY[:40]), direct(EVERY[:40]))
    assert backbone.forecast == 40 * CHANNELS
    for grid in (EVERY[:40:7], EVERY[5:30], EVERY[[12, 3, 30]]):
        assert torch.equal(collect(cache, grid), direct(grid))
    assert backbone.forecast == 40 * CHANNELS
    assert torch.equal(collect(cache, EVERY[20:60:2]), direct(EVERY[20:60:2]))
    assert backbone.forecast == (40 + 10) * CHANNELS
    again = frozen(tmp_path, RefusingBackbone())
    assert torch.equal(collect(again, EVERY[:40]), direct(EVERY[:40]))


def test_last_possible_window_is_stored_too(tmp_path: Path) -> None:
    ends = np.array([LOOKBACK, len(SCALED)])
    for _ in range(2):
        assert torch.equal(collect(frozen(tmp_path), ends), direct(ends))


def test_chunks_do_not_change_the_forecasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsbench.backbones.forecast_cache._ROWS_PER_CHUNK", {"cpu": 7, "cuda": 7})
    for directory in (tmp_path, None):
        cache = frozen(directory)
        assert len(list(cache.forecasts(EVERY, HORIZON))) == -(-len(EVERY) // 3)
        assert torch.equal(collect(cache, EVERY), direct(EVERY))


def test_without_a_directory_everything_is_computed_afresh(tmp_path: Path) -> None:
    backbone = CountingBackbone()
    for _ in range(2):
        assert torch.equal(collect(frozen(None, backbone), EVERY), direct(EVERY))
    assert backbone.forecast == 2 * len(EVERY) * CHANNELS


def test_backbone_runs_in_fp32_inside_autocast(tmp_path: Path) -> None:
    expected = direct(EVERY)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(collect(frozen(tmp_path), EVERY), expected)


def test_when_forecast_further_ahead_before_then_a_prefix_is_copied(tmp_path: Path) -> None:
    collect(frozen(tmp_path), EVERY[:30], 12)
    collect(frozen(tmp_path), EVERY[30:40], 9)
    backbone = CountingBackbone()
    assert torch.equal(collect(frozen(tmp_path, backbone), EVERY[:50], 5), direct(EVERY[:50], 5))
    assert backbone.forecast == 10 * CHANNELS
    assert torch.equal(collect(frozen(tmp_path, backbone), EVERY[:30], 15), direct(EVERY[:30], 15))
    assert backbone.forecast == 40 * CHANNELS


def test_when_prefixes_differ_then_every_horizon_is_computed(tmp_path: Path) -> None:
    backbone = CountingBackbone(prefix_consistent=False)
    for horizon in (12, 5):
        forecast = collect(frozen(tmp_path, backbone), EVERY, horizon)
        assert torch.equal(forecast, direct(EVERY, horizon, CountingBackbone(prefix_consistent=False)))
    assert backbone.forecast == 2 * len(EVERY) * CHANNELS


def flip_a_byte(values: Path) -> None:
    content = bytearray(values.read_bytes())
    content[EVERY[3] * row_bytes() + 5] ^= 1
    values.write_bytes(content)


def lose_two_rows(values: Path) -> None:
    content = bytearray(values.read_bytes())
    content[EVERY[7] * row_bytes() : EVERY[9] * row_bytes()] = bytes(2 * row_bytes())
    values.write_bytes(content)


def lose_a_checksum(values: Path) -> None:
    path = values.with_name("checksums.u32")
    checksums = np.frombuffer(path.read_bytes(), np.uint32).copy()
    checksums[EVERY[0]] = 0
    path.write_bytes(checksums.tobytes())


def cut_off_the_values(values: Path) -> None:
    os.truncate(values, EVERY[5] * row_bytes())


def cut_off_the_checksums(values: Path) -> None:
    os.truncate(values.with_name("checksums.u32"), 40)


@pytest.mark.parametrize(
    ("damage", "rows"),
    [
        (flip_a_byte, 1),
        (lose_two_rows, 2),
        (lose_a_checksum, 1),
        (cut_off_the_values, len(EVERY)),
        (cut_off_the_checksums, len(EVERY)),
    ],
)
def test_when_rows_are_damaged_then_those_are_computed_again(
    tmp_path: Path, damage: Callable[[Path], None], rows: int
) -> None:
    collect(frozen(tmp_path), EVERY)
    damage(values_file(tmp_path))
    backbone = CountingBackbone()
    assert torch.equal(collect(frozen(tmp_path, backbone), EVERY), direct(EVERY))
    assert backbone.forecast == rows * CHANNELS
    assert torch.equal(collect(frozen(tmp_path, RefusingBackbone()), EVERY), direct(EVERY))


def test_when_killed_between_chunks_then_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tsbench.backbones.forecast_cache._ROWS_PER_CHUNK", dict.fromkeys(("cpu", "cuda"), 10 * CHANNELS)
    )

    class Killed(CountingBackbone):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            if self.forecast == 30 * CHANNELS:
                raise KeyboardInterrupt
            return super().predict(context, horizon)

    with pytest.raises(KeyboardInterrupt):
        collect(frozen(tmp_path, Killed()), EVERY)
    backbone = CountingBackbone()
    assert torch.equal(collect(frozen(tmp_path, backbone), EVERY), direct(EVERY))
    assert backbone.forecast == (len(EVERY) - 30) * CHANNELS


def test_pair_forecasts_are_the_forecasts(tmp_path: Path) -> None:
    windows, channels = np.array([5, 0, 83, 5]), np.array([1, 0, 1, 0])
    expected = direct(EVERY).numpy()[windows, channels]
    for directory in (tmp_path, None):
        backbone = CountingBackbone()
        read = frozen(directory, backbone).pair_forecasts(EVERY, HORIZON)
        for _ in range(2):
            np.testing.assert_array_equal(read(windows, channels), expected)
        assert backbone.forecast == len(EVERY) * CHANNELS


def test_embeddings_are_stored_per_window(tmp_path: Path) -> None:
    def embed(starts: NDArray[np.int64]) -> NDArray[np.float32]:
        contexts = torch.from_numpy(gather_contexts(SCALED, starts, LOOKBACK))
        return torch.stack([CountingBackbone().embed(context) for context in contexts]).numpy()

    np.testing.assert_array_equal(frozen(tmp_path).embeddings(EVERY[::2]), embed(EVERY[::2]))
    backbone = CountingBackbone()
    np.testing.assert_array_equal(frozen(tmp_path, backbone).embeddings(EVERY), embed(EVERY))
    assert backbone.embedded <= (1 + len(EVERY) // 2) * CHANNELS
    np.testing.assert_array_equal(frozen(None).embeddings(EVERY), embed(EVERY))
    assert torch.equal(collect(frozen(tmp_path), EVERY), direct(EVERY))


def test_when_data_lookback_or_backbone_differ_then_nothing_is_shared(tmp_path: Path) -> None:
    changed = SCALED.copy()
    changed[90, 1] += 1e-4
    cases = [
        (SCALED, LOOKBACK, CountingBackbone()),
        (changed, LOOKBACK, CountingBackbone()),
        (SCALED, LOOKBACK + 1, CountingBackbone()),
        (SCALED, LOOKBACK, CountingBackbone(identity="fan-v2", prefix_consistent=False)),
    ]
    starts = EVERY[1:]
    for scaled, lookback, backbone in cases:
        cache = FrozenBackbone(backbone, scaled, lookback, tmp_path, 10**9)
        expected = direct(starts, HORIZON, replace(backbone), scaled, lookback)
        assert torch.equal(collect(cache, starts), expected)
        assert backbone.forecast == len(starts) * CHANNELS
    assert len(entries(tmp_path)) == len(cases)


def test_layout_of_the_scaled_array_does_not_matter(tmp_path: Path) -> None:
    collect(frozen(tmp_path), EVERY)
    cache = FrozenBackbone(RefusingBackbone(), np.asfortranarray(SCALED), LOOKBACK, tmp_path, 10**9)
    assert torch.equal(collect(cache, EVERY), direct(EVERY))


def test_request_larger_than_the_budget_is_computed_and_not_stored(tmp_path: Path) -> None:
    needed = len(EVERY) * row_bytes()
    backbone = CountingBackbone()
    cache = frozen(tmp_path / "cache", backbone, needed - 1)
    for _ in range(2):
        assert torch.equal(collect(cache, EVERY), direct(EVERY))
    assert backbone.forecast == 2 * len(EVERY) * CHANNELS
    cache.embeddings(np.repeat(EVERY, 20))
    assert not (tmp_path / "cache").exists()


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


def test_what_the_backbone_computes_is_counted_and_what_is_read_is_not(tmp_path: Path) -> None:
    cache = frozen(tmp_path)
    for _ in range(2):
        collect(cache, EVERY)
        cache.embeddings(EVERY[::2])
        costs = cache.stages.costs()
        assert costs["rows_forecast"] == CHANNELS * len(EVERY)
        assert costs["rows_embed"] == CHANNELS * len(EVERY[::2])
        assert costs["seconds_forecast"] > 0
    again = frozen(tmp_path)
    collect(again, EVERY)
    assert again.stages.costs() == {}


def test_where_memory_is_short_fewer_windows_are_forecast_at_once(tmp_path: Path) -> None:
    class Hungry(CountingBackbone):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            if len(context) > 5:
                raise MemoryError
            return super().predict(context, horizon)

    for directory in (tmp_path, None):
        assert torch.equal(collect(frozen(directory, Hungry()), EVERY), direct(EVERY))


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
