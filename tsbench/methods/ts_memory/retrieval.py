"""The knowledge base of train windows and the neighbours it returns (TS-Memory, Eqs. 4 to 7, 9)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tsbench.config import TeacherOptions
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    import faiss

# Distances held at once by a thread: 8 MB.
_DISTANCES_AT_ONCE = 2**21
# Queries re-ranked at once: the contexts of their candidates (8 x 50 x 512 x 4 bytes = 0.8 MB) stay in cache.
_RANKED_AT_ONCE = 8
# Windows in a group; a search first compares the groups by their nearest window.
_GROUP = 8
_SCALE_QUERIES = 256

Answer = TypeVar("Answer")

Metric = Literal["euclidean", "cosine"]
"""Distance between embeddings: Euclidean, or one minus the inner product of unit vectors."""


@dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """Windows that lie entirely in the train rows, per channel, with their frozen embeddings.

    Channels are searched separately, so no neighbour comes from another channel at the same time.

    Attributes:
        scaled: [T, C] float32, standardised.
        starts: [N] int64 first target rows, ascending.
        embeddings: [N, C, D] float32.
        lookback: Context steps L.
        horizon: Target steps H.
    """

    scaled: NDArray[np.float32]
    starts: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    lookback: int
    horizon: int

    def contexts(
        self, starts: NDArray[np.int64], channel: int, steps: int | None = None
    ) -> NDArray[np.float32]:
        """Contexts [..., L] before the given target rows, or their last steps alone."""
        steps = steps or self.lookback
        return sliding_window_view(self.scaled[:, channel], steps)[starts - steps]

    def futures(self, starts: NDArray[np.int64], channel: int) -> NDArray[np.float32]:
        """Targets [..., H] from the given rows on."""
        return sliding_window_view(self.scaled[:, channel], self.horizon)[starts]

    def require_past(self, query_starts: NDArray[np.int64]) -> None:
        """Check that every stored window ends before the first target row of every query.

        Raises:
            ValueError: One does not.
        """
        if self.starts[-1] + self.horizon > query_starts.min():
            raise ValueError("the knowledge base reaches into the queries' targets")


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Retrieved windows of M queries of one channel, nearest first: the teacher's by aligned context.

    Attributes:
        starts: [M, K] int64, first target row of each neighbour.
        distances: [M, K] float32, embedding distance (not squared).
        shifts: [M, K] float32, level shift added to a neighbour (Eq. 5).
    """

    starts: NDArray[np.int64]
    distances: NDArray[np.float32]
    shifts: NDArray[np.float32]


def exclusion_zone(options: TeacherOptions, lookback: int, horizon: int) -> int:
    """Smallest |Δt| in steps at which a train window may be the neighbour of a train query.

    "self" gives 1 (the paper drops the identical window alone), "target" H (futures share no step),
    "window" L + H (nothing is shared).
    """
    return {"self": 1, "target": horizon, "window": lookback + horizon}[options.exclusion]


