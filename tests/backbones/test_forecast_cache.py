import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import (
    CHANNELS,
    EVERY,
    HORIZON,
    LOOKBACK,
    SCALED,
    CountingBackbone,
    RefusingBackbone,
    collect,
    direct,
    entries,
    frozen,
)
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.windows import gather_contexts

ROW_BYTES = 4 * CHANNELS * 3 * HORIZON


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


def values_file(directory: Path) -> Path:
    (path,) = directory.rglob("values.f32")
    return path


def flip_a_byte(values: Path) -> None:
    content = bytearray(values.read_bytes())
    content[EVERY[3] * ROW_BYTES + 5] ^= 1
    values.write_bytes(content)


def lose_two_rows(values: Path) -> None:
    content = bytearray(values.read_bytes())
    content[EVERY[7] * ROW_BYTES : EVERY[9] * ROW_BYTES] = bytes(2 * ROW_BYTES)
    values.write_bytes(content)


def lose_a_checksum(values: Path) -> None:
    path = values.with_name("checksums.u32")
    checksums = np.frombuffer(path.read_bytes(), np.uint32).copy()
    checksums[EVERY[0]] = 0
    path.write_bytes(checksums.tobytes())


def cut_off_the_values(values: Path) -> None:
    os.truncate(values, EVERY[5] * ROW_BYTES)


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
    needed = len(EVERY) * ROW_BYTES
    backbone = CountingBackbone()
    cache = frozen(tmp_path / "cache", backbone, needed - 1)
    for _ in range(2):
        assert torch.equal(collect(cache, EVERY), direct(EVERY))
    assert backbone.forecast == 2 * len(EVERY) * CHANNELS
    cache.embeddings(np.repeat(EVERY, 20))
    assert not (tmp_path / "cache").exists()


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
