"""The authors' own FLAME, `DecisionIntelligence/FLAME` on the Hugging Face hub, through its remote code."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.remote_code import RemoteSampler, load_network, sampler_identity
from tsbench.errors import TsbenchError


@dataclass(frozen=True, eq=False)
class FlameHub(RemoteSampler):
    """The published FLAME.

    Source:
        Model card of DecisionIntelligence/FLAME. The call is that of the same authors' Aurora, whose
        generation mixin the repository shares by name:
        generate(inputs [B, L], max_output_length=H, num_samples=n) -> [B, n, H]. It could not be tried on
        the real checkpoint.
    """

    horizon_argument: ClassVar[str] = "max_output_length"
    written_for: ClassVar[str] = "4.53"

    def embed(self, context: Tensor) -> Tensor:
        """The published model offers no embedding.

        Raises:
            TsbenchError: Always.
        """
        raise TsbenchError(f"backbone '{self.name}' has no encoder to retrieve with; use flame-small")


def load(options: BackboneOptions) -> FlameHub:
    """Load the published FLAME from the hub or a downloaded copy.

    Args:
        options: `checkpoint` is a hub id or a directory; None takes `DecisionIntelligence/FLAME`.

    Raises:
        TsbenchError: Remote code is not allowed, or the checkpoint cannot be loaded.
    """
    model = load_network(options, FlameHub.written_for)
    return FlameHub(options.name, model, sampler_identity(options.name, model), block=None)
