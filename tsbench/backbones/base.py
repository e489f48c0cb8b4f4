"""What a forecaster is, what a backbone adds to it, and how a backbone is asked for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch

from tsbench.config import Precision
from tsbench.errors import TsbenchError

RollOut = Literal["direct", "median", "expand", "sample"]
"""How a forecast reaches beyond the steps of one model call.

`direct`: every step comes from one call. `median`: the level-0.5 forecast is fed back as if observed, so
intervals that are forecast block by block stop widening at block borders. `expand`: each quantile is fed
back as a path of its own. `sample`: quantiles of simulated trajectories. The kind moves CRPS, so it is part
of a backbone's identity.
"""

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Forecaster(Protocol):
    """A function from contexts to quantile forecasts."""

    @property
    def name(self) -> str:
        """Registry name, as printed in tables."""

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Levels in (0, 1), ascending; empty for a point-only model."""

    @property
    def rollout(self) -> RollOut:
        """How horizons beyond one model call are reached."""

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast the `horizon` steps after each context.

        Args:
            context: [B, L] float32, oldest first, no NaN; each row is one channel of one window. Rows are
                whole windows, channel by channel.
            horizon: H, steps ahead, at least 1.

        Returns:
            [B, Q, H] float32 in the context's units and on its device, ascending along Q. A row depends on
            its own context only, that of a multivariate forecaster on its window, never on the rest of the
            batch.
        """


@runtime_checkable
class SampleForecaster(Forecaster, Protocol):
    """A forecaster that also draws paths, such as FLAME with its flow."""

    @property
    def block(self) -> int | None:
        """Steps of the longest path; None when there is no bound."""

    def sample(self, context: torch.Tensor, horizon: int, n: int, seed: int) -> torch.Tensor:
        """Draw joint paths of the `horizon` steps after each context.

        Args:
            context: [B, L] float32, oldest first, no NaN.
            horizon: H, at most `block`.
            n: Paths per context.
            seed: Of the draws; equal arguments give equal paths.

        Returns:
            [B, n, H] float32 in the context's units and on its device, independent between contexts.
        """


class Backbone(Forecaster, Protocol):
    """A frozen pretrained forecaster that methods adapt."""

    @property
    def identity(self) -> str:
        """Content id that keys caches: name, hash of weights and settings, roll-out, adapter version."""

    @property
    def block(self) -> int | None:
        """Steps forecast in one model call; None when any number is."""

    @property
    def prefix_consistent(self) -> bool:
        """Whether predict(context, H)[..., :h] equals predict(context, h) for every h <= H."""

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Encode each context as one vector.

        Args:
            context: [B, L] float32, oldest first, no NaN.

        Returns:
            [B, D] float32 on the context's device, deterministic.

        Raises:
            TsbenchError: The backbone has no encoder.
        """


@dataclass(frozen=True)
class BackboneOptions:
    """What a user may say about a backbone; a factory ignores what it has no use for.

    Attributes:
        name: Registry name, alias resolved.
        checkpoint: Hub id or local directory of the weights; None takes the published ones.
        device: "cpu", "cuda" or "cuda:N".
        rollout: Wanted roll-out; None takes the backbone's default.
        season: Seasonal period of the data in steps, for backbones that repeat seasons.
        channels: Channels of the data, for backbones that forecast them together.
        layers: Blocks of a language model that are used; None uses all.
        precision: Number format of a language model; forecasters run in fp32.
    """

    name: str
    checkpoint: str | None = None
    device: str = "cpu"
    rollout: RollOut | None = None
    season: int = 1
    channels: int = 1
    layers: int | None = None
    precision: Precision = "fp32"


def resolve_device(name: str) -> torch.device:
    """Turn a device name into a usable device.

    Args:
        name: "cpu", "cuda" or "cuda:N".

    Raises:
        TsbenchError: The name is not a device, or this machine has no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TsbenchError(f"unknown device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise TsbenchError(f"unknown device '{name}'; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TsbenchError(
            f"device '{name}' is not available: PyTorch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu or install a CUDA build of PyTorch"
        )
    return device


def choose_rollout(options: BackboneOptions, *supported: RollOut) -> RollOut:
    """Return the wanted roll-out, or the first supported one when none is wanted.

    Raises:
        TsbenchError: The backbone cannot roll out that way.
    """
    if options.rollout is None:
        return supported[0]
    if options.rollout not in supported:
        raise TsbenchError(
            f"backbone '{options.name}' has no roll-out '{options.rollout}'; use {' or '.join(supported)}"
        )
    return options.rollout


def path_sampler(forecaster: Forecaster, horizon: int) -> SampleForecaster:
    """Return a forecaster that draws paths of this length: the one given, if it can.

    Raises:
        TsbenchError: It draws none, or only shorter ones.
    """
    if not isinstance(forecaster, SampleForecaster):
        raise TsbenchError(
            f"{forecaster.name} forecasts quantiles and draws no paths; leave out --samples, or use "
            "a backbone that draws, such as flame-small"
        )
    if forecaster.block is not None and horizon > forecaster.block:
        raise TsbenchError(
            f"{forecaster.name} draws paths of at most {forecaster.block} steps, not {horizon}; leave out "
            "--samples or use a shorter horizon"
        )
    return forecaster


def hash_weights(module: torch.nn.Module, settings: Mapping[str, object]) -> str:
    """SHA-256 over a network's weights and the settings that change what it computes from them.

    Args:
        module: Network; every entry of its state dict counts, by name, dtype, shape and bytes.
        settings: JSON-serialisable settings that are not in the weights, such as the context limit.

    Returns:
        64 hexadecimal digits, equal for equal content whatever file or device it came from.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
