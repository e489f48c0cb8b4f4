"""A backbone and a profile so small that all cells of a table take a second."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from typer.testing import Result

from tsbench import registry
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.naive import SeasonalNaive
from tsbench.config import PROFILES, Profile

Cli = Callable[..., Result]
"""The fixture `tsbench`: runs a command line."""

CELL = ("--backbone", "toy", "--dataset", "demo", "--profile", "quick", "--lookback", "48")
"""Arguments of a run that takes a second; the horizon is left to choose."""

PROFILE: Profile = PROFILES["quick"].model_copy(
    update={
        "max_test_values": 4_000,
        "max_val_values": 2_000,
        "max_stop_values": 500,
        "max_knowledge_rows": 400,
        "max_train_pairs": 50,
        "batch_size": 16,
        "max_steps": 4,
        "eval_every": 2,
    }
)


@dataclass(frozen=True)
class Toy(SeasonalNaive):
    """Repeats the last day, and embeds a context as its last day."""

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        return context[:, -24:].clone()


@dataclass(frozen=True)
class Paths(Toy):
    """Also draws paths: the last day with noise around it, of at most four days."""

    block: ClassVar[int] = 96  # type: ignore[assignment]

    def sample(self, context: torch.Tensor, horizon: int, n: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(context), n, horizon, generator=generator)
        return self.predict(context, horizon)[:, 4, None] + noise


def load_paths(options: BackboneOptions) -> Paths:
    return Paths(options.name, season=24)


def load(options: BackboneOptions) -> Toy:
    return Toy(options.name, season=24)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the backbones `toy` and `toy-paths`, and shrink the profile `quick`."""
    toys = (
        registry.Entry("toy", "toy:load", "repeats the last day"),
        registry.Entry("toy-paths", "toy:load_paths", "repeats the last day, and draws paths around it"),
    )
    monkeypatch.setitem(registry.BUILT_IN, "backbone", (*registry.BUILT_IN["backbone"], *toys))
    monkeypatch.setitem(PROFILES, "quick", PROFILE)
