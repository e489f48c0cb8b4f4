"""Model calls are as large as the device allows that a run names, whatever else the machine has."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import toy

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.bench.latency import prepare
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, LatencySpec

SHAPE = {"backbone": "toy", "dataset": "demo", "horizon": 12, "lookback": 48}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    toy.install(monkeypatch)
    return Bench(ResultsStore(tmp_path / "results"))


@dataclass(frozen=True)
class Counting(toy.Toy):
    """Notes how many contexts it is given at once."""

    sizes: list[int] = field(default_factory=list)

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        self.sizes.append(len(context))
        return super().predict(context, horizon)


def test_a_cell_hands_its_device_on(bench: Bench) -> None:
    spec = CellSpec.model_validate(SHAPE | {"method": "origin", "profile": "quick", "device": "cuda"})
    assert bench.frozen(spec, bench.task(spec)).device == "cuda"


def test_a_timing_hands_its_device_on(bench: Bench) -> None:
    spec = LatencySpec.model_validate(SHAPE | {"methods": ("origin",), "threads": 1, "device": "cuda"})
    assert prepare(bench, spec, toy.load(BackboneOptions("toy"))).frozen.device == "cuda"


def test_ones_own_forecaster_gets_larger_calls_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**36, 2**36))
    demo = tsbench.load_dataset("demo")
    largest = {}
    for device in ("cpu", "cuda"):
        forecaster = Counting("counting", season=24)
        tsbench.evaluate(forecaster, demo, 12, lookback=48, device=device)
        largest[device] = max(forecaster.sizes)
    assert largest["cpu"] <= 448 < largest["cuda"] <= 4_096
