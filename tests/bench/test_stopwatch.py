"""The stopwatch: stages without gaps, added up by name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.bench.stopwatch import Stopwatch

CPU = torch.device("cpu")


def ticking(*steps: int) -> list[int]:
    """Readings of a clock in ns, each that many milliseconds after the one before."""
    readings = [7]
    for step in steps:
        readings.append(readings[-1] + step * 1_000_000)
    return readings


def test_a_stage_lasts_from_the_end_of_the_one_before() -> None:
    readings = iter(ticking(5, 3))
    watch = Stopwatch(CPU, lambda: next(readings))
    watch.start()
    watch.lap("retrieval")
    watch.lap("forward")
    assert watch.stop() == {"retrieval": 5.0, "forward": 3.0}


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["retrieval", "forward", "fusion"]), st.integers(0, 10**6))))
def test_stages_add_up_to_the_whole_time(laps: list[tuple[str, int]]) -> None:
    readings = ticking(*(step for _, step in laps))
    clock = iter(readings)
    watch = Stopwatch(CPU, lambda: next(clock))
    watch.start()
    for stage, _ in laps:
        watch.lap(stage)
    spent = watch.stop()
    assert sum(spent.values()) == pytest.approx((readings[-1] - readings[0]) / 1e6, abs=1e-6)
    for name in spent:
        assert spent[name] == pytest.approx(sum(step for stage, step in laps if stage == name))


def test_start_forgets_earlier_stages() -> None:
    readings = iter(ticking(100, 1, 2))
    watch = Stopwatch(CPU, lambda: next(readings))
    watch.start()
    watch.lap("forward")
    watch.start()
    watch.lap("fusion")
    assert watch.stop() == {"fusion": 2.0}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_stage_includes_work_that_outlasts_the_call() -> None:
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    matrix @ matrix
    watch = Stopwatch(device)
    watch.start()
    for _ in range(10):
        matrix @ matrix
    watch.lap("forward")
    watch.lap("fusion")
    spent = watch.stop()
    assert spent["forward"] > 10 * spent["fusion"]
