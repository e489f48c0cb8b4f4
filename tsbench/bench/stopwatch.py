"""Timing consecutive stages of a call, on a processor or on a GPU."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch


class Stopwatch:
    """Times stages that follow each other without a gap, so that they add up to the whole.

    On a CPU it reads a monotonic clock. On a GPU, whose work goes on after a call returns, it records CUDA
    events, and waits for the device before the first and after the last one; what the host does between two
    events counts too.

    Args:
        device: Where the stages run.
        clock: Nanoseconds; on a GPU it is not read.
    """

    def __init__(self, device: torch.device, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._device, self._clock = device, clock
        self._readings: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Begin the first stage, and forget earlier ones."""
        self._wait()
        self._readings = [("", self._read())]

    def lap(self, stage: str) -> None:
        """End a stage; the next one begins."""
        self._readings.append((stage, self._read()))

    def stop(self) -> dict[str, float]:
        """Milliseconds of each stage since the start, those of the same name added up."""
        self._wait()
        spent: dict[str, float] = {}
        for (_, before), (stage, after) in pairwise(self._readings):
            spent[stage] = spent.get(stage, 0.0) + self._milliseconds(before, after)
        return spent

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _read(self) -> Any:
        if self._device.type != "cuda":
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _milliseconds(self, before: Any, after: Any) -> float:
        if self._device.type != "cuda":
            return float(after - before) / 1e6
        return float(before.elapsed_time(after))
