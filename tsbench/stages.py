"""What the time of a cell goes into."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

StageName = Literal["forecast", "embed", "teacher", "train", "tune", "score"]
"""Forecasts and embeddings of the frozen backbone, the teacher's answers, training with its validations, the
choice of the fusion weight, and scoring with all that forecasts beside the backbone."""

_SECONDS, _ROWS = "seconds_", "rows_"


def is_cost(name: str) -> bool:
    """Whether a value is one of `Stages.costs`."""
    return name.startswith((_SECONDS, _ROWS))


class Stages:
    """Adds up the seconds and the rows (windows x channels) of stages that may contain each other.

    While a stage runs inside another, the clock of the outer one stands still, so that stages add up to no
    more than the whole. A stage without a row did nothing but read what was there: it took no time.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = defaultdict(float)
        self._rows: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: StageName, rows: int = 0) -> Iterator[None]:
        """Run a stage over a number of rows."""
        self._charge()
        self._open.append(stage)
        self.count(stage, rows)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def count(self, stage: StageName, rows: int) -> None:
        """Add rows to a stage."""
        self._rows[stage] += rows

    def costs(self) -> dict[str, float]:
        """`seconds_<stage>` and `rows_<stage>` of every stage that was entered, in that order of stages."""
        return {
            f"{prefix}{stage}": float(values[stage]) if rows else 0.0
            for stage, rows in self._rows.items()
            for prefix, values in ((_SECONDS, self._seconds), (_ROWS, self._rows))
        }

    def _charge(self) -> None:
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now
