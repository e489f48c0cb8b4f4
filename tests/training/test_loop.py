import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from tsbench.errors import TsbenchError
from tsbench.training.loop import (
    ShuffledBatches,
    TrainingConfig,
    TrainingReport,
    load_trained,
    train,
)

CONFIG = TrainingConfig(max_steps=20, eval_every=4, patience=3, learning_rate=0.05, seed=7)
INPUTS = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]])
ORDER = ShuffledBatches(n_items=20, batch_size=6, seed=7)


class Interrupted(Exception):
    pass


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))


def loss(model: nn.Module, rows: NDArray[np.int64]) -> Tensor:
    return torch.nn.functional.mse_loss(model(INPUTS[rows]), TARGETS[rows])


def validate(model: nn.Module) -> float:
    return loss(model, np.arange(20, 30)).item()


def fit(
    directory: Path,
    model: nn.Module,
    config: TrainingConfig = CONFIG,
    scores: list[float] | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> TrainingReport:
    listed = iter(scores or [])
    score = validate if scores is None else (lambda _: next(listed))
    return train(model, ORDER, loss, score, config, directory, on_progress)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def interrupt_after(step: int) -> Callable[[int, float], None]:
    def on_progress(done: int, _: float) -> None:
        if done == step:
            raise Interrupted

    return on_progress


def test_training_lowers_the_validation_score_and_reports_it(tmp_path: Path) -> None:
    model = network()
    before = validate(model.eval())
    report = fit(tmp_path, model)
    assert report.best_score < 0.5 * before
    assert [evaluation.step for evaluation in report.history] == [4, 8, 12, 16, 20]
    assert report.best_score == min(evaluation.score for evaluation in report.history)
    assert report.steps == 20
    assert not model.training


def test_validation_runs_in_evaluation_mode_without_gradients(tmp_path: Path) -> None:
    states: list[tuple[bool, bool]] = []

    def record(model: nn.Module) -> float:
        states.append((model.training, torch.is_grad_enabled()))
        return 1.0

    train(network(), ORDER, loss, record, CONFIG, tmp_path)
    assert set(states) == {(False, False)}


def test_steps_equal_plain_clipped_adamw(tmp_path: Path) -> None:
    model, plain = nn.Linear(3, 1), nn.Linear(3, 1)
    plain.load_state_dict(model.state_dict())
    config = replace(CONFIG, max_steps=3, gradient_clip=0.1, weight_decay=0.2)
    fit(tmp_path, model, config, scores=[1.0])
    optimiser = torch.optim.AdamW(plain.parameters(), lr=config.learning_rate, weight_decay=0.2)
    for step in range(3):
        optimiser.zero_grad()
        torch.autograd.backward(loss(plain, ORDER(step)))
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimiser.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


@pytest.mark.parametrize("interruptions", [[1], [4], [7], [20], [5, 6, 13]])
def test_when_interrupted_and_resumed_then_the_weights_are_bit_identical(
    tmp_path: Path, interruptions: list[int]
) -> None:
    undisturbed, model = network(), network()
    expected = fit(tmp_path / "a", undisturbed)
    for step in interruptions:
        with pytest.raises(Interrupted):
            fit(tmp_path / "b", model, on_progress=interrupt_after(step))
        resumable = (tmp_path / "b" / "checkpoint.safetensors").exists()
        model = network(seed=99 if resumable else 0)  # a new process: the checkpoint replaces its weights
        torch.rand(step)  # and another state of the global generator
    report = fit(tmp_path / "b", model)
    assert_identical(weights(model), weights(undisturbed))
    assert replace(report, seconds=0) == replace(expected, seconds=0)
    assert report.seconds > 0


def test_when_killed_between_last_evaluation_and_report_then_resume_only_finishes(tmp_path: Path) -> None:
    model = network()
    expected = fit(tmp_path / "a", model)

    def killed(*_: object) -> TrainingReport:
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("tsbench.training.loop.save_finished", killed)
        fit(tmp_path / "b", network())
    steps: list[int] = []
    resumed = network(1)
    report = fit(tmp_path / "b", resumed, on_progress=lambda step, _: steps.append(step))
    assert steps == []
    assert report.history == expected.history
    assert_identical(weights(resumed), weights(model))


def test_dropout_depends_on_the_seed_and_not_on_the_global_generator(tmp_path: Path) -> None:
    runs = []
    for index, (seed, noise) in enumerate([(7, 0), (7, 5), (8, 0)]):
        model = network()
        torch.rand(noise)
        before = torch.get_rng_state()
        fit(tmp_path / str(index), model, replace(CONFIG, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        runs.append(weights(model))
    assert_identical(runs[0], runs[1])
    assert not torch.equal(runs[0]["0.weight"], runs[2]["0.weight"])


def test_when_the_score_stops_improving_then_training_stops_and_the_best_weights_stay(
    tmp_path: Path,
) -> None:
    model, snapshots = network(), {}

    def snapshot(step: int, _: float) -> None:
        snapshots[step] = weights(model)

    report = fit(tmp_path, model, scores=[5.0, 3.0, 3.0, 4.0, 3.5], on_progress=snapshot)
    assert (report.best_step, report.best_score, report.steps) == (8, 3.0, 20)
    assert_identical(weights(model), snapshots[8])
    assert_identical(load_file(tmp_path / "model.safetensors"), snapshots[8])

    impatient = fit(tmp_path / "b", network(), replace(CONFIG, patience=2), scores=[5.0, 3.0, 3.0, 4.0])
    assert (impatient.best_step, impatient.steps) == (8, 16)


def test_last_step_is_validated_even_off_the_interval(tmp_path: Path) -> None:
    report = fit(tmp_path, network(), replace(CONFIG, max_steps=6))
    assert [evaluation.step for evaluation in report.history] == [4, 6]


def test_train_loss_is_the_mean_of_the_steps_since_the_last_validation(tmp_path: Path) -> None:
    losses: list[float] = []
    report = fit(tmp_path, network(), on_progress=lambda _, value: losses.append(value))
    assert report.history[1].train_loss == pytest.approx(np.mean(losses[4:8]))


def test_a_finished_directory_is_loaded_and_not_trained_again(tmp_path: Path) -> None:
    model = network()
    report = fit(tmp_path, model)
    again, steps = network(1), []
    assert fit(tmp_path, again, on_progress=lambda step, _: steps.append(step)) == report
    assert steps == []
    assert_identical(weights(again), weights(model))
    loaded = network(2)
    assert load_trained(loaded, tmp_path) == report
    assert_identical(weights(loaded), weights(model))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "training.json"]


def test_training_json_is_readable_without_this_library(tmp_path: Path) -> None:
    report = fit(tmp_path, network())
    stored = json.loads((tmp_path / "training.json").read_text())
    assert stored["report"]["best_score"] == report.best_score
    assert stored["config"]["learning_rate"] == CONFIG.learning_rate
    assert len(stored["report"]["history"]) == len(report.history)


def test_frozen_parameters_are_neither_changed_nor_stored(tmp_path: Path) -> None:
    model = network()
    first = model.get_submodule("0").requires_grad_(False)
    frozen = first.get_parameter("weight").clone()
    fit(tmp_path, model)
    assert torch.equal(first.get_parameter("weight"), frozen)
    assert load_file(tmp_path / "model.safetensors").keys() == {"3.weight", "3.bias"}


def test_tied_parameters_and_buffers_survive_a_resume(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.norm = nn.BatchNorm1d(3)
            self.out = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.out(self.norm(self.b(self.a(x))))
            return result

    torch.manual_seed(0)
    initial = Tied().state_dict()
    models = [Tied(), Tied()]
    for model in models:
        model.load_state_dict(initial)
    fit(tmp_path / "a", models[0])
    with pytest.raises(Interrupted):
        fit(tmp_path / "b", models[1], on_progress=interrupt_after(10))
    fit(tmp_path / "b", models[1])
    assert_identical(weights(models[0]), weights(models[1]))
    assert models[1].norm.num_batches_tracked is not None
    assert models[1].norm.num_batches_tracked > 0


@pytest.mark.parametrize("change", [{"learning_rate": 0.1}, {"max_steps": 21}, {"seed": 8}])
def test_when_the_configuration_changed_then_neither_checkpoint_nor_result_is_reused(
    tmp_path: Path, change: dict[str, float]
) -> None:
    changed = replace(CONFIG, **change)  # type: ignore[arg-type]
    with pytest.raises(Interrupted):
        fit(tmp_path, network(), on_progress=interrupt_after(10))
    with pytest.raises(TsbenchError, match=r"checkpoint\.safetensors belongs to another.* delete"):
        fit(tmp_path, network(), changed)
    fit(tmp_path, network())
    with pytest.raises(TsbenchError, match=r"training\.json belongs to another.* delete"):
        fit(tmp_path, network(), changed)


@pytest.mark.parametrize("content", [b"", b"not tensors", None])
def test_when_the_checkpoint_is_damaged_then_training_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, network(), on_progress=interrupt_after(10))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(TsbenchError, match=r"checkpoint\.safetensors is damaged or missing; delete"):
        fit(tmp_path, network())


@pytest.mark.parametrize("name", ["model.safetensors", "training.json"])
def test_when_a_result_file_is_damaged_then_loading_is_refused(tmp_path: Path, name: str) -> None:
    fit(tmp_path, network())
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TsbenchError, match=f"{name} is damaged"):
        load_trained(network(), tmp_path)


def test_when_weights_are_missing_then_loading_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match="no finished training; train first"):
        load_trained(network(), tmp_path)
    fit(tmp_path, network())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TsbenchError, match="damaged or missing"):
        load_trained(network(), tmp_path)


