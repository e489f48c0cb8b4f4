"""Backbones that draw paths by Python code that comes with their checkpoint."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from torch import Tensor

from tsbench.backbones.base import DECILES, BackboneOptions, RollOut, hash_weights, resolve_device
from tsbench.backbones.hub import HUB_IDS, require_source
from tsbench.errors import TsbenchError

CONSENT = "TSBENCH_TRUST_REMOTE_CODE"
"""Environment variable that allows running Python code that comes with a checkpoint."""

_UNRELATED = ("_name_or_path", "transformers_version")  # of a configuration, to what is computed
_PATHS = 100
_ROWS_PER_CALL = 32


@dataclass(frozen=True, eq=False)
class RemoteSampler:
    """A network that draws paths by `generate`; its quantiles are those of 100 paths.

    Attributes:
        name: Registry name.
        model: The remote code's network, in evaluation mode, in fp32.
        identity: Name, hash of weights and configuration, number of paths, adapter version.
        block: Steps of the longest path; None when there is no bound.
        horizon_argument: What `generate` calls the number of steps.
        written_for: Version of transformers that the remote code is written for.
    """

    name: str
    model: Any
    identity: str
    block: int | None
    horizon_argument: ClassVar[str]
    written_for: ClassVar[str]
    rollout: ClassVar[RollOut] = "sample"
    quantile_levels: ClassVar[tuple[float, ...]] = DECILES
    prefix_consistent: ClassVar[bool] = False

    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Forecast empirical deciles of 100 paths, the same for equal contexts; see `Forecaster.predict`.

        Raises:
            TsbenchError: See `sample`.
        """
        levels = torch.tensor(self.quantile_levels, device=context.device)
        parts = [
            self.sample(rows, horizon, _PATHS, seed=0).quantile(levels, dim=1).movedim(0, 1)
            for rows in torch.split(context, _ROWS_PER_CALL)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def sample(self, context: Tensor, horizon: int, n: int, seed: int) -> Tensor:
        """Draw paths; see `SampleForecaster.sample`. Each row is drawn by itself from the same seed.

        Raises:
            TsbenchError: The horizon is longer than a path, or the remote code fails.
        """
        if self.block is not None and horizon > self.block:
            raise TsbenchError(
                f"backbone '{self.name}' draws paths of at most {self.block} steps; choose a shorter horizon"
            )
        settings = {self.horizon_argument: horizon, "num_samples": n}
        paths = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for row in context.to(self.device):
                torch.manual_seed(seed)
                with errors_in_one_line(f"cannot draw from '{self.name}'", self.written_for):
                    drawn = self.model.generate(inputs=row[None], **settings)
                paths.append(self._checked(drawn, n, horizon))
        return torch.cat(paths).float().to(context.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def _checked(self, drawn: Any, n: int, horizon: int) -> Tensor:
        shape = tuple(getattr(drawn, "shape", ()))
        if shape != (1, n, horizon):
            raise TsbenchError(
                f"backbone '{self.name}': generate() gave shape {shape}, not {(1, n, horizon)}; "
                "the checkpoint's code is of another version than this adapter"
            )
        return drawn  # type: ignore[no-any-return]


def load_network(options: BackboneOptions, written_for: str) -> Any:
    """Load a network together with its code, from the hub or a downloaded copy.

    Args:
        options: `checkpoint` is a hub id or a directory; None takes the published weights.
        written_for: Version of transformers that the remote code is written for, for the message.

    Returns:
        The frozen network in fp32 on the wanted device, in evaluation mode.

    Raises:
        TsbenchError: Remote code is not allowed, or the checkpoint cannot be loaded.
    """
    source = options.checkpoint or HUB_IDS[options.name]
    if os.environ.get(CONSENT) != "1":
        raise TsbenchError(
            f"backbone '{options.name}' runs Python code that comes with '{source}'; "
            f"read that code, then set {CONSENT}=1"
        )
    device = resolve_device(options.device)
    require_source(options.name, source)
    from transformers import AutoModelForCausalLM

    with errors_in_one_line(f"cannot load '{options.name}' from '{source}'", written_for):
        model: Any = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True)
    return model.float().eval().requires_grad_(False).to(device)


def sampler_identity(name: str, model: Any) -> str:
    """Content id of a sampler, the same for copies of a checkpoint; see `Backbone.identity`."""
    settings = {key: value for key, value in model.config.to_diff_dict().items() if key not in _UNRELATED}
    return f"{name}-{hash_weights(model, settings)[:16]}-sample{_PATHS}-v1"


@contextmanager
def errors_in_one_line(what: str, written_for: str) -> Iterator[None]:
    """Turn whatever remote code raises into one line that names the version of transformers it wants.

    Args:
        what: Beginning of the line, such as "cannot load 'flame-hub' from 'DIR'".
        written_for: Version of transformers.

    Raises:
        TsbenchError: The code raised anything.
    """
    try:
        yield
    except Exception as error:  # remote code may raise anything
        cause = " ".join(str(error).split())[:200]
        raise TsbenchError(
            f"{what}: {cause}; its code was written for transformers {written_for}, "
            f"{version('transformers')} is installed (see docs/install.md)"
        ) from error
