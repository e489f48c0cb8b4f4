"""Random language models of the published families, small enough for tests."""

from functools import cache
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 11,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
}
OPT = {
    "hidden_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 11,
    "max_position_embeddings": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 11, "n_positions": 64}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "opt-125m": ("OPT", OPT | {"word_embed_proj_dim": 32}),
    "opt-1.3b": ("OPT", OPT | {"word_embed_proj_dim": 16}),  # projections in and out, as in opt-350m
    "llama-2-7b": ("Llama", LLAMA),
}
TOKENS = torch.tensor([[1, 7, 3, 3, 9, 10, 4], [5, 0, 2, 8, 6, 1, 1]])


@cache
def causal_model(name: str) -> Any:
    """A random model with its head; weights as initialised hardly let tokens see each other."""
    prefix, settings = CONFIGS[name]
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    config = getattr(transformers, f"{prefix}Config")(**settings, **special)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind = "GPT2LMHeadModel" if prefix == "GPT2" else f"{prefix}ForCausalLM"
        model = getattr(transformers, kind)(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model
