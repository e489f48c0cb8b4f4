"""Networks of the package neuralforecast, inside our windows, scaling, training and evaluation.

Only its layers are used: neither its Lightning trainer nor its data sets nor its scalers, of which
`local_scaler_type` would see the test rows.
"""

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from tsbench.backbones.architectures import LINEAR_RECIPE, LINEAR_RECIPE_OF, Architecture, Recipe, Shape
from tsbench.backbones.base import BackboneOptions
from tsbench.config import digest
from tsbench.errors import TsbenchError

_ROWS_PER_CALL = 512
_LEAST_VARIANCE = 1e-5  # added to that of a context, as in Time-Series-Library
_LIGHTNING_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
_LIGHTNING_LOGGER = "lightning_fabric.utilities.seed"
_LATER_FIELDS = ("embedded", "standardised")  # unset, they leave the identities of older results valid


@dataclass(frozen=True)
class _Entry:
    """A network of the package and how the literature trains it, both on ETTh1 or on an unknown data set.

    Attributes:
        model: Class in `neuralforecast.models`.
        settings: Its arguments.
        recipe: How it is trained.
        settings_of: Arguments that differ, by data set.
        recipe_of: Fields of the recipe that differ, by data set.
        multivariate: Whether it takes all channels of a window together; else each is a window of its own.
        embedded: Whether the package has it for single series only, and its embedding and projection are
            replaced by those of all channels.
        standardised: Whether contexts are standardised inside the network, channel by channel, where the
            package leaves that out.
        alone: Whether it forecasts windows one by one, as it would mix those of one call.
        multiple: Number that the lookback must be divisible by.
    """

    model: str
    settings: dict[str, Any]
    recipe: Recipe
    settings_of: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe_of: dict[str, dict[str, Any]] = field(default_factory=dict)
    multivariate: bool = False
    embedded: bool = False
    standardised: bool = False
    alone: bool = False
    multiple: int = 1


def _patchtst(width: int, heads: int, inner: int, dropout: float) -> dict[str, Any]:
    return {"hidden_size": width, "n_heads": heads, "linear_hidden_size": inner, "dropout": dropout}


def _square(width: int, layers: int = 2) -> dict[str, Any]:
    return {"hidden_size": width, "d_ff": width, "e_layers": layers}


def _times(width: int, inner: int) -> dict[str, Any]:
    return {"hidden_size": width, "conv_hidden_size": inner}


_PATCHTST_LARGE = _patchtst(128, 16, 256, 0.2)
_ONE_RATE = {"learning_rates": (1e-4,)}
_TRANSFORMER = {
    "hidden_size": 512,
    "conv_hidden_size": 2048,
    "n_head": 8,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "dropout": 0.05,
}
_USUAL_RECIPE = Recipe(
    learning_rates=(1e-4,), batch_windows=32, schedule="late-halving", epochs=10, patience=3
)

