"""TimesFM 2.5, read through the package timesfm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tsbench.backbones.base import (
    DECILES,
    BackboneOptions,
    RollOut,
    choose_rollout,
    hash_weights,
    resolve_device,
)
from tsbench.backbones.hub import HUB_IDS, require_source
from tsbench.errors import TsbenchError

_WEIGHTS = "model.safetensors"
_ROWS_PER_CALL = 64


@dataclass(frozen=True, eq=False)
class TimesFM:
    """TimesFM 2.5: a decoder-only Transformer over patches of 32 steps, one channel at a time.

    The forecast is that of the package's `forecast` with the flags of the model card, but one. The median
    is rolled out: each call forecasts 128 steps, which are fed back as if observed. The other deciles are
    that median plus their distance from the median in a second head, which forecasts 1024 steps in the
    first call (`use_continuous_quantile_head`), so intervals do widen across blocks; longer horizons are
    not offered. Forecasts are averaged with the mirrored ones of the mirrored context
    (`force_flip_invariance`), and deciles that cross are moved to their neighbour nearer the median
    (`fix_quantile_crossing`). `infer_is_positive` is off: it cuts forecasts of non-negative contexts off at
    zero, which after standardisation is the train mean of a channel, not a bound.

    Attributes:
        name: Registry name.
        package_model: The package's model around the frozen network, in eval mode, never compiled by torch.
        identity: Name, hash of weights, roll-out, adapter version.
        block: Steps of one call, 128 in the published checkpoint.
        max_horizon: Steps that the second head reaches, 1024 in the published checkpoint.
        context_limit: Latest points a call sees: what the published checkpoint takes, 16384 points, less the
            longest horizon.

    Source:
        Das et al. (2024), A decoder-only foundation model for time-series forecasting, ICML, arXiv
        2310.10688; model card of google/timesfm-2.5-200m-pytorch; timesfm, TimesFM_2p5_200M_torch.
    """

    name: str
    package_model: Any
    identity: str
    block: int
    max_horizon: int
    context_limit: int
    quantile_levels: ClassVar[tuple[float, ...]] = DECILES
    rollout: ClassVar[RollOut] = "median"
    prefix_consistent: ClassVar[bool] = True

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast the deciles; see `Forecaster.predict`.

        Raises:
            TsbenchError: The horizon is longer than the second head reaches.
        """
        if horizon > self.max_horizon:
            raise TsbenchError(
                f"backbone '{self.name}' forecasts at most {self.max_horizon} steps; choose a shorter horizon"
            )
        rows = torch.split(context[:, -self.context_limit :], _ROWS_PER_CALL)
        return torch.cat([self._forecast(part, horizon) for part in rows])

    def _forecast(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        from timesfm import ForecastConfig

        # Compiles nothing: it fixes the shapes and flags that `forecast` reads. With a batch of exactly these
        # rows the package pads none.
        self.package_model.compile(
            ForecastConfig(
                max_context=context.shape[1],
                max_horizon=horizon,
                per_core_batch_size=len(context),
                normalize_inputs=True,
                use_continuous_quantile_head=True,
                force_flip_invariance=True,
                infer_is_positive=False,
                fix_quantile_crossing=True,
            )
        )
        _, forecast = self.package_model.forecast(horizon, list(context.cpu().numpy()))
        deciles = torch.from_numpy(forecast[..., 1:])  # [B, H, 9], behind the mean
        return deciles.transpose(1, 2).contiguous().to(context.device)

    @torch.no_grad()
    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Encode each context as the decoder's output at its last patch.

        Args:
            context: [B, L] float32, oldest first.

        Returns:
            [B, D] float32; unchanged by increasing affine maps of the context.
        """
        rows = torch.split(context[:, -self.context_limit :], _ROWS_PER_CALL)
        return torch.cat([self._encode(part) for part in rows])

    def _encode(self, context: torch.Tensor) -> torch.Tensor:
        """Normalise each patch by the running mean and deviation up to it, as the package's `decode` does."""
        from timesfm.torch.util import revin, update_running_stats

        network = self.package_model.model
        padding = -context.shape[1] % network.p
        padded = torch.nn.functional.pad(context.to(network.device), (padding, 0))
        patches = padded.view(len(padded), -1, network.p)
        masks = torch.zeros_like(patches, dtype=torch.bool)
        masks[:, 0, :padding] = True

        running = tuple(patches.new_zeros(3, len(patches)))
        means, deviations = [], []
        for patch, mask in zip(patches.unbind(1), masks.unbind(1), strict=True):
            running, _ = update_running_stats(*running, patch, mask)
            means.append(running[1])
            deviations.append(running[2])
        normalised = revin(patches, torch.stack(means, dim=1), torch.stack(deviations, dim=1))
        (_, tokens, _, _), _ = network(normalised.masked_fill(masks, 0.0), masks)
        encoded: torch.Tensor = tokens[:, -1]
        return encoded.to(context.device)


def load(options: BackboneOptions) -> TimesFM:
    """Load TimesFM 2.5 from the hub or a downloaded copy.

    Args:
        options: `checkpoint` is a hub id or a directory with model.safetensors; None takes
            `google/timesfm-2.5-200m-pytorch`. There is one roll-out, `median`.

    Raises:
        TsbenchError: Device, roll-out or checkpoint cannot be used.
    """
    from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch

    choose_rollout(options, TimesFM.rollout)
    device = resolve_device(options.device)
    source = options.checkpoint or HUB_IDS[options.name]
    require_source(options.name, source)
    package_model = TimesFM_2p5_200M_torch(torch_compile=False)
    network = package_model.model
    try:
        network.load_state_dict(load_file(_weights_file(source)))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TsbenchError(
            f"cannot load '{options.name}' from '{source}': no readable {_WEIGHTS} of TimesFM 2.5 there, on "
            "disk or on the Hugging Face hub; give a downloaded copy with --checkpoint DIR"
        ) from error
    network.eval().requires_grad_(False).to(device)
    network.device, network.device_count = device, 1  # the package would take the first GPU it sees
    identity = f"{options.name}-{hash_weights(network, {})[:16]}-{TimesFM.rollout}-v1"
    return TimesFM(
        name=options.name,
        package_model=package_model,
        identity=identity,
        block=network.o,
        max_horizon=network.os,
        context_limit=network.config.context_limit - network.os,
    )


def _weights_file(source: str) -> str:
    """Path of the weights in a local directory or, downloaded if need be, in the hub's cache."""
    from huggingface_hub import hf_hub_download

    directory = Path(source)
    return str(directory / _WEIGHTS) if directory.is_dir() else hf_hub_download(source, _WEIGHTS)
