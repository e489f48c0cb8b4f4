"""fracast: a real pre-trained 85,001-parameter forecaster whose weights come inside its wheel."""

import importlib.util
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Literal

import torch

from tsbench.backbones.base import BackboneOptions, choose_rollout, hash_weights, resolve_device
from tsbench.backbones.fracast_encoder import FracastEncoder
from tsbench.backbones.rollout import roll_out
from tsbench.errors import TsbenchError

# Rows decoded together; the head's activations then stay in the second-level cache.
_ROWS_PER_DECODE = 32


@dataclass(frozen=True, eq=False)
class Fracast:
    """fracast with fp32 weights, evaluated by `FracastEncoder`.

    Contexts of any length from 8 finite points on (the last 2,048 count), NaN = missing. The model
    normalises each context by its own minimum and range, so forecasts follow any increasing affine change
    of units. Its pre-training corpora (GIFT-Eval-pretrain, LOTSA, Chronos, BOOM, fev) may contain the
    benchmark data sets: its figures are not clean zero-shot ones.

    Attributes:
        encoder: The network.
        rollout: `median` (the package's own) or `expand`.
        identity: Package version, hash of weights, roll-out, adapter version.
    """

    encoder: FracastEncoder
    rollout: Literal["median", "expand"]
    identity: str
    quantile_levels: tuple[float, ...]
    name: ClassVar[str] = "fracast"
    block: ClassVar[int] = 48
    prefix_consistent: ClassVar[bool] = True

    @torch.no_grad()
    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast by blocks of 48 steps; see `Forecaster.predict`."""
        return roll_out(
            self._block,
            context,
            horizon,
            kind=self.rollout,
            levels=self.quantile_levels,
            context_limit=self.encoder.positions,
        )

    @torch.no_grad()
    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Encode each context as the encoder's output at its last position, [B, 64].

        The encoder is causal with a receptive field of 2,047 steps, so this position has seen the whole
        context; it is what Chronos-Bolt's [REG] token is to TS-Memory (Eq. 4). It does not change under
        increasing affine maps of the context.
        """
        return self.encoder.encode(context).last.to(context.device)

    def forget(self) -> None:
        """Let go of what earlier contexts left behind, so that the next forecast costs what a first one does.

        What depends on a context's detected periods alone is kept for contexts with the same ones.
        """
        self.encoder.forget()

    def _block(self, context: torch.Tensor) -> torch.Tensor:
        """One block [B, Q, 48]."""
        encoded = self.encoder.encode(context)
        parts = [
            self.encoder.decode(encoded.rows(slice(start, start + _ROWS_PER_DECODE)))
            for start in range(0, len(context), _ROWS_PER_DECODE)
        ]
        return torch.cat(parts).transpose(1, 2).to(context.device)


def load(options: BackboneOptions) -> Fracast:
    """Load fracast from its wheel, or from a directory or hub id given as checkpoint.

    Raises:
        TsbenchError: The package is missing, the checkpoint cannot be read, or the device is not there.
    """
    if importlib.util.find_spec("fracast") is None:
        raise TsbenchError("backbone 'fracast' needs the package fracast; pip install 'tsbench[fracast]'")
    from fracast import FracastModel

    device = resolve_device(options.device)
    rollout = choose_rollout(options, "median", "expand")
    source = options.checkpoint
    if source is not None and Path(source).exists() and not Path(source).is_dir():
        raise TsbenchError(
            f"checkpoint '{source}' is not a directory; give the folder that holds config.json"
        )
    try:
        model = FracastModel.from_pretrained(source, weights="fp32", device=str(device))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TsbenchError(
            f"cannot load fracast from '{source}': {error}; give a directory with config.json and "
            "model.safetensors, or none for the bundled weights"
        ) from error
    network = torch.nn.ModuleList([model.core, model.head])
    weights = hash_weights(network, {"package": version("fracast")})[:16]
    return Fracast(
        encoder=FracastEncoder(model),
        rollout="expand" if rollout == "expand" else "median",
        identity=f"fracast-{weights}-{rollout}-v1",
        quantile_levels=tuple(model.quantiles),
    )