def test_when_the_model_has_another_shape_then_loading_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, network())
    with pytest.raises(TsbenchError, match="fits another model"):
        load_trained(nn.Linear(3, 1), tmp_path)


def test_when_loss_gradient_or_score_is_not_finite_then_the_step_is_named(tmp_path: Path) -> None:
    def broken_loss(model: nn.Module, rows: NDArray[np.int64]) -> Tensor:
        return loss(model, rows) * float("nan")

    def broken_gradient(model: nn.Module, rows: NDArray[np.int64]) -> Tensor:
        forecast: Tensor = model(INPUTS[rows])
        return (forecast * 0).abs().sqrt().sum()

    with pytest.raises(TsbenchError, match=r"loss is nan at step 0; use a learning rate below 0\.05"):
        train(network(), ORDER, broken_loss, validate, CONFIG, tmp_path)
    with pytest.raises(TsbenchError, match="gradient norm is nan at step 0"):
        train(network(), ORDER, broken_gradient, validate, CONFIG, tmp_path)
    with pytest.raises(TsbenchError, match="validation score is inf at step 4"):
        train(network(), ORDER, loss, lambda _: float("inf"), CONFIG, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_training_keeps_float32_weights(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    def recorded(model: nn.Module, rows: NDArray[np.int64]) -> Tensor:
        forecast = model(INPUTS[rows])
        seen.append(forecast.dtype)
        return torch.nn.functional.mse_loss(forecast.float(), TARGETS[rows])

    model = network()
    train(model, ORDER, recorded, validate, replace(CONFIG, precision="bf16"), tmp_path)
    assert set(seen) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrong", [{"max_steps": 0}, {"patience": -1}, {"learning_rate": float("nan")}, {"precision": "fp8"}]
)
def test_when_a_setting_is_out_of_range_then_it_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TsbenchError, match=f"{next(iter(wrong))}.*; use"):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(n_items=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 100))
def test_every_epoch_visits_every_item_once(n_items: int, batch_size: int, seed: int) -> None:
    batches = ShuffledBatches(n_items, batch_size, seed)
    for epoch in range(3):
        first = epoch * batches.steps_per_epoch
        visited = [batches(first + step) for step in range(batches.steps_per_epoch)]
        assert sorted(np.concatenate(visited)) == list(range(n_items))
        assert all(len(batch) == batch_size for batch in visited[:-1])


