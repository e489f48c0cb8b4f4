"""Forecasts and embeddings of a frozen backbone, computed once and kept on disk.

A frozen backbone's output for a window depends on the scaled values, the lookback and the backbone alone.
So it is addressed by a hash of these and by the window's first target row: any grid of windows, of any
split and stride, reads and extends the same sparse memory-mapped file. Each row carries a checksum: a row
that was never written, was cut off by a kill, or was damaged is computed again.
"""

import hashlib
import mmap
import os
import shutil
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from tsbench.backbones.base import Backbone
from tsbench.backbones.batching import Function, RowLimit, rows_in_budget
from tsbench.config import digest
from tsbench.data.windows import gather_contexts
from tsbench.errors import TsbenchError
from tsbench.stages import StageName, Stages

# Rows (windows x channels) handed to a backbone at once at most: enough for neighbouring windows to share
# work, few enough that a kill loses seconds. 448 rows of L = 512 and H = 720 take 12.5 MB, within the budget.
_ROWS_PER_CHUNK = {"cpu": 448, "cuda": 4_096}
_MAPPED_BYTES = 2**24  # of a file that may be in memory at once while it is checked
_FORMAT = 1
_CHECKSUMS = "checksums.u32"

PairReader = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Window indices [N] and channels [N] to forecasts [N, Q, H]."""


class RowFile:
    """A sparse [rows, ...] float32 array on disk of which any subset of rows may be present.

    Args:
        directory: Where the two files live; created.
        rows: Length of the first axis.
        item_shape: Shape of one row.

    Raises:
        TsbenchError: The directory cannot be written.
    """

    def __init__(self, directory: Path, rows: int, item_shape: tuple[int, ...]):
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(directory / "lock")
            with self._lock:
                self._mapped, self._values, values_file = _open_sparse(
                    directory / "values.f32", np.dtype(np.float32), (rows, *item_shape)
                )
                _, self._checksums, checksums_file = _open_sparse(
                    directory / _CHECKSUMS, np.dtype(np.uint32), (rows,)
                )
            self._files = (values_file, self._values), (checksums_file, self._checksums)
            os.utime(directory)
        except OSError as error:
            raise _not_writable(directory, error) from error

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `rows` that were never written or no longer match their checksum."""
        absent = []
        at_once = max(1, _MAPPED_BYTES // self._values[:1].nbytes)
        for first in range(0, len(rows), at_once):
            absent += [row for row in rows[first : first + at_once] if not self._intact(int(row))]
            self._release()
        return np.array(absent, dtype=np.int64)

    def write(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Store `values` [len(rows), ...]; the checksum is written after the data it covers.

        Raises:
            TsbenchError: The disk is full.
        """
        with self._lock:
            try:
                for descriptor, array in self._files:
                    _allocate(descriptor, rows, array[:1].nbytes)
            except OSError as error:
                raise _not_writable(self.directory, error) from error
            self._values[rows] = values
            for row in rows:
                self._checksums[row] = _checksum(self._values[row])
        self._release()

    def reserved(self, rows: NDArray[np.int64]) -> FileLock:
        """A lock for whoever computes `rows`: a second process that wants the same waits and finds them."""
        name = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        return FileLock(self.directory / f"{name}.lock")

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Copy out `rows`, which must be present."""
        values = np.asarray(self._values[rows])
        self._release()
        return values

    def pick(self, rows: NDArray[np.int64], channels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Copy out single channels of rows, [len(rows), ...] without the channel axis."""
        return np.asarray(self._values[rows, channels])

    def _release(self) -> None:
        """Take the file's pages out of this process, whose memory would grow with the rows it has seen."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def _intact(self, row: int) -> bool:
        stored = int(self._checksums[row])
        return stored != 0 and stored == _checksum(self._values[row])


@dataclass(frozen=True, eq=False)
class FrozenBackbone:
    """A backbone over one scaled data set, with its outputs cached.

    Attributes:
        backbone: The frozen model.
        scaled: [T, C] float32, standardised.
        lookback: Context steps L.
        directory: Root of the cache; None computes everything afresh.
        budget_bytes: Size above which the least recently used entries are removed; a request larger than
            the budget is computed without being stored.
        stages: Where the time of the backbone goes.
        device: Where the backbone is: "cpu", "cuda" or "cuda:N".
    """

    backbone: Backbone
    scaled: NDArray[np.float32]
    lookback: int
    directory: Path | None
    budget_bytes: int
    stages: Stages = field(default_factory=Stages)
    device: str = "cpu"

    @cached_property
    def _limit(self) -> RowLimit:
        return RowLimit(
            getattr(self.backbone, "name", "the forecaster"), getattr(self.backbone, "channels", 1)
        )

    def forecasts(self, starts: NDArray[np.int64], horizon: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Base forecasts of windows, in chunks of consecutive entries of `starts`.

        Args:
            starts: [W] first target rows.
            horizon: Steps H.

        Yields:
            The slice of `starts` and its forecasts [w, C, Q, H] float32 on the CPU.
        """
        file = self._forecast_file(starts, horizon)
        for part in self.chunks(len(starts), self._levels * horizon):
            if file is None:
                yield part, self._forecast(starts[part], horizon)
            else:
                yield part, torch.from_numpy(file.read(starts[part]))

    def pair_forecasts(self, starts: NDArray[np.int64], horizon: int) -> PairReader:
        """Compute the forecasts of windows once and read single (window, channel) pairs from then on.

        Args:
            starts: [W] first target rows.
            horizon: Steps H.

        Returns:
            A function of window indices [N] (into `starts`) and channels [N] to forecasts [N, Q, H].
        """
        file = self._forecast_file(starts, horizon)
        if file is None:
            everything = torch.cat([chunk for _, chunk in self.forecasts(starts, horizon)]).numpy()
            return lambda windows, channels: everything[windows, channels]
        return lambda windows, channels: file.pick(starts[windows], channels)

    def embeddings(self, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encoder embeddings of the windows' contexts, [W, C, D]."""
        probe = self._compute(starts[:1], self.backbone.embed)
        shape = tuple(probe.shape[1:])
        if self.too_large(len(starts), shape):
            return torch.cat([self._embed(starts[part]) for part in self.chunks(len(starts))]).numpy()
        file = RowFile(embedding_directory(self.entry()), len(self.scaled) + 1, shape)
        with file.reserved(starts):
            self._complete(file, starts, self._embed)
        self._evict()
        return file.read(starts)

    def chunks(self, windows: int, values: int = 0) -> Iterator[slice]:
        """Consecutive slices that cover a number of windows, each a batch for one model call.

        Args:
            windows: How many.
            values: Float32 values of the forecast of a row, Q x H; 0 for embeddings.
        """
        device = torch.device(self.device)
        rows = min(_ROWS_PER_CHUNK[device.type], rows_in_budget(self.lookback + values, device))
        size = max(1, rows // self.scaled.shape[1])
        for first in range(0, windows, size):
            yield slice(first, min(first + size, windows))

    @property
    def _levels(self) -> int:
        """Values per step of the backbone's forecasts."""
        return len(self.backbone.quantile_levels) or 1

    def entry(self) -> Path:
        """Directory of everything that is kept of this backbone over this data."""
        assert self.directory is not None  # callers check `too_large` first
        content = hashlib.sha256(np.ascontiguousarray(self.scaled).data).hexdigest()
        key = digest([_FORMAT, content, list(self.scaled.shape), self.lookback, self.backbone.identity])
        return self.directory / key[:32]

    def _forecast_file(self, starts: NDArray[np.int64], horizon: int) -> RowFile | None:
        """The file of this horizon with every window in it; None if it is not to be stored.

        Where the backbone is prefix-consistent, windows forecast further ahead before are copied, not
        computed: one pass over the longest horizon serves all.
        """
        levels = self._levels
        shape = (self.scaled.shape[1], levels)
        if self.too_large(len(starts), (*shape, horizon)):
            return None
        entry = self.entry()
        rows = len(self.scaled) + 1
        file = RowFile(horizon_directory(entry, horizon), rows, (*shape, horizon))
        with file.reserved(starts):
            if self.backbone.prefix_consistent:
                for longer in (stored for stored in stored_horizons(entry) if stored > horizon):
                    other = RowFile(horizon_directory(entry, longer), rows, (*shape, longer))
                    absent = file.missing(starts)
                    known = np.setdiff1d(absent, other.missing(absent))
                    for part in self.chunks(len(known), levels * horizon):
                        file.write(known[part], other.read(known[part])[..., :horizon])
            self._complete(file, starts, lambda part: self._forecast(part, horizon), levels * horizon)
        self._evict()
        return file

    def _complete(
        self,
        file: RowFile,
        starts: NDArray[np.int64],
        function: Callable[[NDArray[np.int64]], torch.Tensor],
        values: int = 0,
    ) -> None:
        absent = file.missing(starts)
        for part in self.chunks(len(absent), values):
            file.write(absent[part], function(absent[part]).numpy())

    def _forecast(self, starts: NDArray[np.int64], horizon: int) -> torch.Tensor:
        return self._timed("forecast", starts, lambda context: self.backbone.predict(context, horizon))

    def _embed(self, starts: NDArray[np.int64]) -> torch.Tensor:
        return self._timed("embed", starts, self.backbone.embed)

    def _timed(self, stage: StageName, starts: NDArray[np.int64], function: Function) -> torch.Tensor:
        with self.stages(stage, len(starts) * self.scaled.shape[1]):
            return self._compute(starts, function)

    def _compute(self, starts: NDArray[np.int64], function: Function) -> torch.Tensor:
        """Apply `function` to the contexts [w * C, L] in fp32; result [w, C, ...] on the CPU."""
        context = gather_contexts(self.scaled, starts, self.lookback)
        windows, channels, lookback = context.shape
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            result = self._limit.call(function, torch.from_numpy(context).view(windows * channels, lookback))
        return result.view(windows, channels, *result.shape[1:]).cpu()

    def too_large(self, windows: int, item_shape: tuple[int, ...]) -> bool:
        """Whether arrays of this shape for so many windows at once are computed without being stored."""
        return self.directory is None or 4 * windows * int(np.prod(item_shape)) > self.budget_bytes

    def _evict(self) -> None:
        """Remove least recently used entries of other contents until the cache fits its budget."""
        assert self.directory is not None
        if self.directory.is_dir():
            evict(self.directory, self.budget_bytes, keep=self.entry())


def evict(directory: Path, budget_bytes: int, keep: Path) -> None:
    """Delete the least recently used entries of a cache directory until it fits the budget.

    Args:
        directory: Root of the cache.
        budget_bytes: Bound on the allocated bytes of all entries together.
        keep: Entry that must stay.
    """
    with FileLock(directory / "lock"):  # another process evicting would delete what is being measured
        entries = [path for path in directory.iterdir() if path.is_dir()]
        sizes = {path: _allocated_bytes(path) for path in entries}
        excess = sum(sizes.values()) - budget_bytes
        for path in sorted(entries, key=_last_used):
            if excess <= 0:
                return
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)
                excess -= sizes[path]


def _last_used(entry: Path) -> float:
    return max(path.stat().st_mtime for path in (entry, *entry.iterdir()))


def _allocated_bytes(entry: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in entry.rglob("*") if path.is_file())


def stored_horizons(entry: Path) -> list[int]:
    """Horizons of which an entry has forecasts, ascending."""
    return sorted(int(path.name[1:]) for path in entry.glob("h[0-9]*"))


def horizon_directory(entry: Path, horizon: int) -> Path:
    """Where an entry keeps its forecasts so many steps ahead."""
    return entry / f"h{horizon:04d}"


def embedding_directory(entry: Path) -> Path:
    """Where an entry keeps its embeddings."""
    return entry / "embeddings"


def stored_rows(directory: Path, rows: int) -> NDArray[np.bool_]:
    """Which of the rows of a `RowFile` were written, by their checksums; nothing is opened for writing."""
    path = directory / _CHECKSUMS
    if not path.exists() or path.stat().st_size != 4 * rows:
        return np.zeros(rows, dtype=np.bool_)
    return np.asarray(np.fromfile(path, dtype=np.uint32) != 0)


def _open_sparse(
    path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> tuple[mmap.mmap, NDArray[np.generic], int]:
    """Map a file of zeros of this shape; one of another size is from elsewhere and is started anew.

    The descriptor, which comes last, is open as long as the file is mapped.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if not path.exists() or path.stat().st_size != size:
        with path.open("wb") as file:
            file.truncate(size)
    descriptor = os.open(path, os.O_RDWR)
    try:
        mapped = mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(mapped, os.close, descriptor)
    return mapped, np.frombuffer(mapped, dtype=dtype).reshape(shape), descriptor


def _allocate(descriptor: int, rows: NDArray[np.int64], row_bytes: int) -> None:
    """Reserve the blocks of rows: on a full disk this raises, where writing to the mapping kills."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    first = np.sort(rows) * row_bytes
    gaps = np.flatnonzero(np.diff(first) - row_bytes >= mmap.PAGESIZE)  # a smaller one has no page alone
    ends = first[[*gaps, -1]] + row_bytes
    for begin, end in zip(first[[0, *(gaps + 1)]].tolist(), ends.tolist(), strict=True):
        os.posix_fallocate(descriptor, begin, end - begin)


def _not_writable(directory: Path, error: OSError) -> TsbenchError:
    return TsbenchError(
        f"cannot write the forecast cache {directory}: {error.strerror}; set TSBENCH_HOME to a "
        "writable directory"
    )


def _checksum(row: NDArray[np.generic]) -> int:
    """CRC-32 of a row, moved off 0, which stands for an absent row."""
    return zlib.crc32(np.ascontiguousarray(row).data) or 1
