"""Warm-up, the moving average of the weights, and training shared by several processes."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from programs import LIMIT_S
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from tsbench.errors import TsbenchError
from tsbench.training.loop import (
    ShuffledBatches,
    TrainingConfig,
    TrainingReport,
    load_trained,
    train,
)

CONFIG = TrainingConfig(
    max_steps=12,
    eval_every=4,
    patience=10,
    learning_rate=0.05,
    schedule="cosine",
    warmup_steps=5,
    average_decay=0.3,
    seed=7,
)
INPUTS = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]])
ORDER = ShuffledBatches(n_items=20, batch_size=5, seed=7)


class Interrupted(Exception):
    pass


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))


def loss(model: nn.Module, rows: NDArray[np.int64]) -> Tensor:
    return torch.nn.functional.mse_loss(model(INPUTS[rows]), TARGETS[rows])


def validate(model: nn.Module) -> float:
    return loss(model, np.arange(20, 30)).item()


def fit(
    directory: Path,
    model: nn.Module,
    config: TrainingConfig = CONFIG,
    score: Callable[[nn.Module], float] = validate,
    on_progress: Callable[[int, float], None] | None = None,
) -> TrainingReport:
    return train(model, ORDER, loss, score, config, directory, on_progress)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_the_average_is_what_the_recursion_gives_and_it_is_validated_and_kept(tmp_path: Path) -> None:
    model = network()
    path = [weights(model)]
    validated: list[dict[str, Tensor]] = []
    scores = iter([3.0, 1.0, 2.0])

    def score(validating: nn.Module) -> float:
        validated.append(weights(validating))
        return next(scores)

    report = fit(tmp_path, model, score=score, on_progress=lambda *_: path.append(weights(model)))

    average = {name: tensor.double() for name, tensor in path[0].items()}
    expected = []
    for step, raw in enumerate(path[1:]):
        decay = min(CONFIG.average_decay, (1 + step) / (10 + step))
        for name, tensor in raw.items():
            average[name] = decay * average[name] + (1 - decay) * tensor.double()
        average["1.num_batches_tracked"] = raw["1.num_batches_tracked"].double()  # a count has no mean
        if (step + 1) % CONFIG.eval_every == 0:
            expected.append(dict(average))
    for found, wanted in zip(validated, expected, strict=True):
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(validated[1]["0.weight"], path[8]["0.weight"], atol=1e-3)
    assert report.best_step == 8
    assert_identical(weights(model), validated[1])
    assert_identical(load_file(tmp_path / "model.safetensors"), validated[1])


def test_training_goes_on_from_the_raw_weights(tmp_path: Path) -> None:
    paths: dict[float, list[dict[str, Tensor]]] = {0.0: [], 0.3: []}
    for decay, path in paths.items():
        model = network()
        steps = replace(CONFIG, average_decay=decay)
        fit(tmp_path / str(decay), model, steps, on_progress=lambda *_, m=model, p=path: p.append(weights(m)))
    for plain, averaged in zip(paths[0.0], paths[0.3], strict=True):
        assert_identical(plain, averaged)


def test_when_validation_fails_then_the_model_has_its_own_weights_back(tmp_path: Path) -> None:
    model, last = network(), {}

    def remember(*_: object) -> None:
        last.update(weights(model))

    with pytest.raises(TsbenchError, match="validation score is nan"):
        fit(tmp_path, model, score=lambda _: float("nan"), on_progress=remember)
    assert_identical(weights(model), last)


@pytest.mark.parametrize("interruptions", [[2], [4], [7, 9]])
def test_when_interrupted_and_resumed_then_the_averaged_weights_are_bit_identical(
    tmp_path: Path, interruptions: list[int]
) -> None:
    undisturbed, model = network(), network()
    expected = fit(tmp_path / "a", undisturbed)
    for last in interruptions:

        def interrupt(step: int, _: float, last: int = last) -> None:
            if step == last:
                raise Interrupted

        with pytest.raises(Interrupted):
            fit(tmp_path / "b", model, on_progress=interrupt)
        model = network(seed=99 if last > CONFIG.eval_every else 0)
    report = fit(tmp_path / "b", model)
    assert report.history == expected.history
    assert_identical(weights(model), weights(undisturbed))


def test_steps_take_the_warming_learning_rate(tmp_path: Path) -> None:
    model, plain = nn.Linear(3, 1), nn.Linear(3, 1)
    plain.load_state_dict(model.state_dict())
    config = replace(CONFIG, max_steps=3, average_decay=0.0, schedule="constant")
    fit(tmp_path, model, config)
    optimiser = torch.optim.AdamW(plain.parameters(), weight_decay=config.weight_decay)
    for step in range(3):
        optimiser.param_groups[0]["lr"] = config.learning_rate * (step + 1) / 6
        optimiser.zero_grad()
        torch.autograd.backward(loss(plain, ORDER(step)))
        nn.utils.clip_grad_norm_(plain.parameters(), config.gradient_clip)
        optimiser.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("average_decay", v) for v in (-0.1, 1.0, 1.5, float("nan"))] + [("warmup_steps", -1)],
)
def test_when_an_averaging_or_warm_up_setting_is_out_of_range_then_it_is_refused(
    setting: str, value: float
) -> None:
    with pytest.raises(TsbenchError, match=f"{setting} is {value}; use"):
        replace(CONFIG, **{setting: value})  # type: ignore[arg-type]


def test_averaging_and_warm_up_are_part_of_the_identity_only_when_used(tmp_path: Path) -> None:
    plain = replace(CONFIG, warmup_steps=0, average_decay=0.0)
    fit(tmp_path, network(), plain)
    settings = asdict(plain)
    del settings["warmup_steps"], settings["average_decay"]  # as before these settings existed
    shapes = {name: list(tensor.shape) for name, tensor in network().state_dict().items()}
    content = json.dumps({"config": settings, "shapes": shapes}, sort_keys=True)
    stored = json.loads((tmp_path / "training.json").read_text())
    assert stored["fingerprint"] == hashlib.sha256(content.encode()).hexdigest()
    for changed in (replace(plain, warmup_steps=1), replace(plain, average_decay=0.5)):
        with pytest.raises(TsbenchError, match="belongs to another"):
            fit(tmp_path, network(), changed)


SHARED = replace(CONFIG, max_steps=8, gradient_clip=0.5)
SHARED_ORDER = ShuffledBatches(n_items=20, batch_size=10, seed=3)


def plain_network() -> nn.Sequential:
    """Without dropout and batch statistics, half batches give half gradients."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def train_one_half(rank: int, folder: Path) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("only the first process writes")

    store, limit = f"file://{folder}/store", timedelta(seconds=LIMIT_S)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=limit)
    with pytest.MonkeyPatch.context() as patch:
        if rank:
            patch.setattr("tsbench.training.loop.save_checkpoint", forbidden)
            patch.setattr("tsbench.training.loop.save_finished", forbidden)
        model = plain_network()
        try:
            train(model, lambda step: SHARED_ORDER(step)[rank::2], loss, validate, SHARED, folder / "run")
        finally:
            distributed.destroy_process_group()
    save_file(model.state_dict(), folder / f"rank{rank}.safetensors")


def test_two_processes_with_half_a_batch_each_end_where_one_with_the_whole_batch_does(
    tmp_path: Path,
) -> None:
    alone = plain_network()
    expected = train(alone, SHARED_ORDER, loss, validate, SHARED, tmp_path / "alone")
    other = multiprocessing.get_context("spawn").Process(target=train_one_half, args=(1, tmp_path))
    other.start()
    train_one_half(0, tmp_path)
    other.join(LIMIT_S)
    assert other.exitcode == 0
    together = plain_network()
    report = load_trained(together, tmp_path / "run")
    assert report.best_score == pytest.approx(expected.best_score, rel=1e-4)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    for rank in (0, 1):
        assert_identical(load_file(tmp_path / f"rank{rank}.safetensors"), weights(together))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "model.safetensors",
        "training.json",
    ]
