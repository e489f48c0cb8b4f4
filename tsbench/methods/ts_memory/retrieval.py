"""The knowledge base of train windows and the neighbours it returns (TS-Memory, Eqs. 4 to 7, 9)."""

from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tsbench.config import TeacherOptions
from tsbench.errors import TsbenchError

# Queries handled at once: their candidates' contexts (64 x 50 x 512 x 4 bytes = 6.5 MB) stay in cache.
_QUERIES_PER_BLOCK = 64
_SCALE_QUERIES = 256

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


def level_shifts(query: torch.Tensor, contexts: torch.Tensor, tail: int) -> torch.Tensor:
    """Mean of the last m steps of the query [M, L] less that of each context [M, K, L]: [M, K] (Eq. 5)."""
    return query[:, None, -tail:].mean(dim=-1) - contexts[..., -tail:].mean(dim=-1)


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
        on_gpu: Search on the first GPU; needs the GPU build of faiss.
        metric: Distance between embeddings; "cosine" takes them to have length 1, or 0 where they have no
            direction.
    """

    def __init__(self, base: KnowledgeBase, channel: int, on_gpu: bool = False, metric: Metric = "euclidean"):
        self._base, self._channel, self._metric = base, channel, metric
        embeddings = np.ascontiguousarray(base.embeddings[:, channel])
        flat = faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2
        index: faiss.Index = flat(embeddings.shape[1])
        if on_gpu and hasattr(faiss, "StandardGpuResources"):
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        index.add(embeddings)
        self._index = index

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
        candidates, distances = self._candidates(query_starts, query_embeddings, options.pool, zone)
        kept = min(options.neighbours, candidates.shape[1])
        parts = [
            self._rerank(query_starts[part], candidates[part], distances[part], options.alignment_tail, kept)
            for part in _blocks(len(query_starts))
        ]
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
        embeddings = np.ascontiguousarray(self._base.embeddings[sample, self._channel])
        _, distances = self._candidates(self._base.starts[sample], embeddings, options.pool, zone)
        return max(float(np.median(distances)), float(np.finfo(np.float32).tiny))

    def _candidates(
        self, starts: NDArray[np.int64], embeddings: NDArray[np.float32], pool: int, zone: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `pool` nearest admissible windows of each query: first target rows and distances [M, P]."""
        known = self._base.starts
        first = np.searchsorted(known, starts - zone, side="right")
        last = np.searchsorted(known, starts + zone, side="left")
        excluded = np.maximum(last - first, 0)
        pool = min(pool, len(known) - int(excluded.max(initial=0)))
        if pool < 1:
            raise TsbenchError(
                f"some of the {len(known)} train windows have no other one {zone} steps or more away; use a "
                "shorter lookback or horizon, or a narrower exclusion rule"
            )
        found, distances = self.nearest(embeddings, pool + int(excluded.max(initial=0)))
        inside = np.abs(found - starts[:, None]) < zone
        order = np.argsort(inside, axis=1, kind="stable")[:, :pool]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(distances, order, axis=1)

    def _rerank(
        self,
        starts: NDArray[np.int64],
        candidates: NDArray[np.int64],
        distances: NDArray[np.float32],
        tail: int,
        kept: int,
    ) -> Neighbours:
        query = torch.from_numpy(self._base.contexts(starts, self._channel))
        context = torch.from_numpy(self._base.contexts(candidates, self._channel))
        shift = level_shifts(query, context, tail)
        gap = (query[:, None] - context - shift[..., None]).abs_().sum(dim=-1)
        order = gap.argsort(dim=1, stable=True)[:, :kept].numpy()
        return Neighbours(
            starts=np.take_along_axis(candidates, order, axis=1),
            distances=np.take_along_axis(distances, order, axis=1),
            shifts=np.take_along_axis(shift.numpy(), order, axis=1),
        )


def _blocks(queries: int) -> list[slice]:
    return [slice(first, first + _QUERIES_PER_BLOCK) for first in range(0, queries, _QUERIES_PER_BLOCK)]
