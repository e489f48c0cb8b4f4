"""Learning from one data set or from several together, the task's own or others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import digest
from tsbench.methods.task import Source, Task


def sources_of(task: Task, frozen: FrozenBackbone) -> tuple[Source, ...]:
    """What a method learns from: the task's sources, or the task itself with its backbone."""
    return task.sources or (Source(task, frozen),)


def split_numbers(numbers: NDArray[np.int64], sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Which items of each part are meant by numbers that run through all parts, one part after the other.

    Args:
        numbers: [B] from 0 to the sum of `sizes` less one.
        sizes: Items of each part.

    Returns:
        For each part the numbers that fall to it, counted from its own first item, in the order given.
    """
    ends = np.cumsum(sizes)
    return [
        numbers[(end - size <= numbers) & (numbers < end)] - (end - size)
        for size, end in zip(sizes, ends, strict=True)
    ]


def pooled_key(contents: Sequence[object]) -> str:
    """Name of what was learned from sources with these contents; of a single one that of its own cell."""
    return digest(contents[0] if len(contents) == 1 else list(contents))[:32]
