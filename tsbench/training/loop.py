"""The training loop of every trained method: early stopping, and a resume that changes no weight."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from tsbench.choices import Precision, Schedule
from tsbench.errors import TsbenchError
from tsbench.training.checkpoint import (
    Evaluation,
    Progress,
    TrainingReport,
    best_evaluation,
    is_finished,
    load_finished,
    resume,
    save_checkpoint,
    save_finished,
    trained_tensors,
)

__all__ = [
    "Evaluation",
    "Precision",
    "ShuffledBatches",
    "Trainer",
    "TrainingConfig",
    "TrainingReport",
    "load_trained",
    "train",
]

Batch = TypeVar("Batch")

_LATER_SETTINGS = ("warmup_steps", "average_decay")  # unused, they leave the fingerprints of older runs valid


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the optimiser is AdamW.

    Args:
        max_steps: Optimiser steps at most.
        eval_every: Steps between two validations; the last step is always validated.
        patience: Validations in a row without improvement after which training stops.
        learning_rate: AdamW step size.
        schedule: "constant"; "cosine" for a decay from `learning_rate` to zero over `max_steps`; or
            "late-halving" for half the rate after every validation but the first.
        warmup_steps: First steps over which the learning rate rises linearly.
        average_decay: Decay of the exponential moving average of the weights that is validated and kept
            instead of the weights themselves, such as 0.999; 0 keeps none. It starts shorter: after t steps
            the decay is at most (1 + t) / (10 + t).
        weight_decay: Decoupled weight decay on every trained parameter.
        gradient_clip: Largest allowed global gradient norm.
        seed: Of the dropout; the order of the data is the caller's.
        precision: "bf16" runs training and validation under bfloat16 autocast; weights and optimiser stay
            float32.

    Raises:
        TsbenchError: A value is out of range.
    """

    max_steps: int
    eval_every: int
    patience: int
    learning_rate: float = 3e-4
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    average_decay: float = 0.0
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    seed: int = 42
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in ("max_steps", "eval_every", "patience", "learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise TsbenchError(f"training: {name} is {getattr(self, name)}; use a positive number")
        for name in ("weight_decay", "seed", "warmup_steps", "average_decay"):
            if not getattr(self, name) >= 0:
                raise TsbenchError(f"training: {name} is {getattr(self, name)}; use zero or more")
        if self.average_decay >= 1:
            raise TsbenchError(f"training: average_decay is {self.average_decay}; use a number below 1")
        if self.schedule not in get_args(Schedule):
            known = ", ".join(get_args(Schedule))
            raise TsbenchError(f"training: unknown schedule {self.schedule!r}; use one of {known}")
        if self.precision not in ("fp32", "bf16"):
            raise TsbenchError(f"training: unknown precision {self.precision!r}; use fp32 or bf16")


@dataclass(frozen=True)
class ShuffledBatches:
    """Item indices of every training step: a fresh permutation per epoch, nothing dropped.

    Args:
        n_items: Number of training items.
        batch_size: Items per step; an epoch's last batch may be smaller.
        seed: Of the permutations, together with the epoch's number.

    Raises:
        TsbenchError: There is no item, or the batch size is not positive.
    """

    n_items: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.n_items < 1:
            raise TsbenchError("training: no training item; use a shorter lookback or horizon, or more data")
        if self.batch_size < 1:
            raise TsbenchError(f"training: batch size is {self.batch_size}; use a positive number")

    @property
    def steps_per_epoch(self) -> int:
        """Batches that cover all items once."""
        return -(-self.n_items // self.batch_size)

    def __call__(self, step: int) -> NDArray[np.int64]:
        """Return the item indices, at most [batch_size], of a step counted from 0."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        return _permutation(self.n_items, self.seed, epoch)[first : first + self.batch_size].copy()


@lru_cache(maxsize=2)
def _permutation(n_items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n_items)


def train(
    model: nn.Module,
    batches: Callable[[int], Batch],
    loss_fn: Callable[[nn.Module, Batch], Tensor],
    validate: Callable[[nn.Module], float],
    config: TrainingConfig,
    checkpoint_dir: Path,
    on_progress: Callable[[int, float], None] | None = None,
) -> TrainingReport:
    """Train a model with early stopping; its best weights end up in it and on disk.

    State is saved at every validation. A killed run continues from there and ends with the very weights of
    an undisturbed one (same machine, same thread count), because batches and dropout depend on the step
    alone. A finished directory is not trained again.

    Args:
        model: Network on its device; parameters that need no gradient are neither trained nor saved.
        batches: Batch of a step counted from 0; a pure function of it, see `ShuffledBatches`.
        loss_fn: Scalar training loss of the model on a batch.
        validate: Score of the model, lower is better; called in evaluation mode without gradients.
        config: Optimiser and stopping rule.
        checkpoint_dir: Receives `model.safetensors` and `training.json`; before that,
            `checkpoint.safetensors`.
        on_progress: Called after every step with the number of steps done and the step's loss.

    Returns:
        The report, also stored in `training.json`. The model is left in evaluation mode.

    Raises:
        TsbenchError: Loss, gradient or score is not finite; or `checkpoint_dir` holds damaged files or those
            of another model or configuration.
    """
    fingerprint = _fingerprint(model, config)
    if is_finished(checkpoint_dir):
        model.eval()
        return load_finished(checkpoint_dir, model, fingerprint)

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    progress, kept = resume(checkpoint_dir, model, optimiser, fingerprint)
    _wait_for_all()  # the first process may be about to drop the checkpoint
    if config.average_decay and not kept.average:
        kept = replace(kept, average=_copies(model))
    while not _should_stop(progress.history, config):
        started = time.perf_counter()
        done = progress.history[-1].step if progress.history else 0
        losses = []
        model.train()
        for step in range(done, min(done + config.eval_every, config.max_steps)):
            losses.append(_take_step(model, parameters, optimiser, loss_fn, batches(step), step, config))
            if config.average_decay:
                _update_average(kept.average, model, step, config.average_decay)
            if on_progress is not None:
                on_progress(step + 1, losses[-1])
        with _weights_in_use(model, kept.average):
            score = _score(model, validate, done + len(losses), config)
            candidate = _copies(model)
        latest = Evaluation(done + len(losses), score, float(np.mean(losses)))
        history = (*progress.history, latest)
        if best_evaluation(history) is latest:
            kept = replace(kept, best=candidate)
        progress = Progress(fingerprint, history, progress.seconds + time.perf_counter() - started)
        if _is_first_process():
            save_checkpoint(checkpoint_dir, model, optimiser, kept, progress)

    model.eval()
    if _is_first_process():
        save_finished(checkpoint_dir, kept.best, progress, asdict(config))
    _wait_for_all()
    return load_finished(checkpoint_dir, model, fingerprint)


class Trainer(Protocol):
    """Whatever is called as `train` is: that function, or an estimate of what it would take."""

    def __call__(
        self,
        model: nn.Module,
        batches: Callable[[int], Batch],
        loss_fn: Callable[[nn.Module, Batch], Tensor],
        validate: Callable[[nn.Module], float],
        config: TrainingConfig,
        checkpoint_dir: Path,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> TrainingReport:
        """Train a model; see `train`."""


def load_trained(model: nn.Module, checkpoint_dir: Path) -> TrainingReport:
    """Load the weights that `train` left in a directory and set evaluation mode.

    Args:
        model: Network of the shape that was trained.
        checkpoint_dir: Directory given to `train`.

    Returns:
        The report of that training.

    Raises:
        TsbenchError: Training has not finished there, files are damaged, or the model has another shape.
    """
    model.eval()
    return load_finished(checkpoint_dir, model, fingerprint=None)


def _take_step(
    model: nn.Module,
    parameters: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    loss_fn: Callable[[nn.Module, Batch], Tensor],
    batch: Batch,
    step: int,
    config: TrainingConfig,
) -> float:
    device = parameters[0].device
    optimiser.zero_grad()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([config.seed, step]).generate_state(1, np.uint64)[0]))
        with _autocast(device, config):
            loss = loss_fn(model, batch)
    value = loss.item()
    _require_finite("loss", value, step, config)
    torch.autograd.backward(loss)
    _average_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip).item()
    _require_finite("gradient norm", norm, step, config)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, config)
    optimiser.step()
    return value


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of a step counted from 0; a pure function of it, so that resuming is exact."""
    rate = config.learning_rate * min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "constant":
        return rate
    if config.schedule == "late-halving":
        return rate * 0.5 ** max(0, step // config.eval_every - 1)
    return rate * 0.5 * (1 + math.cos(math.pi * step / config.max_steps))


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trained_tensors(model).items()}


def _update_average(average: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    current = trained_tensors(model)
    share = 1 - min(decay, (1 + step) / (10 + step))
    for name, tensor in average.items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], share)
        else:
            tensor.copy_(current[name])


@contextmanager
def _weights_in_use(model: nn.Module, other: dict[str, Tensor]) -> Iterator[None]:
    """Let the model work with other weights for a while; without any, with its own."""
    current = trained_tensors(model)
    own = _copies(model) if other else {}
    for name, tensor in other.items():
        current[name].copy_(tensor)
    try:
        yield
    finally:
        for name, tensor in own.items():
            current[name].copy_(tensor)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes of the group, if there is one."""
    if not distributed.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    means = torch.split(together, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def _is_first_process() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0


def _wait_for_all() -> None:
    if distributed.is_initialized():
        distributed.barrier()


def _score(
    model: nn.Module, validate: Callable[[nn.Module], float], step: int, config: TrainingConfig
) -> float:
    model.eval()
    with torch.no_grad(), _autocast(next(model.parameters()).device, config):
        score = validate(model)
    _require_finite("validation score", score, step, config)
    return score


def _autocast(device: torch.device, config: TrainingConfig) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _require_finite(what: str, value: float, step: int, config: TrainingConfig) -> None:
    if not math.isfinite(value):
        raise TsbenchError(
            f"training diverged: {what} is {value} at step {step}; use a learning rate below "
            f"{config.learning_rate:g}, or look for extreme values in the data"
        )


def _should_stop(history: tuple[Evaluation, ...], config: TrainingConfig) -> bool:
    if not history:
        return False
    since_best = len(history) - 1 - history.index(best_evaluation(history))
    return history[-1].step >= config.max_steps or since_best >= config.patience


def _fingerprint(model: nn.Module, config: TrainingConfig) -> str:
    shapes = {name: list(tensor.shape) for name, tensor in trained_tensors(model).items()}
    settings = asdict(config)
    for name in _LATER_SETTINGS:
        if not settings[name]:
            del settings[name]
    content = json.dumps({"config": settings, "shapes": shapes}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
