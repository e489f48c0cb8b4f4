"""FLAME as a backbone: the weights that ship with this package, or a pre-training's own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tsbench.backbones.base import (
    DECILES,
    BackboneOptions,
    RollOut,
    choose_rollout,
    hash_weights,
    resolve_device,
)
from tsbench.backbones.rollout import roll_out
from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_write
from tsbench.models.flame.model import PRESETS, Flame, FlameConfig, Forecast

CONTEXT_LIMIT = 1_128
"""Latest points a forecast is made from; pre-training showed no longer contexts."""

CONFIG_FILE = "flame.json"
WEIGHTS_FILE = "model.safetensors"

_SAMPLED_VALUES_PER_CALL = 2**21
_ROWS_PER_CALL = {"cpu": 128, "cuda": 4_096}


@dataclass(frozen=True, eq=False)
class FlameBackbone:
    """FLAME with fixed weights; quantiles are exact, not sampled.

    Contexts of any length (the last 1,128 points count), NaN = missing. One pass reaches
    `Flame.max_horizon` steps; beyond that medians are fed back.

    Attributes:
        name: Registry name.
        model: The network, in evaluation mode.
        rollout: `median` or `expand`; matters beyond one pass only.
        identity: Name, hash of weights and shape, roll-out, adapter version.
    """

    name: str
    model: Flame
    rollout: RollOut
    identity: str
    quantile_levels: ClassVar[tuple[float, ...]] = DECILES
    prefix_consistent: ClassVar[bool] = True

    @property
    def block(self) -> int:
        """Steps of one pass."""
        return self.model.max_horizon

    @torch.no_grad()
    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Forecast quantiles at the nine deciles; see `Forecaster.predict`."""
        first = min(horizon, self.block)

        def one_pass(rows: Tensor) -> Tensor:
            forecast: Forecast = self.model(rows, first)
            return forecast.restore(forecast.distribution.quantiles(self.quantile_levels))

        return roll_out(
            lambda contexts: self._by_rows(one_pass, contexts),
            context,
            horizon,
            kind="expand" if self.rollout == "expand" else "median",
            levels=self.quantile_levels,
            context_limit=CONTEXT_LIMIT,
        )

    @torch.no_grad()
    def sample(self, context: Tensor, horizon: int, n: int, seed: int = 0) -> Tensor:
        """Draw joint paths of the horizon.

        Args:
            context: [B, L] float32, oldest first.
            horizon: H, at most one pass.
            n: Paths per context.
            seed: Of the draws.

        Returns:
            [B, n, H] float32 in the context's units; coherent over steps, independent between contexts.
        """
        generator = torch.Generator(next(self.model.parameters()).device).manual_seed(seed)

        def draw(rows: Tensor) -> Tensor:
            forecast: Forecast = self.model(rows, horizon)
            return forecast.restore(forecast.distribution.sample(n, generator))

        rows = max(1, _SAMPLED_VALUES_PER_CALL // (n * horizon))
        return self._by_rows(draw, context[:, -CONTEXT_LIMIT:], rows)

    @torch.no_grad()
    def embed(self, context: Tensor) -> Tensor:
        """Mean of the encoder's tokens, [B, d]; unchanged under affine change of units."""
        return self._by_rows(self.model.embed, context[:, -CONTEXT_LIMIT:])

    def _by_rows(
        self, function: Callable[[Tensor], Tensor], context: Tensor, rows: int | None = None
    ) -> Tensor:
        device = next(self.model.parameters()).device
        rows = min(rows or _ROWS_PER_CALL[device.type], _ROWS_PER_CALL[device.type])
        parts = [
            function(context[start : start + rows].to(device)).float()
            for start in range(0, len(context), rows)
        ]
        return torch.cat(parts).to(context.device)


def load(options: BackboneOptions) -> FlameBackbone:
    """Load flame-small, -base or -large.

    Args:
        options: `checkpoint` is a directory that `tsbench pretrain` wrote; None takes the weights in this
            package, which has those of flame-small. `rollout` is `median` (default) or `expand`.

    Raises:
        TsbenchError: No weights, damaged or foreign files, unknown device.
    """
    rollout = choose_rollout(options, "median", "expand")
    if options.checkpoint is not None:
        directory = Path(options.checkpoint)
    else:
        directory = Path(str(files("tsbench.models.flame").joinpath("weights", options.name)))
        if not directory.is_dir():
            raise TsbenchError(
                f"backbone '{options.name}' ships no weights; use flame-small, or pre-train it "
                f"(tsbench pretrain --model {options.name}) and give the directory with --checkpoint"
            )
    model = load_directory(directory)
    if options.name in PRESETS and _shape(PRESETS[options.name]) != _shape(model.config):
        raise TsbenchError(
            f"the weights in '{directory}' are not those of a {options.name}; give another "
            "--checkpoint or --backbone"
        )
    return make_backbone(options.name, model.to(resolve_device(options.device)), rollout)


def save_config(directory: Path, config: FlameConfig, card: Mapping[str, object]) -> None:
    """Write the file that says what the weights in a directory are; `load_directory` needs it.

    Args:
        directory: Holds the weights.
        config: Shape of the network.
        card: How the weights came about; read by people only.
    """
    content = {"config": asdict(config), "card": dict(card)}
    with atomic_write(directory / CONFIG_FILE) as file:
        file.write(json.dumps(content, indent=1).encode())


def make_backbone(name: str, model: Flame, rollout: RollOut = "median") -> FlameBackbone:
    """Wrap a network whose weights will not change any more."""
    weights = hash_weights(model, asdict(model.config))[:16]
    return FlameBackbone(
        name=name,
        model=model.eval().requires_grad_(False),
        rollout=rollout,
        identity=f"{name}-{weights}-{rollout}-v1",
    )


def load_directory(directory: Path) -> Flame:
    """Load the network that pre-training left in a directory.

    Raises:
        TsbenchError: Files are missing, damaged, or not FLAME's.
    """
    config_path, weights_path = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise TsbenchError(
                f"no FLAME checkpoint in '{directory}': {path.name} is missing; give a directory that "
                "`tsbench pretrain` finished"
            )
    try:
        config = TypeAdapter(FlameConfig).validate_python(json.loads(config_path.read_text())["config"])
        model = Flame(config)
        model.load_state_dict(load_file(weights_path))
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        cause = " ".join(str(error).split())[:200]
        raise TsbenchError(
            f"cannot read the FLAME checkpoint '{directory}': {cause}; copy it anew"
        ) from error
    return model


def _shape(config: FlameConfig) -> tuple[int, int, int, int]:
    return config.width, config.encoder_layers, config.decoder_layers, config.patch
