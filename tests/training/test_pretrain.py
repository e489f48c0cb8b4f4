import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from traceback import format_exc
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from tsbench.data.pretraining import PretrainingBatches, PretrainingWindows
from tsbench.errors import TsbenchError
from tsbench.models.flame.model import Flame, FlameConfig
from tsbench.training.loop import train
from tsbench.training.pretrain import (
    PretrainConfig,
    describe,
    pretrain,
    validation_batches,
    validation_loss,
    window_loss,
)

TINY = FlameConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=24, state=4, legendre_order=4)
CONFIG = PretrainConfig(model=TINY, steps=4, batch_size=2, eval_every=2, precision="fp32")
VARIANTS = {
    "flow": TINY,
    "gaussian head": replace(TINY, head="gaussian"),
    "quantile head": replace(TINY, head="quantile"),
    "linear decoder": replace(TINY, decoder="linear"),
    "no Legendre memory": replace(TINY, legendre_order=0),
}


def network(config: FlameConfig = TINY, seed: int = 0) -> Flame:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Flame(config)


def windows(context: int = 96, horizon: int = 48, batch: int = 4) -> PretrainingWindows:
    return PretrainingBatches(seed=5, batch_size=batch).windows(0, context, horizon)


def interrupt_after(step: int) -> Callable[[int, float], None]:
    def on_progress(done: int, _: float) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_progress


def assert_same_file(a: Path, b: Path) -> None:
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_two_steps_leave_weights_and_report(tmp_path: Path) -> None:
    config, steps = replace(CONFIG, steps=2), []
    before = torch.get_rng_state()
    report = pretrain(config, tmp_path, lambda step, _: steps.append(step))
    assert torch.equal(torch.get_rng_state(), before)
    assert steps == [1, 2]
    assert report.steps == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.safetensors",
        "pretraining.json",
        "training.json",
    ]
    model = network(seed=9)
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert validation_loss(model.eval(), validation_batches(2)) == pytest.approx(report.best_score, rel=1e-5)

    card = json.loads(json.dumps(describe(config, report)))
    assert card["windows"] == 4
    assert card["best_step"] == 2
    assert sum(card["synthetic_corpus"].values()) == pytest.approx(1)

    assert (
        pretrain(config, tmp_path, lambda step, _: steps.append(step)) == report
    )  # finished: nothing is done
    assert steps == [1, 2]


def test_when_killed_and_resumed_then_the_weights_are_bit_identical(tmp_path: Path) -> None:
    whole = pretrain(CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG, tmp_path / "cut", interrupt_after(3))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "checkpoint.safetensors",
        "pretraining.json",
    ]
    steps: list[int] = []
    resumed = pretrain(CONFIG, tmp_path / "cut", lambda step, _: steps.append(step))
    assert steps == [3, 4]
    assert resumed.history == whole.history
    assert_same_file(tmp_path / "whole", tmp_path / "cut")


def test_two_processes_train_as_one_with_both_their_batches(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=3, processes=2)
    report = pretrain(config, tmp_path / "two")
    shares = [PretrainingBatches(config.seed, 1, rank) for rank in (0, 1)]

    def mean_loss(model: nn.Module, step: int) -> Tensor:
        noise, losses = torch.get_rng_state(), []
        for batches in shares:
            torch.set_rng_state(noise)  # both processes jitter alike
            losses.append(window_loss(model, batches(step)))
        return torch.stack(losses).mean()

    held_out = validation_batches(config.batch_size)
    alone = train(
        network(),
        lambda step: step,
        mean_loss,
        lambda model: validation_loss(model, held_out),
        config.training,
        tmp_path / "one",
    )
    assert report.best_score == pytest.approx(alone.best_score, rel=1e-4)
    expected = load_file(tmp_path / "one" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "two" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (TsbenchError("the disk is full; make room"), "the disk is full; make room"),
        (RuntimeError("odd news"), "pre-training failed: RuntimeError: odd news; use --debug for all of it"),
    ],
)
def test_when_a_process_fails_then_one_line_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, line: str
) -> None:
    def fail(step: int, _: float) -> None:
        raise failure

    def spawn_here(worker: Callable[..., None], arguments: tuple[Any, ...], nprocs: int) -> None:
        """A group of one, in this process; the others of a real one fail for want of it."""
        config, *others = arguments
        assert nprocs == config.processes == 2
        try:
            worker(0, replace(config, processes=1), *others)
        except Exception as error:
            raise ProcessRaisedException(format_exc(), 1, 4711) from error

    monkeypatch.setattr("tsbench.training.pretrain.spawn", spawn_here)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    with pytest.raises(TsbenchError) as caught:
        pretrain(replace(CONFIG, processes=2), tmp_path, fail)
    assert str(caught.value) == line
    assert not distributed.is_initialized()


