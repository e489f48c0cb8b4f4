"""Learning rates over the steps of a training."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tsbench.choices import Schedule
from tsbench.training.loop import TrainingConfig, learning_rate

CONFIG = TrainingConfig(max_steps=20, eval_every=4, patience=3, learning_rate=0.05, seed=7)


@pytest.mark.parametrize("schedule", ["cosine", "late-halving"])
def test_schedules_are_those_of_torch_and_constant_stays_constant(schedule: Schedule) -> None:
    config = replace(CONFIG, schedule=schedule)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    reference = {
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.max_steps),
        "late-halving": torch.optim.lr_scheduler.MultiStepLR(
            optimiser, range(2 * config.eval_every, config.max_steps, config.eval_every), gamma=0.5
        ),
    }[schedule]
    for step in range(config.max_steps):
        assert learning_rate(step, config) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        assert learning_rate(step, CONFIG) == CONFIG.learning_rate
        optimiser.step()
        reference.step()
    assert learning_rate(config.max_steps - 1, config) < config.learning_rate


def test_the_learning_rate_rises_linearly_and_then_follows_the_schedule() -> None:
    config = replace(CONFIG, learning_rate=1.0, warmup_steps=3, schedule="constant")
    assert [learning_rate(step, config) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    cosine, bare = replace(config, schedule="cosine"), replace(config, schedule="cosine", warmup_steps=0)
    factors = [0.25, 0.5, 0.75] + [1.0] * 17
    for step, factor in enumerate(factors):
        assert learning_rate(step, cosine) == pytest.approx(factor * learning_rate(step, bare), rel=1e-12)
