"""A backbone that counts what it computes, with and without the forecast cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.data.windows import gather_contexts

LOOKBACK, HORIZON, CHANNELS = 16, 6, 2
EVERY = np.arange(LOOKBACK, 100)
SCALED = np.random.default_rng(4).standard_normal((120, CHANNELS)).cumsum(axis=0).astype(np.float32)


@dataclass
class CountingBackbone:
    """A fan around the last value; counts the contexts it forecasts and embeds."""

    identity: str = "fan"
    prefix_consistent: bool = True
    forecast: int = 0
    embedded: int = 0
    name: ClassVar[str] = "fan"
    quantile_levels: ClassVar[tuple[float, ...]] = (0.1, 0.5, 0.9)
    rollout: ClassVar[str] = "direct"
    block: ClassVar[None] = None

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        self.forecast += len(context)
        assert not torch.is_autocast_enabled("cpu")
        step = torch.arange(1.0, horizon + 1)
        if not self.prefix_consistent:
            step = step / horizon
        width = (context.amax(dim=1) - context.amin(dim=1))[:, None, None] + 1
        return context[:, -1:, None] + width * torch.tensor([[-1.0], [0.1], [1.0]]) * step

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        self.embedded += len(context)
        return torch.stack([context[:, 0], context.mean(dim=1), context.abs().amax(dim=1)], dim=1)


class RefusingBackbone(CountingBackbone):
    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        raise AssertionError("computed although it is stored")


def frozen(
    directory: Path | None, backbone: CountingBackbone | None = None, budget: int = 10**9
) -> FrozenBackbone:
    return FrozenBackbone(backbone or CountingBackbone(), SCALED, LOOKBACK, directory, budget)


def collect(cache: FrozenBackbone, starts: NDArray[np.int64], horizon: int = HORIZON) -> torch.Tensor:
    """All forecasts [W, C, Q, H]; the parts must be consecutive and cover `starts`."""
    parts, chunks = zip(*cache.forecasts(starts, horizon), strict=True)
    covered = np.concatenate([np.arange(len(starts))[part] for part in parts])
    assert covered.tolist() == list(range(len(starts)))
    return torch.cat(chunks)


def direct(
    starts: NDArray[np.int64],
    horizon: int = HORIZON,
    backbone: CountingBackbone | None = None,
    scaled: NDArray[np.float32] = SCALED,
    lookback: int = LOOKBACK,
) -> torch.Tensor:
    """The same without the cache, one window at a time."""
    model = backbone or CountingBackbone()
    contexts = torch.from_numpy(gather_contexts(scaled, starts, lookback))
    return torch.stack([model.predict(context, horizon) for context in contexts])


def entries(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()]