def test_a_few_steps_lower_the_validation_loss(tmp_path: Path) -> None:
    report = pretrain(replace(CONFIG, steps=24, batch_size=4, eval_every=8, learning_rate=5e-3), tmp_path)
    untrained = validation_loss(network().eval(), validation_batches(4))
    assert report.best_score < 0.97 * untrained
    assert report.history[-1].score < report.history[0].score


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_head_and_ablation_trains_all_its_weights(variant: str) -> None:
    model, batch = network(VARIANTS[variant]), windows()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = window_loss(model, batch)
        torch.autograd.backward(loss)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_network_works_in_the_precision_asked_for_and_the_weights_stay_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen = set()

    class Watched(Flame):
        def __init__(self, config: FlameConfig) -> None:
            super().__init__(config)
            for layer in (self.get_submodule("encoder.0.feed.down"), self.head.hidden):
                layer.register_forward_hook(
                    lambda layer, _, output: seen.add(
                        (layer is self.head.hidden, self.training, output.dtype)
                    )
                )

    monkeypatch.setattr("tsbench.training.pretrain.Flame", Watched)
    report = pretrain(replace(CONFIG, steps=1, precision=precision), tmp_path)  # type: ignore[arg-type]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert {(training, found) for head, training, found in seen if not head} == {
        (True, dtype),
        (False, dtype),
    }
    assert {found for head, _, found in seen if head} == {torch.float32}
    assert math.isfinite(report.history[0].train_loss)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


def test_training_can_start_from_earlier_weights(tmp_path: Path) -> None:
    earlier = network(seed=3).state_dict()
    pretrain(replace(CONFIG, steps=1, learning_rate=1e-9, initial=earlier), tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(tensor, earlier[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("head", ["flow", "gaussian", "quantile"])
@torch.no_grad()
def test_validation_loss_equals_a_loop_over_rows_levels_and_steps(head: str) -> None:
    model = network(replace(TINY, head=head)).eval()  # type: ignore[arg-type]
    batches = [windows(96, 48, 2), windows(60, 30, 3)]
    batches[0].context[0, 10:30] = np.nan
    batches[1].target[2, 4] = 1e6  # clipped
    levels = [j / 10 for j in range(1, 10)]
    means = []
    for batch in batches:
        total, count = 0.0, 0
        for context, target in zip(batch.context, batch.target, strict=True):
            mean, deviation = np.nanmean(context, dtype=np.float64), np.nanstd(context, dtype=np.float64)
            forecast = model(torch.from_numpy(context)[None], len(target))
            quantiles = forecast.distribution.quantiles(levels)[0].numpy()
            for j, level in enumerate(levels):
                for step, value in enumerate(target):
                    error = min(max((value - mean) / deviation, -10.0), 10.0) - quantiles[j, step]
                    total += 2 * (level * error if error >= 0 else (level - 1) * error)
                    count += 1
        means.append(total / count)
    assert validation_loss(model, batches) == pytest.approx(np.mean(means), rel=1e-4)


def test_far_targets_are_clipped_and_all_are_jittered_a_little() -> None:
    model, batch = network(TINY), windows()

    def loss_of(target: float, seed: int = 0) -> float:
        torch.manual_seed(seed)
        return window_loss(model, replace(batch, target=np.full_like(batch.target, target))).item()

    assert loss_of(1e6) == loss_of(1e9) != loss_of(-1e6)
    jittered = np.array([loss_of(0.0, seed) for seed in range(8)])
    assert 1e-5 < np.ptp(jittered) / jittered.mean() < 0.01


def test_validation_windows_are_the_same_every_time_and_none_of_training() -> None:
    held_out, again = validation_batches(2), validation_batches(2)
    for a, b in zip(held_out, again, strict=True):
        np.testing.assert_array_equal(a.target, b.target)
    seen = {row[:32].tobytes() for batch in held_out for row in batch.target}
    assert len(seen) == 8
    for seed in (0, 1, 2**31 - 1):
        batches = PretrainingBatches(seed, 2)
        for step, batch in enumerate(held_out):
            trained = batches.windows(step, batch.context.shape[1], batch.target.shape[1])
            assert not seen & {row[:32].tobytes() for row in trained.target}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 3, "processes": 2}, "batch of 3 cannot be shared out among 2 processes; use"),
        ({"batch_size": 0}, "batch of 0 cannot be shared"),
        ({"processes": 0}, "among 0 processes; use"),
        ({"seed": 2**31}, "seed is 2147483648; use 0 to 2147483647"),
        ({"seed": -1}, "seed is -1; use"),
    ],
)
def test_when_a_setting_is_out_of_range_then_it_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_a_directory_of_another_pre_training_is_refused(tmp_path: Path) -> None:
    pretrain(replace(CONFIG, steps=1), tmp_path)
    with pytest.raises(TsbenchError, match=r"training\.json belongs to another model or training"):
        pretrain(replace(CONFIG, steps=1, model=VARIANTS["gaussian head"]), tmp_path)


def test_a_directory_begun_with_other_windows_is_refused(tmp_path: Path) -> None:
    pretrain(PretrainConfig(TINY, steps=1, batch_size=2), tmp_path)
    with pytest.raises(TsbenchError, match="another batch, corpus or start"):
        pretrain(PretrainConfig(TINY, steps=1, batch_size=4), tmp_path)
