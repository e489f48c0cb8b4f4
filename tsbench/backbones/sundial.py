"""Sundial, `thuml/sundial-base-128m` on the Hugging Face hub, through its remote code."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.remote_code import (
    RemoteSampler,
    errors_in_one_line,
    load_network,
    sampler_identity,
)

_ROWS_PER_ENCODING = 64


@dataclass(frozen=True, eq=False)
class Sundial(RemoteSampler):
    """Sundial: a decoder-only Transformer whose next 720 steps are drawn by flow matching.

    The remote code normalises each context by its own mean and standard deviation. It feeds the median of
    the paths back beyond 720 steps; such paths would be no draws of one forecast, so they are not offered.

    Source:
        Liu et al. (2025), Sundial: A Family of Highly Capable Time Series Foundation Models, arXiv
        2502.00816; model card of thuml/sundial-base-128m:
        generate(inputs [B, L], max_new_tokens=H, num_samples=n) -> [B, n, H]. It could not be tried on the
        real checkpoint.
    """

    horizon_argument: ClassVar[str] = "max_new_tokens"
    written_for: ClassVar[str] = "4.40.1"

    @torch.no_grad()
    def embed(self, context: Tensor) -> Tensor:
        """Encode each context as the decoder's last token.

        Args:
            context: [B, L] float32, oldest first.

        Returns:
            [B, D] float32, the last hidden state at the context's last patch, of the context normalised as
            `generate` does it; unchanged by increasing affine maps of the context.

        Raises:
            TsbenchError: The remote code fails.
        """
        spread = context.std(dim=1, keepdim=True, correction=0) + 1e-5
        normalised = (context - context.mean(dim=1, keepdim=True)) / spread
        with errors_in_one_line(f"cannot embed with '{self.name}'", self.written_for):
            tokens = [
                self.model.base_model(input_ids=rows.to(self.device), use_cache=False, return_dict=True)
                for rows in torch.split(normalised, _ROWS_PER_ENCODING)
            ]
            return torch.cat([part.last_hidden_state[:, -1] for part in tokens]).to(context.device)


def load(options: BackboneOptions) -> Sundial:
    """Load Sundial from the hub or a downloaded copy.

    Args:
        options: `checkpoint` is a hub id or a directory; None takes `thuml/sundial-base-128m`.

    Raises:
        TsbenchError: Remote code is not allowed, or the checkpoint cannot be loaded or used under the
            installed transformers.
    """
    model = load_network(options, Sundial.written_for)
    with errors_in_one_line(f"cannot use '{options.name}'", Sundial.written_for):
        block = model.config.output_token_lens[-1]
    sundial = Sundial(options.name, model, sampler_identity(options.name, model), block)
    # Under another transformers it loads, its rotary embeddings may hold anything, and drawing fails.
    sundial.sample(torch.linspace(0, 1, 64)[None], horizon=1, n=1, seed=0)
    return sundial