class ChannelIndex:
    """Exact nearest-neighbour search among one channel's windows.

    Args:
        base: The knowledge base.
        channel: Which channel.
        on_gpu: Search on the first GPU; `nearest` needs the GPU build of faiss for that.
        metric: Distance between embeddings; "cosine" takes them to have length 1, or 0 where they have no
            direction. `neighbours` and `distance_scale` are Euclidean.
    """

    def __init__(self, base: KnowledgeBase, channel: int, on_gpu: bool = False, metric: Metric = "euclidean"):
        self._base, self._on_gpu, self._metric = base, on_gpu, metric
        self._embeddings = np.ascontiguousarray(base.embeddings[:, channel])
        self._contexts = torch.from_numpy(base.scaled[:, channel].copy()).unfold(0, base.lookback, 1)

    @cached_property
    def _index(self) -> "faiss.Index":
        import faiss

        flat = faiss.IndexFlatIP if self._metric == "cosine" else faiss.IndexFlatL2
        index: faiss.Index = flat(self._embeddings.shape[1])
        if self._on_gpu and hasattr(faiss, "StandardGpuResources"):
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        index.add(self._embeddings)
        return index

    @cached_property
    def _known(self) -> torch.Tensor:
        """[N, D + 1] times (query, 1): the squared distance less the query's squared length."""
        known = torch.from_numpy(self._embeddings).to("cuda" if self._on_gpu else "cpu")
        return torch.cat([-2 * known, known.square().sum(dim=1, keepdim=True)], dim=1)

    def nearest(
        self, embeddings: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest windows of each query, whenever they are; of equally near ones the earlier first.

        Args:
            embeddings: [M, D] float32, contiguous.
            count: How many; all windows where there are fewer.

        Returns:
            First target rows [M, P] int64 and distances [M, P] float32.
        """
        values, found = self._index.search(embeddings, min(count, len(self._base.starts)))
        if self._metric == "cosine":
            values = 1 - values
        starts = self._base.starts[found]
        # Distance, then time: a stable order whatever the index returns for ties.
        order = np.lexsort((starts, values), axis=1)
        starts, values = np.take_along_axis(starts, order, axis=1), np.take_along_axis(values, order, axis=1)
        return starts, values if self._metric == "cosine" else np.sqrt(np.maximum(values, 0))

    def neighbours(
        self,
        query_starts: NDArray[np.int64],
        query_embeddings: NDArray[np.float32],
        options: TeacherOptions,
        zone: int,
    ) -> Neighbours:
        """Retrieve, align and re-rank.

        A pool of K0 candidates by embedding distance (ties by time) is aligned in level to the query over
        the last m steps and re-ranked by the L1 distance of the contexts; the K nearest stay. The authors'
        code skips the pool for single channels and re-orders the same K; we follow the paper.

        Args:
            query_starts: [M] first target rows of the queries.
            query_embeddings: [M, D] float32.
            options: Pool size, K and m. Where the knowledge base is too small for the pool or K, all
                admissible windows are used.
            zone: Windows closer in time than this many steps are left out; 0 leaves out none.

        Returns:
            K neighbours of every query; K is smaller where fewer are admissible for some query.

        Raises:
            TsbenchError: No window is admissible for some query.
        """
        pool = self._pool(query_starts, options.pool, zone)
        kept = min(options.neighbours, pool)

        def answer(part: slice) -> Neighbours:
            starts, embeddings = query_starts[part], query_embeddings[part]
            candidates = self._candidates(starts, embeddings, pool, zone)
            return self._rerank(starts, embeddings, candidates, options.alignment_tail, kept)

        rows = max(1, _DISTANCES_AT_ONCE // len(self._base.starts))
        parts = in_threads(answer, blocks(len(query_starts), rows))
        return Neighbours(
            starts=np.concatenate([part.starts for part in parts]),
            distances=np.concatenate([part.distances for part in parts]),
            shifts=np.concatenate([part.shifts for part in parts]),
        )

    def distance_scale(self, options: TeacherOptions, zone: int) -> float:
        """Median candidate distance of a fixed sample of the knowledge base's own windows.

        The unit of the softmax temperature: embedding distances mean something else for every encoder.
        """
        sample = np.linspace(0, len(self._base.starts) - 1, _SCALE_QUERIES).astype(np.int64)
        starts, embeddings = self._base.starts[sample], self._embeddings[sample]
        found = self._candidates(starts, embeddings, self._pool(starts, options.pool, zone), zone)
        distances = self._distances(embeddings, found)
        return max(float(np.median(distances)), float(np.finfo(np.float32).tiny))

    def _excluded(self, starts: NDArray[np.int64], zone: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and one past the last of the windows that are too close in time to each query."""
        known = self._base.starts
        first = np.searchsorted(known, starts - zone, side="right")
        return first, np.maximum(np.searchsorted(known, starts + zone, side="left"), first)

    def _pool(self, starts: NDArray[np.int64], wanted: int, zone: int) -> int:
        """Size of the pool, which is the same for all queries: at most what any of them may retrieve."""
        first, end = self._excluded(starts, zone)
        known = len(self._base.starts)
        pool = min(wanted, known - int((end - first).max(initial=0)))
        if pool < 1:
            raise TsbenchError(
                f"some of the {known} train windows have no other one {zone} steps or more away; use a "
                "shorter lookback or horizon, or a narrower exclusion rule"
            )
        return pool

    def _candidates(
        self, starts: NDArray[np.int64], embeddings: NDArray[np.float32], pool: int, zone: int
    ) -> NDArray[np.int64]:
        """Places [M, P] in the knowledge base of the `pool` nearest admissible windows of each query."""
        known, queries = self._known, torch.from_numpy(embeddings)
        gaps = torch.nn.functional.pad(queries.to(known.device), (0, 1), value=1) @ known.T
        first, end = self._excluded(starts, zone)
        barred = first[:, None] + np.arange((end - first).max(initial=0))
        rows, places = np.nonzero(barred < end[:, None])
        gaps[torch.from_numpy(rows), torch.from_numpy(barred[rows, places])] = torch.inf
        return _smallest(gaps, pool).numpy()

    def _distances(self, embeddings: NDArray[np.float32], found: NDArray[np.int64]) -> NDArray[np.float32]:
        """Distances [M, P] to the windows at these places, without the rounding of the search."""
        gaps = torch.from_numpy(self._embeddings[found]).sub_(torch.from_numpy(embeddings)[:, None])
        distances: NDArray[np.float32] = torch.linalg.vector_norm(gaps, dim=-1).numpy()
        return distances

    def _aligned(
        self, starts: NDArray[np.int64], known: NDArray[np.int64], tail: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """L1 distances [M, P] of the aligned contexts (Eq. 6) and the shifts [M, P] that align them."""
        queries, candidates = (torch.from_numpy(each - self._base.lookback) for each in (starts, known))
        gaps = self._contexts.index_select(0, candidates.flatten()).view(*known.shape, -1)
        gaps -= self._contexts.index_select(0, queries)[:, None]
        shift = -gaps[..., -tail:].mean(dim=-1)  # Eq. 5: the difference of two means
        return gaps.add_(shift[..., None]).abs_().sum(dim=-1), shift

    def _rerank(
        self,
        starts: NDArray[np.int64],
        embeddings: NDArray[np.float32],
        candidates: NDArray[np.int64],
        tail: int,
        kept: int,
    ) -> Neighbours:
        tail = min(tail, self._base.lookback)
        known = self._base.starts[candidates]
        gap, shift = np.empty(known.shape, np.float32), np.empty(known.shape, np.float32)
        for rows in blocks(len(starts), _RANKED_AT_ONCE):
            gap[rows], shift[rows] = self._aligned(starts[rows], known[rows], tail)
        order = gap.argsort(axis=1, kind="stable")[:, :kept]
        found = np.take_along_axis(candidates, order, axis=1)
        return Neighbours(
            starts=self._base.starts[found],
            distances=self._distances(embeddings, found),
            shifts=np.take_along_axis(shift, order, axis=1),
        )


def _smallest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Places [M, count] of the smallest of each row [M, N] in their order; of equal ones the first."""
    taken = min(count + 1, values.shape[1])
    promising = _promising(values, taken)
    found = values.gather(1, promising.to(values.device)).cpu().numpy()
    nearest = np.argpartition(found, taken - 1, axis=1)[:, :taken]  # the largest of them is the last
    found, places = (np.take_along_axis(each, nearest, axis=1) for each in (found, promising.numpy()))
    bound, places = found[:, :count].max(axis=1, keepdims=True), places[:, :count]
    tied = np.flatnonzero(bound == found[:, count:])
    if len(tied):  # of those that are as large as the last one, any were taken
        rows = values[torch.from_numpy(tied)].cpu().numpy()
        smaller, equal = rows < bound[tied], rows == bound[tied]
        wanted = count - smaller.sum(axis=1, keepdims=True)
        chosen = smaller | (equal & (equal.cumsum(axis=1) <= wanted))
        places[tied] = chosen.nonzero()[1].reshape(len(tied), count)
    ordered = torch.from_numpy(np.sort(places, axis=1))
    order = values.gather(1, ordered.to(values.device)).sort(dim=1, stable=True).indices
    return ordered.gather(1, order.cpu())


def _promising(values: torch.Tensor, count: int) -> torch.Tensor:
    """Places [M, P], in any order, of a few values per row [M, N] that hold the `count` smallest.

    As many groups of columns are kept as values are wanted, those with the smallest minima: each value of
    another group is at least as large as `count` minima.
    """
    rows, columns = values.shape
    groups = columns // _GROUP
    if groups <= count:
        return torch.arange(columns).expand(rows, columns)
    # Group g is the columns g, g + groups, g + 2 groups, ...
    minima = values[:, : groups * _GROUP].view(rows, _GROUP, groups).amin(dim=1).cpu().numpy()
    kept = np.argpartition(minima, count - 1, axis=1)[:, :count]
    members = kept[:, None] + groups * np.arange(_GROUP)[:, None]
    left = np.broadcast_to(np.arange(groups * _GROUP, columns), (rows, columns % _GROUP))
    return torch.from_numpy(np.concatenate([members.reshape(rows, -1), left], axis=1))


def blocks(rows: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` that cover a number of rows."""
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def in_threads(function: Callable[[slice], Answer], parts: list[slice]) -> list[Answer]:
    """Answers for all parts, computed in as many threads as PyTorch may use, each of which uses one."""
    threads = torch.get_num_threads()
    if min(threads, len(parts)) < 2:
        return [function(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)  # what a thread sets for itself is also the default of later threads
