"""The offline teacher: neighbours' futures as weighted empirical quantiles (TS-Memory, Eqs. 6 to 9, 23)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tsbench.config import TeacherOptions
from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_path, atomic_write
from tsbench.methods.ts_memory.retrieval import (
    ChannelIndex,
    KnowledgeBase,
    Neighbours,
    blocks,
    exclusion_zone,
    in_threads,
)

# A sum of float64 weights that should reach a level exactly may miss it by rounding.
_LEVEL_SLACK = 1e-9
_TAG = 2**28 - 1  # the last bits of a float64, less than half the last place of a float32
_QUERIES_PER_BLOCK = 64  # their futures, sorted with their weights, stay in cache


@dataclass(frozen=True, eq=False)
class Teacher:
    """What the knowledge base says about a list of query windows.

    Attributes:
        query_starts: [M] int64, first target rows.
        neighbours: [M, C, K] int64, first target rows of the neighbours.
        weights: [M, C, K] float32, softmax weights, summing to 1.
        confidence: [M, C] float32, the largest weight (Eq. 9).
        quantiles: [M, C, Q, H] float32, standardised units, ascending along Q.
    """

    query_starts: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    weights: NDArray[np.float32]
    confidence: NDArray[np.float32]
    quantiles: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write all arrays to one safetensors file, atomically."""
        with atomic_path(path) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in vars(self).items()}, temporary)

    @staticmethod
    def load(path: Path) -> "Teacher":
        """Read what `save` wrote.

        Raises:
            TsbenchError: The file is damaged.
        """
        try:
            return Teacher(**load_file(path))
        except (SafetensorError, TypeError) as error:
            raise TsbenchError(f"{path} is not a readable teacher; delete it and run again") from error


def build_teacher(
    base: KnowledgeBase,
    query_starts: NDArray[np.int64],
    query_embeddings: NDArray[np.float32],
    levels: Sequence[float],
    options: TeacherOptions,
    *,
    queries_are_train: bool,
    on_gpu: bool = False,
) -> Teacher:
    """Ask the knowledge base about query windows.

    Args:
        base: Train windows only.
        query_starts: [M] int64, first target rows.
        query_embeddings: [M, C, D] float32.
        levels: Q quantile levels, ascending.
        options: Retrieval settings.
        queries_are_train: Apply the exclusion rule; validation and test queries need none, because every
            stored window ends before their first target row (checked).
        on_gpu: Search on the GPU.

    Raises:
        ValueError: A stored window reaches a target row of a query that is not a train window.
    """
    zone = exclusion_zone(options, base.lookback, base.horizon)
    if not queries_are_train:
        base.require_past(query_starts)
    windows, channels = len(query_starts), base.scaled.shape[1]
    quantiles = np.empty((windows, channels, len(levels), base.horizon), np.float32)
    found_starts, found_weights = [], []
    for channel in range(channels):
        index = ChannelIndex(base, channel, on_gpu)
        temperature = options.temperature * index.distance_scale(options, zone)
        found = index.neighbours(
            query_starts, query_embeddings[:, channel], options, zone if queries_are_train else 0
        )
        weights = softmax_weights(found.distances, temperature)
        quantiles[:, channel] = future_quantiles(base, channel, found, weights, levels)
        found_starts.append(found.starts)
        found_weights.append(weights)
    weights = np.stack(found_weights, axis=1)
    return Teacher(query_starts, np.stack(found_starts, axis=1), weights, weights.max(axis=2), quantiles)


def softmax_weights(distances: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """w_k = softmax_k(-d_k / τ) over the last axis (Eq. 7 with ψ the identity)."""
    scores = -distances.astype(np.float64) / temperature
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), dtype=np.float32)