def test_batches_depend_on_step_and_seed_alone_and_change_from_epoch_to_epoch() -> None:
    batches = ShuffledBatches(50, 50, seed=1)
    first = batches(0)
    later = batches(5)
    assert np.array_equal(ShuffledBatches(50, 50, seed=1)(5), later)
    assert np.array_equal(batches(0), first)
    assert not np.array_equal(first, batches(1))
    assert not np.array_equal(first, ShuffledBatches(50, 50, seed=2)(0))


def test_when_there_is_nothing_to_train_on_then_it_is_refused() -> None:
    with pytest.raises(TsbenchError, match="no training item"):
        ShuffledBatches(0, 8, seed=0)
    with pytest.raises(TsbenchError, match="batch size is 0"):
        ShuffledBatches(8, 0, seed=0)


def test_when_interrupted_under_the_cosine_schedule_then_the_weights_are_bit_identical(
    tmp_path: Path,
) -> None:
    config = replace(CONFIG, schedule="cosine", patience=100)
    whole, cut = network(), network()
    fit(tmp_path / "whole", whole, config)

    def interrupt(step: int, loss: float) -> None:
        if step == 14:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", cut, config, on_progress=interrupt)
    resumed = network(seed=3)
    fit(tmp_path / "cut", resumed, config)
    assert_identical(weights(whole), weights(resumed))
