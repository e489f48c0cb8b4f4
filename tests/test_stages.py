import pytest

from tsbench.stages import Stages, is_cost


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_while_a_stage_runs_inside_another_the_outer_ones_clock_stands_still() -> None:
    clock = Clock()
    stages = Stages(clock)
    clock.now += 50  # before any stage
    with stages("train"):
        clock.now += 1
        stages.count("train", 64)
        for _ in range(2):
            with stages("forecast", 7):
                clock.now += 10
                with stages("forecast", 1):
                    clock.now += 5
            clock.now += 2
    clock.now += 50  # after all
    assert stages.costs() == {
        "seconds_train": 5.0,
        "rows_train": 64.0,
        "seconds_forecast": 30.0,
        "rows_forecast": 16.0,
    }
    assert all(map(is_cost, stages.costs()))


def test_a_stage_without_rows_took_no_time() -> None:
    clock = Clock()
    stages = Stages(clock)
    with stages("train"):
        clock.now += 1
    assert stages.costs() == {"seconds_train": 0.0, "rows_train": 0.0}


def test_time_up_to_an_error_counts_and_the_outer_stage_goes_on() -> None:
    clock = Clock()
    stages = Stages(clock)
    with stages("score", 1):
        with pytest.raises(ValueError, match="no"), stages("forecast", 1):
            clock.now += 3
            raise ValueError("no")
        clock.now += 4
    assert stages.costs()["seconds_forecast"] == 3.0
    assert stages.costs()["seconds_score"] == 4.0


def test_scores_are_no_costs() -> None:
    assert not any(map(is_cost, ("mse", "series_without_mase", "train_pairs")))
