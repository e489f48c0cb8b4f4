"""What the forecast cache and the artifacts hold, and what cells that run earlier will have added."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import (
    FrozenBackbone,
    embedding_directory,
    horizon_directory,
    stored_horizons,
    stored_rows,
)

BLOCK = 4096  # bytes that most file systems allocate at once


@dataclass(frozen=True)
class Amount:
    """How much of something is needed, how much of that is not there, and the bytes that adds to the disk."""

    needed: int = 0
    missing: int = 0
    new_bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(
            self.needed + other.needed, self.missing + other.missing, self.new_bytes + other.new_bytes
        )


NOTHING = Amount()


@dataclass(eq=False)
class Ledger:
    """What is on disk, or will be by the time that the next cell runs; nothing is written to find out."""

    _rows: dict[Path, NDArray[np.bool_]] = field(default_factory=dict)
    _horizons: dict[Path, set[int]] = field(default_factory=lambda: defaultdict(set))
    _files: set[Path] = field(default_factory=set)

    def forecasts(self, frozen: FrozenBackbone, starts: NDArray[np.int64], horizon: int) -> Amount:
        """Note that base forecasts of windows are needed; windows are counted, not windows x channels."""
        shape = (frozen.scaled.shape[1], len(frozen.backbone.quantile_levels) or 1, horizon)
        if frozen.too_large(len(starts), shape):
            return Amount(len(starts), len(starts))
        entry = frozen.entry()
        known = self._stored(frozen, horizon_directory(entry, horizon))[starts].copy()
        if frozen.backbone.prefix_consistent:
            for longer in {*stored_horizons(entry), *self._horizons[entry]}:
                if longer > horizon:
                    known |= self._stored(frozen, horizon_directory(entry, longer))[starts]
        self._horizons[entry].add(horizon)
        written = self._write(frozen, horizon_directory(entry, horizon), starts, 4 * int(np.prod(shape)))
        return Amount(len(starts), int(np.count_nonzero(~known)), written)

    def embeddings(self, frozen: FrozenBackbone, starts: NDArray[np.int64], width: int) -> Amount:
        """Note that embeddings of windows are needed; one is computed in any case, to see their length."""
        shape = (frozen.scaled.shape[1], width)
        if frozen.too_large(len(starts), shape):
            return Amount(len(starts), len(starts))
        directory = embedding_directory(frozen.entry())
        missing = int(np.count_nonzero(~self._stored(frozen, directory)[starts]))
        return Amount(len(starts), missing, self._write(frozen, directory, starts, 4 * int(np.prod(shape))))

    def file(self, path: Path, size: int) -> Amount:
        """Note that a file is needed that a cell makes where it is not there."""
        if path.exists() or path in self._files:
            return Amount(1)
        self._files.add(path)
        return Amount(1, 1, _blocks(size))

    def _stored(self, frozen: FrozenBackbone, directory: Path) -> NDArray[np.bool_]:
        if directory not in self._rows:
            self._rows[directory] = stored_rows(directory, len(frozen.scaled) + 1)
        return self._rows[directory]

    def _write(
        self, frozen: FrozenBackbone, directory: Path, starts: NDArray[np.int64], item_bytes: int
    ) -> int:
        """Bytes that the rows not yet stored add to their two sparse files."""
        stored = self._stored(frozen, directory)
        new = np.sort(starts[~stored[starts]])
        stored[new] = True
        return _row_bytes(new, item_bytes) + _row_bytes(new, 4)


def _row_bytes(rows: NDArray[np.int64], item_bytes: int) -> int:
    """Allocated bytes of ascending rows of a sparse file, in whole blocks."""
    if not len(rows):
        return 0
    first, last = rows * item_bytes // BLOCK, ((rows + 1) * item_bytes - 1) // BLOCK
    first[1:] = np.maximum(first[1:], last[:-1] + 1)
    return int((last - first + 1).sum()) * BLOCK


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
