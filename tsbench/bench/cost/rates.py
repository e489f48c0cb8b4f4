"""How long single steps of a cell take on this machine, measured with the networks and batches of its run."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.base import RollOut
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.windows import gather_contexts
from tsbench.methods.task import Task
from tsbench.training.checkpoint import trained_tensors
from tsbench.training.loop import TrainingConfig, train

_LONG = 1.0  # seconds from which on one call is measured, cold as it is
_CALLS = 3
_STEPS = 6


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that a call takes: the median of three warm ones, or the first where that is long."""
    first = _once(work)
    return first if first > _LONG else statistics.median(_once(work) for _ in range(_CALLS))


@dataclass(eq=False)
class Rates:
    """Seconds per item of each kind of work, measured when first asked for.

    Attributes:
        progress: Called with one line before each measurement.
        known: Seconds per item by kind of work, the first entry of which names it.
        seconds: Spent on measuring.
    """

    progress: Callable[[str], None] = field(default=lambda line: None)
    known: dict[tuple[object, ...], float] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, kind: tuple[object, ...], measure: Callable[[], float]) -> float:
        """Seconds per item of a kind of work.

        Args:
            kind: What the time depends on.
            measure: Gives the seconds per item.
        """
        if kind not in self.known:
            self.progress(f"measuring: {' '.join(str(part) for part in kind[:3] if part != '')}")
            started = time.perf_counter()
            self.known[kind] = measure()
            self.seconds += time.perf_counter() - started
        return self.known[kind]


@dataclass(frozen=True)
class Instant:
    """A stand-in for a backbone whose forecasts and embeddings take no time.

    Attributes:
        quantile_levels: Those of the backbone.
        width: Length of its embeddings.
    """

    quantile_levels: tuple[float, ...]
    width: int = 1
    name: ClassVar[str] = "instant"
    identity: ClassVar[str] = "instant"
    rollout: ClassVar[RollOut] = "direct"
    block: ClassVar[None] = None
    prefix_consistent: ClassVar[bool] = True

    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Zeros [B, Q, H]."""
        return torch.zeros(len(context), len(self.quantile_levels) or 1, horizon)

    def embed(self, context: Tensor) -> Tensor:
        """Random vectors [B, D]."""
        return torch.randn(len(context), self.width)


def instantly(frozen: FrozenBackbone, width: int = 1) -> FrozenBackbone:
    """The same data with a backbone that takes no time, and nothing on disk."""
    return replace(frozen, backbone=Instant(frozen.backbone.quantile_levels, width), directory=None)


def one_channel(task: Task) -> Task:
    """The first channel of a task alone, with its share of the profile: the same windows."""
    bounds = {
        name: max(1, bound // task.channels)
        for name, bound in task.profile.model_dump().items()
        if name.startswith("max_") and name not in ("max_steps", "max_epochs")
    }
    return replace(
        task, scaled=task.scaled[:, :1].copy(), profile=task.profile.model_copy(update=bounds), sources=()
    )


def first_contexts(frozen: FrozenBackbone, starts: NDArray[np.int64]) -> Tensor:
    """Contexts [w * C, L] of as many windows as a backbone is given at once."""
    part = next(frozen.chunks(len(starts)))
    return torch.from_numpy(gather_contexts(frozen.scaled, starts[part], frozen.lookback)).flatten(0, 1)


def step_seconds(
    model: nn.Module,
    batches: Callable[[int], Any],
    loss_fn: Callable[[nn.Module, Any], Tensor],
    config: TrainingConfig,
) -> float:
    """Seconds of a training step: the median of a few warm ones; the model's weights are put back."""
    before = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        short = replace(config, max_steps=_STEPS, eval_every=_STEPS)
        train(
            model,
            batches,
            loss_fn,
            validate=lambda _: 0.0,
            config=short,
            checkpoint_dir=Path(folder),
            on_progress=lambda step, loss: ends.append(time.perf_counter()),
        )
    for name, tensor in trained_tensors(model).items():
        tensor.copy_(before[name])
    return statistics.median(np.diff(ends).tolist())


def _once(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
