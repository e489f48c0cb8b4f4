"""The command that pre-trains FLAME."""

import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbench.cli import Command, app
from tsbench.cli import options as opt

if TYPE_CHECKING:
    from tsbench.data.pretraining import Float32

_LINES_EVERY_S = 30.0


class FlameAblation(StrEnum):
    """Parts of FLAME that can be left out or replaced."""

    NONE = "none"
    NO_LEGT = "no-legt"
    LINEAR_DECODER = "linear-decoder"
    GAUSSIAN_HEAD = "gaussian-head"
    QUANTILE_HEAD = "quantile-head"


_CHANGES: dict[FlameAblation, dict[str, Any]] = {
    FlameAblation.NONE: {},
    FlameAblation.NO_LEGT: {"legendre_order": 0},
    FlameAblation.LINEAR_DECODER: {"decoder": "linear"},
    FlameAblation.GAUSSIAN_HEAD: {"head": "gaussian"},
    FlameAblation.QUANTILE_HEAD: {"head": "quantile"},
}


@dataclass
class _Log:
    """Prints a line now and then: step, loss, throughput, time left."""

    steps: int
    batch_size: int
    started: float = field(default_factory=time.monotonic)
    printed: float = 0.0
    first_step: int | None = None

    def __call__(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if self.first_step is None:
            self.first_step, self.started = step, now
        elif now - self.printed >= _LINES_EVERY_S or step == self.steps:
            rate = (step - self.first_step) / (now - self.started)
            left = (self.steps - step) / rate / 60
            typer.echo(
                f"step {step} of {self.steps}, loss {loss:.4f}, {rate * self.batch_size:.0f} windows/s, "
                f"{left:.0f} min left",
                err=True,
            )
            self.printed = now


@app.command(
    "pretrain",
    cls=Command,
    help="Pre-train FLAME on generated series, optionally mixed with real ones. Interrupted, the same "
    "command continues from the last checkpoint; the finished directory is a --checkpoint for --backbone "
    "flame-small."
    "\n\nExample: `tsbench pretrain --model flame-small --out flame --steps 20000 --processes 2`",
)
def pretrain(
    model: Annotated[str, typer.Option(help="flame-small, flame-base or flame-large.")] = "flame-small",
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the checkpoint and of the finished weights; ./MODEL unless given."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Windows per step.", min=1)] = 128,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1.5e-3,
    seed: Annotated[int, typer.Option(help="Of weights and windows.", min=0)] = 0,
    processes: Annotated[
        int, typer.Option(help="Processes that share each step, one thread each.", min=1)
    ] = 1,
    real: Annotated[
        list[str],
        typer.Option(
            help="Collections mixed in, such as M4-Hourly; a model that saw one is not zero-shot on it. "
            "Several may follow."
        ),
    ] = [],  # noqa: B006 (an empty list is how Typer declares a repeatable option)
    real_share: Annotated[float, typer.Option(help="Share of windows from them.", min=0, max=1)] = 0.1,
    ablation: Annotated[
        FlameAblation, typer.Option(help="Part of the network left out or replaced.")
    ] = FlameAblation.NONE,
    initial: Annotated[
        Path | None, typer.Option(help="Finished directory whose weights to start from.")
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Steps between validations and checkpoints.", min=1)] = 500,
    precision: opt.PrecisionChoice = None,
    mirror: opt.Mirror = None,
) -> None:
    """Pre-train FLAME."""
    from tsbench.backbones.flame import load_directory, save_config
    from tsbench.bench.provenance import code_version, device_name, preferred_precision
    from tsbench.models.flame.model import PRESETS
    from tsbench.registry import unknown_name
    from tsbench.training.pretrain import PretrainConfig, describe
    from tsbench.training.pretrain import pretrain as train

    if model not in PRESETS:
        raise unknown_name("model", model, PRESETS)
    directory = out or Path(model)
    series = _real_series(real, mirror)
    config = PretrainConfig(
        model=replace(PRESETS[model], **_CHANGES[ablation]),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        precision=precision or preferred_precision("cpu"),
        processes=processes,
        real=tuple(series),
        real_share=real_share if series else 0.0,
        eval_every=eval_every,
        initial=load_directory(initial).state_dict() if initial else None,
    )
    report = train(config, directory, _Log(steps, batch_size))
    made = {"model": model, "real": real, "device": device_name("cpu"), "code_version": code_version()}
    save_config(directory, config.model, made | describe(config, report))
    typer.echo(
        f"{directory}: validation loss {report.best_score:.4f} at step {report.best_step}, "
        f"{report.seconds / 3600:.2f} h"
    )


def _real_series(names: list[str], mirror: Path | None) -> "list[Float32]":
    """Standardised train parts of collections."""
    import numpy as np

    from tsbench.data.load import load_collection

    found = []
    for name in names:
        for values in load_collection(name, mirror).train:
            spread = values.std()
            if spread > 0:
                found.append(((values - values.mean()) / spread).astype(np.float32))
    return found
