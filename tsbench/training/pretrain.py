"""Pre-training FLAME on synthetic and real series, on one process or several."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessException, spawn

from tsbench.choices import Precision
from tsbench.data.pretraining import PretrainingBatches, PretrainingWindows
from tsbench.data.synthetic.corpus import FAMILIES
from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_write
from tsbench.metrics.quantile import pinball_loss
from tsbench.models.flame.heads import HEAD_LEVELS, HorizonDistribution
from tsbench.models.flame.model import Flame, FlameConfig, Forecast
from tsbench.training.loop import TrainingConfig, TrainingReport, load_trained, train

VALIDATION_SEED = 2**31
"""Seed of the synthetic windows that no training run sees."""

_VALIDATION_SHAPES = ((512, 96), (512, 96), (512, 336), (256, 96))
_TARGET_CLIP = 10.0
_TARGET_JITTER = 0.01  # keeps the density of constant stretches finite; in standard deviations of the context
_NEVER = 10**9
_FAILURE = "failure"
_CORPUS = "pretraining.json"


@dataclass(frozen=True, eq=False)
class PretrainConfig:
    """How to pre-train.

    Attributes:
        model: Shape of the network.
        steps: Optimiser steps; the cosine schedule ends there.
        batch_size: Windows per step, a multiple of `processes`.
        learning_rate: Highest learning rate of AdamW.
        seed: Of weights and windows, below 2**31.
        precision: "bf16" runs the network under bfloat16 autocast, but for Re-Norm and head.
        processes: Processes that share the work, each with one thread.
        real: Real series, each [T] float32, mixed in.
        real_share: Share of windows cut from them.
        eval_every: Steps between validations and checkpoints.
        initial: Weights to start from, as a state dict; None starts from random ones.

    Raises:
        TsbenchError: The batch cannot be shared out, or the seed is out of range.
    """

    model: FlameConfig
    steps: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    precision: Precision = "bf16"
    processes: int = 1
    real: Sequence[NDArray[np.float32]] = field(default=())
    real_share: float = 0.0
    eval_every: int = 500
    initial: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.processes < 1 or self.batch_size < 1 or self.batch_size % self.processes:
            raise TsbenchError(
                f"pre-training: a batch of {self.batch_size} cannot be shared out among {self.processes} "
                "processes; use a multiple"
            )
        if not 0 <= self.seed < VALIDATION_SEED:
            raise TsbenchError(f"pre-training: seed is {self.seed}; use 0 to {VALIDATION_SEED - 1}")

    @property
    def training(self) -> TrainingConfig:
        """The settings of the training loop."""
        return TrainingConfig(
            max_steps=self.steps,
            eval_every=self.eval_every,
            patience=_NEVER,
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup_steps=min(500, self.steps // 10),
            average_decay=0.999,
            weight_decay=0.01,
            seed=self.seed,
            precision=self.precision,
        )


def pretrain(
    config: PretrainConfig, directory: Path, on_progress: Callable[[int, float], None] | None = None
) -> TrainingReport:
    """Pre-train a network; its weights end up in ``directory``, which also serves to resume.

    Args:
        config: What to train and how.
        directory: Receives `model.safetensors` and `training.json`; before that a checkpoint.
        on_progress: Called after every step of the first process with steps done and loss. It must be
            picklable when there are several processes.

    Returns:
        The report; its scores are the pinball losses on synthetic validation windows.

    Raises:
        TsbenchError: Training diverged, or the directory holds something else.
    """
    _require_same_corpus(config, directory)
    if config.processes == 1:
        return _run(config, directory, on_progress, rank=0)
    with tempfile.TemporaryDirectory() as meeting:
        try:
            spawn(  # type: ignore[no-untyped-call]
                _run_in_group, (config, directory, on_progress, meeting), nprocs=config.processes
            )
        except ProcessException as error:
            raise _cause(Path(meeting), error) from error
    return load_trained(Flame(config.model), directory)


def _require_same_corpus(config: PretrainConfig, directory: Path) -> None:
    """Note what the windows are drawn from; a directory begun with other windows is refused.

    The training loop itself compares the network's shapes and the optimiser's settings.
    """
    digest = hashlib.sha256()
    for series in config.real:
        digest.update(series.tobytes())
    drawn = {
        "batch_size": config.batch_size,
        "processes": config.processes,
        "real": digest.hexdigest(),
        "real_share": config.real_share,
        "pinball_weight": config.model.pinball_weight,
        "from_earlier_weights": config.initial is not None,
    }
    path = directory / _CORPUS
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps(drawn, indent=1).encode())
    elif json.loads(path.read_text()) != drawn:
        raise TsbenchError(
            f"{directory} was begun with another batch, corpus or start ({path.name} has them); use those "
            "settings, or another directory"
        )


def describe(config: PretrainConfig, report: TrainingReport) -> dict[str, object]:
    """What a model card says about a pre-training: corpus, effort and validation curve, JSON-serialisable."""
    return {
        "synthetic_corpus": {family.name: family.weight for family in FAMILIES},
        "real_share": config.real_share,
        "real_series": len(config.real),
        "windows": config.steps * config.batch_size,
        "training": asdict(config.training),
        "batch_size": config.batch_size,
        "processes": config.processes,
        "from_earlier_weights": config.initial is not None,
        "wall_seconds": round(report.seconds),
        "best_step": report.best_step,
        "validation": [asdict(evaluation) for evaluation in report.history],
    }


def window_loss(model: nn.Module, windows: PretrainingWindows) -> Tensor:
    """Training loss of a batch in normalised units.

    Targets are clipped at 10 standard deviations of their context, and jittered by a hundredth of one:
    where a series stays constant the likelihood would grow without bound.
    """
    distribution, target = _forecast(model, windows)
    return distribution.loss(target + _TARGET_JITTER * torch.randn_like(target))


def validation_loss(model: nn.Module, batches: Sequence[PretrainingWindows]) -> float:
    """Twice the pinball loss in normalised units, mean over levels 0.1 .. 0.9 and all batches.

    The same for every head, so that heads compare.
    """
    losses = []
    for windows in batches:
        distribution, target = _forecast(model, windows)
        losses.append(
            2 * pinball_loss(target, distribution.quantiles(HEAD_LEVELS), HEAD_LEVELS).mean().item()
        )
    return math.fsum(losses) / len(losses)


def validation_batches(batch_size: int) -> tuple[PretrainingWindows, ...]:
    """Synthetic windows of several shapes that no training run sees."""
    batches = PretrainingBatches(VALIDATION_SEED, batch_size)
    return tuple(
        batches.windows(step, context, horizon) for step, (context, horizon) in enumerate(_VALIDATION_SHAPES)
    )


def _forecast(model: nn.Module, windows: PretrainingWindows) -> tuple[HorizonDistribution, Tensor]:
    """What the model says about the targets, and the clipped targets, in normalised units."""
    device = next(model.parameters()).device
    context, target = (torch.from_numpy(part).to(device) for part in (windows.context, windows.target))
    forecast: Forecast = model(context, target.shape[1])
    return forecast.distribution, forecast.normalise(target).clamp(-_TARGET_CLIP, _TARGET_CLIP)


def _run(
    config: PretrainConfig, directory: Path, on_progress: Callable[[int, float], None] | None, rank: int
) -> TrainingReport:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Flame(config.model)
    if config.initial is not None:
        model.load_state_dict(config.initial)
    held_out = validation_batches(config.batch_size)
    return train(
        model,
        batches=PretrainingBatches(
            config.seed, config.batch_size // config.processes, rank, config.real, config.real_share
        ),
        loss_fn=window_loss,
        validate=lambda network: validation_loss(network, held_out),
        config=config.training,
        checkpoint_dir=directory,
        on_progress=on_progress,
    )


def _run_in_group(
    rank: int,
    config: PretrainConfig,
    directory: Path,
    on_progress: Callable[[int, float], None] | None,
    meeting: str,
) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=config.processes
    )
    try:
        _run(config, directory, on_progress if rank == 0 else None, rank)
    except TsbenchError as error:
        (Path(meeting) / _FAILURE).write_text(str(error))  # before the others fail for want of this process
        raise
    finally:
        distributed.destroy_process_group()


def _cause(meeting: Path, error: ProcessException) -> TsbenchError:
    """What a process said before it failed; otherwise the last line of its traceback."""
    said = meeting / _FAILURE
    if said.exists():
        return TsbenchError(said.read_text())
    return TsbenchError(
        f"pre-training failed: {str(error).strip().splitlines()[-1]}; use --debug for all of it"
    )
