"""Adding up the work of a cell: what is needed, what of it is there, and what the rest takes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.bench.cost.ledger import BLOCK, NOTHING, Amount, Ledger
from tsbench.bench.cost.rates import Rates, first_contexts, seconds_of, step_seconds
from tsbench.config import CellSpec
from tsbench.methods.task import Source
from tsbench.training.checkpoint import TrainingReport, is_finished, trained_tensors
from tsbench.training.loop import TrainingConfig, load_trained

_NOT_TRAINED = TrainingReport((), best_step=0, best_score=float("-inf"), steps=0, seconds=0.0)


@dataclass
class Done:
    """Work added up.

    Attributes:
        forecasts: Windows whose base forecasts are needed, horizon by horizon.
        embeddings: Windows whose embeddings are needed.
        teachers: Teachers that are needed.
        trainings: Trained networks that are needed.
        steps: Training steps, without early stopping.
        seconds: What all that takes.
        held_bytes: Arrays held at once beside the networks.
        new_bytes: Added to the disk.
    """

    forecasts: Amount = NOTHING
    embeddings: Amount = NOTHING
    teachers: Amount = NOTHING
    trainings: Amount = NOTHING
    steps: int = 0
    seconds: float = 0.0
    held_bytes: int = 0
    new_bytes: int = 0


@dataclass(eq=False)
class Work:
    """A cell whose work is being counted.

    Attributes:
        spec: The cell.
        channels: Of its data set; 1 for a collection.
        artifacts: Where a run keeps what it trains.
        scratch: Takes the place of `artifacts` meanwhile.
        ledger: What is there.
        rates: How long things take.
        done: The sum so far.
    """

    spec: CellSpec
    channels: int
    artifacts: Path
    scratch: Path
    ledger: Ledger
    rates: Rates
    done: Done = field(default_factory=Done)

    def spend(self, kind: tuple[object, ...], amount: float, items: int, work: Callable[[], object]) -> None:
        """Add the seconds of an amount of work, of which a call of `work` does so many items."""
        if amount:
            whole = (*kind, self.spec.lookback, self.spec.device)
            self.done.seconds += amount * self.rates.of(whole, lambda: seconds_of(work) / items)

    def forecasts(self, source: Source, starts: NDArray[np.int64]) -> None:
        """Base forecasts of windows."""
        frozen, horizon = source.frozen, source.task.spec.horizon
        amount = self.ledger.forecasts(frozen, starts, horizon)
        context = first_contexts(frozen, starts)
        self.spend(
            ("forecast", frozen.backbone.name, horizon, frozen.backbone.identity),
            amount.missing * source.task.channels,
            len(context),
            lambda: frozen.backbone.predict(context, horizon).cpu(),
        )
        values = len(starts) * source.task.channels * (len(frozen.backbone.quantile_levels) or 1) * horizon
        self.done.forecasts += amount
        self.done.new_bytes += amount.new_bytes
        self.done.held_bytes += 4 * values

    def embeddings(self, source: Source, starts: NDArray[np.int64], copies: int) -> None:
        """Embeddings of windows, of which so many copies are held."""
        frozen = source.frozen
        width = embedding_width(frozen)
        amount = self.ledger.embeddings(frozen, starts, width)
        context = first_contexts(frozen, starts)
        self.spend(
            ("embed", frozen.backbone.name, "", frozen.backbone.identity),
            amount.missing * source.task.channels,
            len(context),
            lambda: frozen.backbone.embed(context).cpu(),
        )
        self.done.embeddings += amount
        self.done.new_bytes += amount.new_bytes
        self.done.held_bytes += 4 * copies * len(starts) * source.task.channels * width

    def teacher(self, path: Path, size: int) -> int:
        """A teacher of so many bytes below `scratch`; 1 if it is to be built, 0 if it is there."""
        amount = self.ledger.file(self.artifacts / path.relative_to(self.scratch), size)
        self.done.teachers += amount
        self.done.new_bytes += amount.new_bytes + BLOCK * amount.missing  # and its card
        self.done.held_bytes += (1 + 2 * amount.missing) * size
        return amount.missing

    def rehearse(
        self,
        model: nn.Module,
        batches: Callable[[int], Any],
        loss_fn: Callable[[nn.Module, Any], Tensor],
        validate: Callable[[nn.Module], float] | None,
        config: TrainingConfig,
        checkpoint_dir: Path,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> TrainingReport:
        """What `train` is called with, counted; its validations too, unless `validate` is None."""
        directory = self.artifacts / checkpoint_dir.relative_to(self.scratch)
        tensors = trained_tensors(model).values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        amount = self.ledger.file(directory / "training.json", size + BLOCK)
        self.done.trainings += amount
        self.done.new_bytes += amount.new_bytes
        if is_finished(directory):
            return load_trained(model, directory)
        if amount.missing:
            spec = self.spec
            stage = checkpoint_dir.name.partition("-")[0] if spec.f_llm else ""  # plant or observer
            network = (spec.method, spec.backbone, stage, spec.horizon, size, spec.lookback, spec.f_llm)
            shape = (*network, spec.profile, spec.dataset, self.channels, config.precision, spec.device)
            step = self.rates.of(("train", *shape), lambda: step_seconds(model, batches, loss_fn, config))
            self.done.steps += config.max_steps
            self.done.seconds += config.max_steps * step
            if validate is not None:
                self.done.seconds += validations(config) * self.rates.of(
                    ("validate", *shape), lambda: _validation_seconds(model, validate)
                )
        return _NOT_TRAINED


def embedding_width(frozen: FrozenBackbone) -> int:
    """Length of a backbone's embeddings."""
    channels = frozen.scaled.shape[1]
    return frozen.backbone.embed(torch.zeros(channels, frozen.lookback)).shape[1]


def validations(config: TrainingConfig) -> int:
    """Validations of a training that does not stop early."""
    return -(-config.max_steps // config.eval_every)


def _validation_seconds(model: nn.Module, validate: Callable[[nn.Module], float]) -> float:
    model.eval()
    with torch.no_grad():
        return seconds_of(lambda: validate(model))
