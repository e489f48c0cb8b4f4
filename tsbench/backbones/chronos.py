"""Chronos-Bolt and Chronos-2, read through the package chronos-forecasting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from safetensors import SafetensorError

from tsbench.backbones.base import (
    DECILES,
    BackboneOptions,
    RollOut,
    choose_rollout,
    hash_weights,
    resolve_device,
)
from tsbench.backbones.hub import HUB_IDS, require_source
from tsbench.backbones.rollout import roll_out
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model
    from chronos.chronos_bolt import ChronosBoltModelForForecasting

# Rows per model call. On CPU the time per row is level from about 32 rows on (full-size networks, 512-step
# contexts), and Chronos-2's masked attention across rows grows with their square. On a GPU: the package's own
# default.
_ROWS_PER_CALL = {"cpu": 64, "cuda": 256}


@dataclass(frozen=True, eq=False)
class ChronosBolt:
    """Chronos-Bolt: a T5 encoder-decoder that forecasts all quantiles of one block in one call.

    The model normalises each context by its own mean and standard deviation, so forecasts follow any
    increasing affine change of units, and a constant context gives a nearly constant forecast.

    Attributes:
        name: Registry name.
        model: The frozen network, in eval mode.
        rollout: `median` (the TS-Memory paper's protocol) or `expand` (the package's own since 2.1).
        identity: Name, hash of weights and configuration, roll-out, adapter version.
        quantile_levels: The network's levels, 0.1 to 0.9 in the published checkpoints.
        block: Steps per call, 64 in the published checkpoints.
        context_limit: Latest points a call sees, 2048 in the published checkpoints.

    Source:
        Ansari et al. (2024), Chronos: Learning the Language of Time Series, TMLR; chronos-forecasting,
        ChronosBoltPipeline. Single blocks are the package's; beyond one block see `rollout.py`.
    """

    name: str
    model: ChronosBoltModelForForecasting
    rollout: Literal["median", "expand"]
    identity: str
    quantile_levels: tuple[float, ...]
    block: int
    context_limit: int
    prefix_consistent: ClassVar[bool] = True

    @torch.no_grad()
    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast by blocks; see `Forecaster.predict`."""
        paths = len(self.quantile_levels) if self.rollout == "expand" and horizon > self.block else 1

        def forecast(rows: torch.Tensor) -> torch.Tensor:
            return roll_out(
                lambda context: self.model(context=context).quantile_preds,
                rows,
                horizon,
                kind=self.rollout,
                levels=self.quantile_levels,
                context_limit=self.context_limit,
            )

        return _by_rows(forecast, context, self.model.device, (len(self.quantile_levels), horizon), paths)

    @torch.no_grad()
    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Encode each context as the encoder's [REG] token.

        Args:
            context: [B, L] float32, oldest first.

        Returns:
            [B, D] float32, the last token of the encoder's output; unchanged by increasing affine maps of
            the context.

        Source:
            TS-Memory (arXiv 2602.11550), Eq. 4.
        """

        def encode(rows: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.model.encode(context=rows)[0]
            return tokens[:, -1]

        return _by_rows(encode, context, self.model.device, (self.model.config.d_model,))


@dataclass(frozen=True, eq=False)
class Chronos2:
    """Chronos-2: an encoder that forecasts up to 1024 steps in one call.

    `chronos-2` forecasts one channel at a time: contexts never share information (no group attention across
    rows), as channel independence demands. `chronos-2-multivariate` lets the channels of a window attend to
    each other, which is another protocol and is recorded under its own name; windows stay apart.

    Of the 21 native levels the nine deciles are kept as they are, then sorted. The tokens of all future
    patches attend to each other, so a longer horizon changes its own first steps: forecasts are not
    prefix-consistent, and each horizon needs its own pass.

    Attributes:
        name: Registry name.
        model: The frozen network, in eval mode.
        identity: Name, hash of weights and configuration, roll-out, adapter version.
        level_index: Positions of the deciles among the network's levels.
        block: Longest direct horizon, 1024 in the published checkpoint.
        channels: Consecutive rows that form a group, the channels of a window; 1 without group attention.

    Source:
        Ansari et al. (2025), Chronos-2: From Univariate to Universal Forecasting, arXiv 2510.15821;
        chronos-forecasting, Chronos2Pipeline with one variate, or with the channels as variates, and
        cross_learning off. Its roll-out beyond 1024 steps is not offered.
    """

    name: str
    model: Chronos2Model
    identity: str
    level_index: tuple[int, ...]
    block: int
    channels: int
    quantile_levels: ClassVar[tuple[float, ...]] = DECILES
    rollout: ClassVar[RollOut] = "direct"
    prefix_consistent: ClassVar[bool] = False

    @torch.no_grad()
    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        """Forecast all steps in one call; see `Forecaster.predict`.

        Raises:
            TsbenchError: The horizon is longer than one call reaches.
        """
        if horizon > self.block:
            raise TsbenchError(
                f"backbone '{self.name}' forecasts at most {self.block} steps; choose a shorter horizon"
            )
        patches = -(-horizon // self.model.chronos_config.output_patch_size)

        def forecast(rows: torch.Tensor) -> torch.Tensor:
            quantiles: torch.Tensor = self.model(
                context=rows, group_ids=self._groups(rows), num_output_patches=patches
            ).quantile_preds
            return quantiles[:, self.level_index, :horizon].sort(dim=1).values

        shape = (len(self.quantile_levels), horizon)
        return _by_rows(forecast, context, self.model.device, shape, multiple=self.channels)

    @torch.no_grad()
    def embed(self, context: torch.Tensor) -> torch.Tensor:
        """Encode each context as the encoder's [REG] token.

        Args:
            context: [B, L] float32, oldest first.

        Returns:
            [B, D] float32, the token between the context's patches and the one masked future patch.
        """

        def encode(rows: torch.Tensor) -> torch.Tensor:
            encoded = self.model.encode(context=rows, group_ids=self._groups(rows))[0]
            tokens: torch.Tensor = encoded.last_hidden_state
            return tokens[:, -2]

        shape = (self.model.config.d_model,)
        return _by_rows(encode, context, self.model.device, shape, multiple=self.channels)

    def _groups(self, rows: torch.Tensor) -> torch.Tensor:
        """Number of the window that each row belongs to [B]."""
        return torch.arange(len(rows), device=rows.device) // self.channels


def load_bolt(options: BackboneOptions) -> ChronosBolt:
    """Load chronos-bolt-tiny, -mini, -small or -base.

    Args:
        options: `rollout` is `median` (default) or `expand`; `checkpoint` defaults to the hub's amazon/NAME.

    Raises:
        TsbenchError: Device, roll-out or checkpoint cannot be used.
    """
    rollout = choose_rollout(options, "median", "expand")
    model = _load_model(options, "ChronosBoltModelForForecasting")
    settings = model.config.chronos_config
    return ChronosBolt(
        name=options.name,
        model=model,
        rollout="expand" if rollout == "expand" else "median",
        identity=_identity(options.name, model, rollout),
        quantile_levels=tuple(settings["quantiles"]),
        block=settings["prediction_length"],
        context_limit=settings["context_length"],
    )


def load_chronos2(options: BackboneOptions) -> Chronos2:
    """Load Chronos-2.

    Args:
        options: `checkpoint` defaults to the hub's amazon/chronos-2; there is one roll-out, `direct`.
            `channels` form a group.

    Raises:
        TsbenchError: Device or checkpoint cannot be used.
    """
    model = _load_model(options, "Chronos2Model")
    settings = model.chronos_config
    return Chronos2(
        name=options.name,
        model=model,
        identity=_identity(options.name, model, Chronos2.rollout),
        level_index=tuple(settings.quantiles.index(level) for level in DECILES),
        block=settings.max_output_patches * settings.output_patch_size,
        channels=options.channels,
    )


def _load_model(options: BackboneOptions, architecture: str) -> Any:
    from chronos import BaseChronosPipeline

    device = resolve_device(options.device)
    source = options.checkpoint or HUB_IDS[options.name]
    require_source(options.name, source)
    try:
        model = BaseChronosPipeline.from_pretrained(source, dtype=torch.float32).inner_model
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TsbenchError(
            f"cannot load '{options.name}' from '{source}': no readable checkpoint there, on disk or on the "
            "Hugging Face hub; give a downloaded copy with --checkpoint DIR"
        ) from error
    if type(model).__name__ != architecture:
        raise TsbenchError(
            f"'{source}' holds a {type(model).__name__}, but '{options.name}' needs a {architecture}; "
            "give another --checkpoint or --backbone"
        )
    return model.eval().requires_grad_(False).to(device)


def _identity(name: str, model: Any, rollout: RollOut) -> str:
    return f"{name}-{hash_weights(model, model.config.chronos_config)[:16]}-{rollout}-v1"


def _by_rows(
    function: Callable[[torch.Tensor], torch.Tensor],
    context: torch.Tensor,
    device: torch.device,
    shape: tuple[int, ...],
    paths: int = 1,
    multiple: int = 1,
) -> torch.Tensor:
    """Apply `function` to a few rows at a time on `device`; the result [B, *shape] stays with `context`."""
    rows = multiple * max(1, _ROWS_PER_CALL[device.type] // (paths * multiple))
    result = context.new_empty(len(context), *shape)
    for start in range(0, len(context), rows):
        result[start : start + rows] = function(context[start : start + rows].to(device))
    return result
