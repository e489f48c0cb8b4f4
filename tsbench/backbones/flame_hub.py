"""The authors' own FLAME, `DecisionIntelligence/FLAME` on the Hugging Face hub, through its remote code."""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tsbench.backbones.base import DECILES, BackboneOptions, RollOut, hash_weights, resolve_device
from tsbench.backbones.hub import require_source
from tsbench.errors import TsbenchError

HUB_ID = "DecisionIntelligence/FLAME"
CONSENT = "TSBENCH_TRUST_REMOTE_CODE"
"""Environment variable that allows running Python code that comes with a checkpoint."""

_PATHS = 100
_ROWS_PER_CALL = 32


@dataclass(frozen=True, eq=False)
class FlameHub:
    """The published FLAME; its quantiles are those of 100 sampled paths.

    Attributes:
        name: Registry name.
        model: The remote code's network, in evaluation mode.
        identity: Name, hash of weights and configuration, adapter version.

    Source:
        Model card of DecisionIntelligence/FLAME. The call is that of the same authors' Aurora, whose
        generation mixin the repository shares by name:
        generate(inputs [B, L], max_output_length=H, num_samples=n) -> [B, n, H]. It could not be tried on
        the real checkpoint.
    """

    name: str
    model: Any
    identity: str
    block: ClassVar[int | None] = None
    rollout: ClassVar[RollOut] = "sample"
    quantile_levels: ClassVar[tuple[float, ...]] = DECILES
    prefix_consistent: ClassVar[bool] = False

    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Forecast empirical deciles of 100 paths, the same for equal contexts; see `Forecaster.predict`."""
        levels = torch.tensor(self.quantile_levels, device=context.device)
        parts = [
            self.sample(rows, horizon, _PATHS, seed=0).quantile(levels, dim=1).movedim(0, 1)
            for rows in torch.split(context, _ROWS_PER_CALL)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def sample(self, context: Tensor, horizon: int, n: int, seed: int) -> Tensor:
        """Draw paths; see `SampleForecaster.sample`. Each row is drawn by itself from the same seed."""
        device = next(self.model.parameters()).device
        paths = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for row in context.to(device):
                torch.manual_seed(seed)
                drawn = self.model.generate(inputs=row[None], max_output_length=horizon, num_samples=n)
                paths.append(self._checked(drawn, n, horizon))
        return torch.cat(paths).float().to(context.device)

    def embed(self, context: Tensor) -> Tensor:
        """The published model offers no embedding.

        Raises:
            TsbenchError: Always.
        """
        raise TsbenchError(f"backbone '{self.name}' has no encoder to retrieve with; use flame-small")

    def _checked(self, drawn: Any, n: int, horizon: int) -> Tensor:
        shape = tuple(getattr(drawn, "shape", ()))
        if shape != (1, n, horizon):
            raise TsbenchError(
                f"backbone '{self.name}': generate() gave shape {shape}, not {(1, n, horizon)}; "
                "the checkpoint's code is of another version than this adapter"
            )
        return drawn  # type: ignore[no-any-return]


def load(options: BackboneOptions) -> FlameHub:
    """Load the published FLAME from the hub or a downloaded copy.

    Args:
        options: `checkpoint` is a hub id or a directory; None takes `DecisionIntelligence/FLAME`.

    Raises:
        TsbenchError: Remote code is not allowed, or the checkpoint cannot be loaded.
    """
    source = options.checkpoint or HUB_ID
    if os.environ.get(CONSENT) != "1":
        raise TsbenchError(
            f"backbone '{options.name}' runs Python code that comes with '{source}'; "
            f"read that code, then set {CONSENT}=1"
        )
    device = resolve_device(options.device)
    require_source(options.name, source)
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True, dtype=torch.float32)
    except Exception as error:  # remote code may raise anything
        cause = " ".join(str(error).split())[:200]
        raise TsbenchError(
            f"cannot load '{options.name}' from '{source}': {cause}; it was written for transformers 4.53"
        ) from error
    weights = hash_weights(model, model.config.to_diff_dict())[:16]
    return FlameHub(
        name=options.name,
        model=model.eval().requires_grad_(False).to(device),
        identity=f"{options.name}-{weights}-sample{_PATHS}-v1",
    )