def weighted_quantiles(
    values: NDArray[np.float32], weights: NDArray[np.float32], levels: Sequence[float]
) -> NDArray[np.float32]:
    """Lower weighted quantiles: the smallest value whose cumulative weight reaches the level.

    The authors' code takes the first value that exceeds it, which differs only where the cumulative
    weight hits a level exactly; we follow Eq. 8.

    Args:
        values: [M, K, H] float32.
        weights: [M, K] float32, non-negative, summing to 1.
        levels: Q levels in (0, 1), ascending.

    Returns:
        [M, Q, H] float32, ascending along Q.
    """
    neighbours = values.shape[1]
    futures = torch.from_numpy(values).transpose(1, 2)  # [M, H, K]
    tagged = futures.to(torch.float64, memory_format=torch.contiguous_format)
    # The bits that a float32 leaves unused tell whose value it is, so that sorting the values alone does.
    bits = tagged.view(torch.int64)
    bits |= torch.arange(neighbours)
    tagged.numpy().sort(axis=-1)
    shares = torch.from_numpy(weights).double()[:, None].expand(tagged.shape).gather(2, bits & _TAG)
    reached = shares.cumsum(dim=2).permute(2, 0, 1).contiguous().numpy()  # [K, M, H]: counted over K at once
    count = np.min_scalar_type(neighbours)
    below = [
        np.add.reduce((reached < level - _LEVEL_SLACK).view(np.uint8), axis=0, dtype=count)
        for level in levels
    ]
    first = np.minimum(np.stack(below, axis=-1).astype(np.int64), neighbours - 1)
    return tagged.gather(2, torch.from_numpy(first)).transpose(1, 2).float().contiguous().numpy()


def future_quantiles(
    base: KnowledgeBase,
    channel: int,
    found: Neighbours,
    weights: NDArray[np.float32],
    levels: Sequence[float],
) -> NDArray[np.float32]:
    """Weighted quantiles of the neighbours' level-shifted futures (Eq. 8).

    Args:
        base: Train windows only.
        channel: The neighbours' channel.
        found: K neighbours of M queries.
        weights: [M, K] float32, summing to 1.
        levels: Q quantile levels, ascending.

    Returns:
        [M, Q, H] float32, ascending along Q.
    """

    def answer(part: slice) -> NDArray[np.float32]:
        futures = base.futures(found.starts[part], channel) + found.shifts[part, :, None]
        return weighted_quantiles(futures, weights[part], levels)

    return np.concatenate(in_threads(answer, blocks(len(weights), _QUERIES_PER_BLOCK)))


@dataclass(frozen=True)
class TeacherQuality:
    """How good the teacher is where it is asked, beside the frozen backbone.

    Attributes:
        teacher_mae: Mean absolute error of the teacher's median.
        base_mae: That of the backbone's median on the same windows.
        gate_open: Share of (window, channel) pairs on which the teacher is the better of the two (Eq. 13).
        confidence_mean: Mean confidence.
    """

    teacher_mae: float
    base_mae: float
    gate_open: float
    confidence_mean: float


def teacher_quality(
    teacher: Teacher, base_median: NDArray[np.float32], targets: NDArray[np.float32], median: int
) -> TeacherQuality:
    """Compare teacher and backbone.

    Args:
        teacher: The teacher for M windows.
        base_median: [M, C, H] float32, the backbone's medians.
        targets: [M, C, H] float32.
        median: Index of level 0.5 among the teacher's levels.
    """
    teacher_error = np.abs(teacher.quantiles[:, :, median] - targets).mean(axis=-1, dtype=np.float64)
    base_error = np.abs(base_median - targets).mean(axis=-1, dtype=np.float64)
    return TeacherQuality(
        teacher_mae=float(teacher_error.mean()),
        base_mae=float(base_error.mean()),
        gate_open=float((teacher_error < base_error).mean()),
        confidence_mean=float(teacher.confidence.mean(dtype=np.float64)),
    )


def write_card(path: Path, content: dict[str, object]) -> None:
    """Write the JSON description that stands beside an artefact."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2, sort_keys=True)