_ENTRIES = {
    # PatchTST/64 (arXiv 2211.14730): the authors' scripts, whose lookback is 336, at the paper's 512. RevIN
    # by the mean, without weights; the library's default subtracts the last value. Their schedules, a slow
    # decay or one cycle over 100 epochs, do not fit fewer epochs: here it is the cosine.
    "patchtst": _Entry(
        "PatchTST",
        _patchtst(16, 4, 128, 0.3)
        | {"encoder_layers": 3, "patch_len": 16, "stride": 8}
        | {"revin": True, "revin_affine": False, "revin_subtract_last": False},
        Recipe(learning_rates=(1e-4, 1e-3), batch_windows=128, schedule="cosine", epochs=100, patience=20),
        {"ILI": {"patch_len": 24, "stride": 2}}
        | dict.fromkeys(("ETTm1", "ETTm2", "Weather", "Electricity", "Traffic"), _PATCHTST_LARGE),
        {
            **dict.fromkeys(("ETTm1", "ETTm2", "Weather"), _ONE_RATE),
            "Electricity": _ONE_RATE | {"batch_windows": 32, "patience": 10},
            "Traffic": _ONE_RATE | {"batch_windows": 24, "patience": 10},
            "ILI": {"learning_rates": (2.5e-3,), "batch_windows": 16},
        },
    ),
    # NLinear (arXiv 2205.13504).
    "nlinear": _Entry("NLinear", {}, LINEAR_RECIPE, recipe_of=LINEAR_RECIPE_OF),
    # iTransformer (arXiv 2310.06625): the authors' scripts for H = 96.
    "itransformer": _Entry(
        "iTransformer",
        _square(256) | {"n_heads": 8, "dropout": 0.1, "factor": 1, "use_norm": True},
        replace(_USUAL_RECIPE, learning_rates=(1e-4, 1e-3)),
        {
            **dict.fromkeys(("ETTh2", "ETTm1", "ETTm2", "Exchange"), _square(128)),
            **dict.fromkeys(("Weather", "Electricity"), _square(512, layers=3)),
            "Traffic": _square(512, layers=4),
        },
        {
            "Weather": _ONE_RATE,
            "Electricity": {"learning_rates": (5e-4,), "batch_windows": 16},
            "Traffic": {"learning_rates": (1e-3,), "batch_windows": 16},
        },
        multivariate=True,
    ),
    # TimesNet (arXiv 2210.02186): its authors' Time-Series-Library, scripts for H = 96. All channels share an
    # embedding, and contexts are standardised inside, as there. The periods are those of the mean spectrum of
    # a call.
    "timesnet": _Entry(
        "TimesNet",
        _times(16, 32) | {"encoder_layers": 2, "top_k": 5, "num_kernels": 6, "dropout": 0.1},
        _USUAL_RECIPE,
        {
            **dict.fromkeys(("ETTh2", "ETTm2", "Weather"), _times(32, 32)),
            **dict.fromkeys(("ETTm1", "Exchange"), _times(64, 64)),
            "Electricity": _times(256, 512),
            "Traffic": _times(512, 512),
            "ILI": _times(768, 768),
        },
        multivariate=True,
        embedded=True,
        standardised=True,
        alone=True,
    ),
    # TimeMixer (arXiv 2405.14616): scripts in Time-Series-Library for H = 96.
    "timemixer": _Entry(
        "TimeMixer",
        {
            "d_model": 16,
            "d_ff": 32,
            "e_layers": 2,
            "down_sampling_layers": 3,
            "down_sampling_window": 2,
            "down_sampling_method": "avg",
            "channel_independence": 1,
            "moving_avg": 25,
            "dropout": 0.1,
            "use_norm": True,
        },
        Recipe(learning_rates=(1e-2,), batch_windows=128, schedule="late-halving", epochs=10, patience=10),
        {
            "ETTm2": {"d_model": 32},
            "Weather": {"e_layers": 3},
            "Electricity": {"e_layers": 3},
            "Traffic": {"d_model": 32, "d_ff": 64, "e_layers": 3},
        },
        {
            "ETTh2": {"batch_windows": 32, "patience": 3},
            "ETTm1": {"batch_windows": 16, "patience": 3},
            "ETTm2": {"patience": 3},
            "Weather": {"epochs": 20},
            "Electricity": {"epochs": 20, "batch_windows": 32},
            "Traffic": {"batch_windows": 8, "patience": 3},
        },
        multivariate=True,
        multiple=2**3,
    ),
    # FEDformer (arXiv 2201.12740), Informer (arXiv 2012.07436) and Autoformer (arXiv 2106.13008), as the
    # authors of FEDformer run all three. Their moving average has 24 steps; an odd number keeps the length.
    "fedformer": _Entry(
        "FEDformer",
        _TRANSFORMER | {"modes": 64, "mode_select": "random", "MovingAvg_window": 25},
        _USUAL_RECIPE,
        recipe_of={"Traffic": {"epochs": 3}},
    ),
    "informer": _Entry(
        "Informer",
        _TRANSFORMER | {"factor": 3, "distil": True},
        _USUAL_RECIPE,
        recipe_of={"Traffic": {"epochs": 3}},
    ),
    "autoformer": _Entry(
        "Autoformer",
        _TRANSFORMER | {"factor": 3, "MovingAvg_window": 25},
        _USUAL_RECIPE,
        recipe_of={"Traffic": {"epochs": 3}},
    ),
}


class Network(nn.Module):
    """A model of the package between contexts and forecasts of windows.

    In evaluation mode a forecast depends on its own window alone, and repeats: windows go through in small
    parts, and what Informer draws at random, the keys it measures a query by, is drawn from one seed.

    Args:
        model: Takes and gives [rows, steps, 1], or [w, steps, C] if multivariate.
        multivariate: Whether the model takes all channels of a window together.
        standardised: Whether the model sees contexts of mean 0 and variance 1; its forecasts are put back.
        alone: Whether windows are forecast one by one.
    """

    def __init__(self, model: nn.Module, multivariate: bool, standardised: bool, alone: bool) -> None:
        super().__init__()
        self.model = model
        self.multivariate = multivariate
        self.standardised = standardised
        self.alone = alone

    def forward(self, context: Tensor) -> Tensor:
        """Forecast [w, C, H] of contexts [w, C, L]."""
        if self.training:
            return self._forecast(context)
        windows = 1 if self.alone else max(1, _ROWS_PER_CALL // context.shape[1])
        parts = []
        with torch.random.fork_rng(devices=[]):
            for part in torch.split(context, windows):
                torch.default_generator.manual_seed(0)
                parts.append(self._forecast(part))
        return torch.cat(parts)

    def _forecast(self, context: Tensor) -> Tensor:
        if not self.standardised:
            return self._run(context)
        mean = context.mean(dim=-1, keepdim=True)
        scale = (context.var(dim=-1, keepdim=True, correction=0) + _LEAST_VARIANCE).sqrt()
        return self._run((context - mean) / scale) * scale + mean

    def _run(self, context: Tensor) -> Tensor:
        rows = context.transpose(1, 2) if self.multivariate else context.flatten(0, 1).unsqueeze(-1)
        batch = {"insample_y": rows, "insample_mask": torch.ones_like(rows)}
        nothing = dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))
        forecast = cast("Tensor", self.model(batch | nothing))
        return forecast.transpose(1, 2) if self.multivariate else forecast.view(*context.shape[:2], -1)


