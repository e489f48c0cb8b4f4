"""Retrieval at forecast time: train windows that resemble a context answer for it (RAFT, TS-RAG)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.base import RollOut
from tsbench.methods.ts_memory.retrieval import ChannelIndex, KnowledgeBase, Neighbours
from tsbench.methods.ts_memory.teacher import future_quantiles, softmax_weights

GRANULARITIES = (4, 2, 1)
"""Steps per block of the three views that RAFT compares windows in."""

_ROWS_PER_CHUNK = 448


def granular_keys(context: torch.Tensor) -> torch.Tensor:
    """Vectors whose inner product is RAFT's similarity of two contexts.

    Per granularity g the context less its last value is averaged over blocks of g steps, centred and scaled
    to length 1; the three are joined and divided by √3. So the inner product is the mean of three cosines,
    each a Pearson correlation. The last value drops out with the centring. Blocks end at the last step; the
    L mod g oldest steps are left out. A view without direction, such as that of a constant context, is zero
    and adds nothing to a similarity.

    Args:
        context: [B, L], oldest first.

    Returns:
        [B, D] float32 with D = ⌊L/4⌋ + ⌊L/2⌋ + L.

    Source:
        RAFT (Han et al. 2025) as TS-Memory's Appendix C.4 (arXiv 2602.11550) has it: the retrieval without
        RAFT's learned layers. RAFT compares all channels jointly; here each channel is a series of its own.
    """
    rows, steps = context.shape
    offset = context.double() - context[:, -1:].double()
    views = []
    for size in GRANULARITIES:
        blocks = offset[:, steps % size :].reshape(rows, steps // size, size).mean(dim=2)
        centred = blocks - blocks.mean(dim=1, keepdim=True)
        length = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        views.append(torch.where(length > 0, centred / length.clamp_min(1e-300), 0))
    return (torch.cat(views, dim=1) / math.sqrt(len(GRANULARITIES))).float()


@dataclass(frozen=True, eq=False)
class OnlineMemory:
    """A knowledge base of train windows that can be asked about any context.

    Attributes:
        base: The train windows.
        indices: Exact search among the windows of each channel.
        represent: Contexts [B, L] -> vectors [B, D] that are searched with.
        tail: Last steps m whose mean aligns a neighbour's level; 1 exchanges its last value for the query's.
        scales: Unit of the softmax temperature, per channel.
    """

    base: KnowledgeBase
    indices: tuple[ChannelIndex, ...]
    represent: Callable[[torch.Tensor], torch.Tensor]
    tail: int
    scales: tuple[float, ...]

    def search(self, context: torch.Tensor, count: int) -> tuple[Neighbours, ...]:
        """Find the nearest train windows of each context, in its own channel.

        Args:
            context: [w * C, L] float32, whole windows, channel by channel within each.
            count: Neighbours K; all windows where there are fewer.

        Returns:
            For each channel the neighbours [w, K] of its contexts, nearest first.

        Raises:
            ValueError: The contexts are no whole windows.
        """
        channels = len(self.indices)
        if len(context) % channels:
            raise ValueError(f"{len(context)} contexts are no whole windows of {channels} channels")
        vectors = self.represent(context).cpu().numpy()
        return tuple(
            self._align(
                channel,
                context[channel::channels].cpu(),
                np.ascontiguousarray(vectors[channel::channels]),
                count,
            )
            for channel in range(channels)
        )

    def _align(
        self, channel: int, query: torch.Tensor, vectors: NDArray[np.float32], count: int
    ) -> Neighbours:
        starts, distances = self.indices[channel].nearest(vectors, count)
        tail = min(self.tail, self.base.lookback)
        tails = torch.from_numpy(self.base.contexts(starts, channel, tail))
        shifts = query[:, None, -tail:].mean(dim=-1) - tails.mean(dim=-1)  # TS-Memory, Eq. 5
        return Neighbours(starts, distances, shifts.numpy())


@dataclass(frozen=True, eq=False)
class Retrieved:
    """What was found for w windows: for each channel its neighbours [w, K] and their weights [w, K]."""

    neighbours: tuple[Neighbours, ...]
    weights: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class RetrievalForecaster:
    """Forecasts the weighted quantiles of the futures that followed similar train windows.

    Attributes:
        memory: Where to look.
        quantile_levels: Q levels, ascending.
        k: Neighbours.
        temperature: Of the softmax over distances, in units of `memory.scales`.
        name: Of the method.
    """

    memory: OnlineMemory
    quantile_levels: tuple[float, ...]
    k: int
    temperature: float
    name: str
    rollout: RollOut = "direct"

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast [w * C, Q, H] from whole windows [w * C, L], channel by channel within each.

        Raises:
            ValueError: The contexts are no whole windows, or the stored futures are shorter.
        """
        if horizon > self.memory.base.horizon:
            raise ValueError(
                f"the knowledge base has futures of {self.memory.base.horizon} steps, not {horizon}"
            )
        channels = len(self.memory.indices)
        rows = max(1, _ROWS_PER_CHUNK // channels) * channels
        parts = [self.quantiles(self.retrieve(chunk)) for chunk in torch.split(context, rows)]
        return torch.from_numpy(np.concatenate(parts)[..., :horizon]).flatten(0, 1).to(context.device)

    def retrieve(self, context: torch.Tensor) -> Retrieved:
        """Neighbours of whole windows [w * C, L] and their weights; see `OnlineMemory.search`."""
        return self.weigh(self.memory.search(context, self.k))

    def weigh(self, found: tuple[Neighbours, ...]) -> Retrieved:
        """Keep the first k of the neighbours found and weigh them: w = softmax(-d / (T · scale))."""
        kept = tuple(
            replace(each, **{name: array[:, : self.k] for name, array in vars(each).items()})
            for each in found
        )
        weights = tuple(
            softmax_weights(each.distances, self.temperature * scale)
            for each, scale in zip(kept, self.memory.scales, strict=True)
        )
        return Retrieved(kept, weights)

    def quantiles(self, retrieved: Retrieved) -> NDArray[np.float32]:
        """Weighted quantiles [w, C, Q, H] of the neighbours' level-shifted futures, ascending along Q."""
        pairs = zip(retrieved.neighbours, retrieved.weights, strict=True)
        return np.stack(
            [
                future_quantiles(self.memory.base, channel, found, weights, self.quantile_levels)
                for channel, (found, weights) in enumerate(pairs)
            ],
            axis=1,
        )
