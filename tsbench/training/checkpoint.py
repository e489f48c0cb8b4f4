"""Files of a training run: a checkpoint while it runs, weights and report when it is done."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_write

__all__ = [
    "Evaluation",
    "KeptWeights",
    "Progress",
    "TrainingReport",
    "best_evaluation",
    "is_finished",
    "load_finished",
    "resume",
    "save_checkpoint",
    "save_finished",
    "trained_tensors",
]

_CHECKPOINT = "checkpoint.safetensors"
_WEIGHTS = "model.safetensors"
_REPORT = "training.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Evaluation:
    """One validation.

    Args:
        step: Optimiser steps done.
        score: Validation score, lower is better.
        train_loss: Mean training loss of the steps since the previous validation.
    """

    step: int
    score: float
    train_loss: float


@dataclass(frozen=True)
class TrainingReport:
    """What training did.

    Args:
        history: Every validation, oldest first.
        best_step: Step whose weights were kept: the first with the lowest score.
        best_score: Its validation score.
        steps: Optimiser steps done.
        seconds: Wall time, summed over interruptions; work lost to an interruption is not counted.
    """

    history: tuple[Evaluation, ...]
    best_step: int
    best_score: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a checkpoint holds beside tensors.

    Args:
        fingerprint: Identity of model shape and configuration; another one is refused.
        history: Every validation so far, oldest first.
        seconds: Wall time so far.
    """

    fingerprint: str
    history: tuple[Evaluation, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class KeptWeights:
    """Copies of the trained tensors beside the model's own.

    Args:
        best: Those with the lowest validation score so far.
        average: Their moving average; empty when none is kept.
    """

    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Finished:
    """Content of training.json."""

    fingerprint: str
    config: dict[str, Any]
    weights_sha256: str
    report: TrainingReport


def best_evaluation(history: tuple[Evaluation, ...]) -> Evaluation:
    """Return the first evaluation with the lowest score."""
    return min(history, key=lambda evaluation: evaluation.score)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return trainable parameters (shared ones once) and persistent buffers, in the model's own storage."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    every_parameter = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: t for name, t in model.state_dict().items() if name not in every_parameter}
    return trained | buffers


def save_checkpoint(
    directory: Path, model: nn.Module, optimiser: Optimizer, kept: KeptWeights, progress: Progress
) -> None:
    """Replace the directory's checkpoint atomically: one safetensors file, progress as JSON in its header."""
    tensors = {f"weights/{name}": tensor for name, tensor in trained_tensors(model).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in kept.best.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in kept.average.items()}
    for name, parameter in model.named_parameters():
        for moment, tensor in optimiser.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = tensor
    header = {"progress": TypeAdapter(Progress).dump_json(progress).decode()}
    with atomic_write(directory / _CHECKPOINT) as file:
        file.write(save(_plain(tensors), header))


def resume(
    directory: Path, model: nn.Module, optimiser: Optimizer, fingerprint: str
) -> tuple[Progress, KeptWeights]:
    """Load the checkpoint, if there is one, into a model and its AdamW optimiser.

    Returns:
        The progress and the weights kept so far, both empty without a checkpoint.

    Raises:
        TsbenchError: The checkpoint is damaged or has another fingerprint.
    """
    path = directory / _CHECKPOINT
    if not path.exists():
        return Progress(fingerprint), KeptWeights()
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        progress = TypeAdapter(Progress).validate_json(header.get("progress", ""))
        tensors = load_file(path)
    except (SafetensorError, ValidationError, OSError) as error:
        raise _damaged(path) from error
    _require_same_fingerprint(progress.fingerprint, fingerprint, path)
    _assign(model, _group(tensors, "weights"), path)
    moments = {moment: _group(tensors, moment) for moment in _MOMENTS}
    for name, parameter in model.named_parameters():
        if name in moments["step"]:
            optimiser.state[parameter] = {
                moment: moments[moment][name].to(parameter.device) for moment in _MOMENTS
            }
    own = trained_tensors(model)
    average = {name: t.to(own[name].device) for name, t in _group(tensors, "average").items()}
    return progress, KeptWeights(_group(tensors, "best"), average)


def save_finished(
    directory: Path, best_weights: dict[str, Tensor], progress: Progress, config: dict[str, Any]
) -> None:
    """Store the best weights, then the report that marks them complete; drop the checkpoint."""
    best = best_evaluation(progress.history)
    report = TrainingReport(
        progress.history, best.step, best.score, progress.history[-1].step, progress.seconds
    )
    weights = save(_plain(best_weights))
    with atomic_write(directory / _WEIGHTS) as file:
        file.write(weights)
    finished = _Finished(progress.fingerprint, config, hashlib.sha256(weights).hexdigest(), report)
    with atomic_write(directory / _REPORT) as file:
        file.write(TypeAdapter(_Finished).dump_json(finished, indent=2))
    (directory / _CHECKPOINT).unlink(missing_ok=True)


def is_finished(directory: Path) -> bool:
    """Tell whether training has finished in the directory."""
    return (directory / _REPORT).exists()


def load_finished(directory: Path, model: nn.Module, fingerprint: str | None) -> TrainingReport:
    """Load the final weights into a model.

    Args:
        directory: Where training finished.
        model: Receives the weights.
        fingerprint: Identity the stored run must have; None accepts any.

    Raises:
        TsbenchError: Training has not finished, files are damaged, or the model or fingerprint differs.
    """
    if not is_finished(directory):
        raise TsbenchError(f"{directory} holds no finished training; train first")
    report_path, weights_path = directory / _REPORT, directory / _WEIGHTS
    try:
        finished = TypeAdapter(_Finished).validate_json(report_path.read_bytes())
    except (ValidationError, OSError) as error:
        raise _damaged(report_path) from error
    if fingerprint is not None:
        _require_same_fingerprint(finished.fingerprint, fingerprint, report_path)
    if not weights_path.exists() or _sha256(weights_path) != finished.weights_sha256:
        raise _damaged(weights_path)
    _assign(model, load_file(weights_path), weights_path)
    return finished.report


def _assign(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = trained_tensors(model)
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in tensors.items()}:
        raise TsbenchError(
            f"{path} fits another model; build that model, or delete {path.parent} to train anew"
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def _group(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    prefix = f"{group}/"
    return {name.removeprefix(prefix): t.clone() for name, t in tensors.items() if name.startswith(prefix)}


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors in host memory, as safetensors requires."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_same_fingerprint(stored: str, expected: str, path: Path) -> None:
    if stored != expected:
        raise TsbenchError(
            f"{path} belongs to another model or training configuration; use those settings, or delete "
            f"{path.parent} to train anew"
        )


def _damaged(path: Path) -> TsbenchError:
    return TsbenchError(f"{path} is damaged or missing; delete {path.parent} to train anew")