class _Complex(nn.Module):
    """A complex parameter, kept as a real one with a last axis of two."""

    def forward(self, pairs: Tensor) -> Tensor:
        return torch.view_as_complex(pairs)

    def right_inverse(self, values: Tensor) -> tuple[Tensor]:
        return (torch.view_as_real(values),)


class MergedKernels(nn.Module):
    """TimesNet's mean of convolutions of several widths, as one convolution by the mean of their kernels.

    Convolution is linear in its kernel, so the values are the package's up to rounding, and so are the
    gradients. Six kernels have 286 places, their mean has the 121 of the widest, less what lies beyond the
    rows' edges from everywhere: torch is slow where a kernel is wider than what it passes over.

    Args:
        kernels: Square convolutions of ascending odd widths, padded to keep the shape.
    """

    def __init__(self, kernels: nn.ModuleList) -> None:
        super().__init__()
        self.kernels = kernels

    def forward(self, rows: Tensor) -> Tensor:
        """[n, out, a, b] of [n, in, a, b]."""
        kernels = [cast("nn.Conv2d", kernel) for kernel in self.kernels]
        widest = kernels[-1].kernel_size[0]
        padded = [functional.pad(each.weight, [(widest - each.kernel_size[0]) // 2] * 4) for each in kernels]
        bias = torch.stack([cast("Tensor", each.bias) for each in kernels]).mean(dim=0)
        half = widest // 2
        down, across = (min(half, steps - 1) for steps in rows.shape[-2:])
        inside = torch.stack(padded).mean(dim=0)[
            ..., half - down : half + down + 1, half - across : half + across + 1
        ]
        return functional.conv2d(rows, inside, bias, padding=(down, across))


def load(options: BackboneOptions) -> Architecture:
    """An architecture of the package; the table in this module has its settings and their sources."""
    entry = _ENTRIES[options.name]
    settings = {name: value for name, value in asdict(entry).items() if value or name not in _LATER_FIELDS}
    content = digest([settings])[:8]
    return Architecture(
        options.name,
        partial(_build, options.name, entry),
        lambda shape: replace(entry.recipe, **entry.recipe_of.get(shape.dataset, {})),
        f"{options.name}-neuralforecast-{version('neuralforecast')}-{content}",
    )


def _build(name: str, entry: _Entry, shape: Shape) -> Network:
    """The untrained network; the package seeds every generator, so torch's own seed is handed on to it.

    Raises:
        TsbenchError: The lookback does not suit the network.
    """
    if shape.lookback % entry.multiple:
        raise TsbenchError(
            f"{name} halves its context and needs a lookback divisible by {entry.multiple}, not "
            f"{shape.lookback}; use --lookback {-(-shape.lookback // entry.multiple) * entry.multiple}"
        )
    settings = entry.settings | entry.settings_of.get(shape.dataset, {})
    if entry.multivariate and not entry.embedded:
        settings["n_series"] = shape.channels
    seed = torch.initial_seed() % 2**32
    with _undisturbed():
        from neuralforecast import models
        from neuralforecast.losses.pytorch import MSE
        from neuralforecast.models.timesnet import Inception_Block_V1

        model = getattr(models, entry.model)(
            h=shape.horizon,
            input_size=shape.lookback,
            loss=MSE(),
            scaler_type="identity",
            random_seed=seed,
            **settings,
        )
        if entry.embedded:
            _embed_together(model, shape.channels)
    for module in list(model.modules()):
        for place, part in list(module.named_children()):
            if isinstance(part, Inception_Block_V1):
                setattr(module, place, MergedKernels(part.kernels))
    # FEDformer's complex weights; fused AdamW takes real ones only.
    for module in list(model.modules()):
        names = [name for name, value in module.named_parameters(recurse=False) if value.is_complex()]
        for parameter in names:
            parametrize.register_parametrization(module, parameter, _Complex())
    return Network(model, entry.multivariate, entry.standardised, entry.alone)


def _embed_together(model: nn.Module, channels: int) -> None:
    """Replace the first and the last layer of a network for single series by those of all channels."""
    from neuralforecast.common._modules import TokenEmbedding

    network = cast("Any", model)
    width = network.projection.in_features
    network.enc_embedding.value_embedding = TokenEmbedding(channels, width)
    network.projection = nn.Linear(width, channels)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Undo what importing and building a model does to the process: random states, variables, a log line."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the package uses the global one)
    variables = {name: os.environ.get(name) for name in _LIGHTNING_VARIABLES}
    logger = logging.getLogger(_LIGHTNING_LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logger.setLevel(level)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
