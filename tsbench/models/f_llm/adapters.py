"""F-LLM's comparison without feedback: a frozen language model with trained low-rank adapters (LoRA)."""

from typing import Any

from torch import Tensor, nn

from tsbench.models.f_llm.plant import FrozenDecoder
from tsbench.models.lora import adapted_copy, adapters

__all__ = ["AdaptedDecoder"]

# Query and value projections by `model_type`; GPT-2 has one layer for query, key and value.
_TARGETS = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"], "opt": ["q_proj", "v_proj"]}


class AdaptedDecoder(nn.Module):
    """Language model whose attention projections carry trainable low-rank adapters; they start at zero.

    W x becomes W x + (alpha / r) B A x with A and B in float32 and B = 0 at the start, so the untrained one
    is the frozen decoder. Its parameters and state dict are the adapters' alone. The language model given is
    left as it is: a copy is adapted, which shares its weights and takes no memory for them.

    Args:
        language_model: As for `FrozenDecoder`: a GPT2Model, OPTModel or LlamaModel.
        rank: Rank r.
        alpha: Scale alpha.

    Attributes:
        width: Width d of the vectors it reads and writes.

    Source: F-LLM (arXiv 2602.12756), Table 6, which gives neither rank nor layers; those here are the usual
    ones of LoRA (arXiv 2106.09685), by way of peft.
    """

    def __init__(self, language_model: nn.Module, rank: int = 8, alpha: int = 16) -> None:
        super().__init__()
        config: Any = language_model.config
        is_gpt2 = config.model_type == "gpt2"
        adapted = adapted_copy(
            language_model, _TARGETS[config.model_type], rank, alpha, fan_in_fan_out=is_gpt2
        )
        self._decoder = FrozenDecoder(adapted)
        self.width = self._decoder.width
        self.adapters = adapters(adapted).requires_grad_(True)

    def forward(self, tokens: Tensor, cache: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        """As `FrozenDecoder`."""
        return self._decoder(tokens, cache, use_cache)
