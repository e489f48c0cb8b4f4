"""Chronos networks of the published shapes with random weights, to measure what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tsbench.backbones.base import DECILES

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model
    from chronos.chronos_bolt import ChronosBoltModelForForecasting

BOLT_SHAPES = {
    "chronos-bolt-tiny": (256, 1_024, 4, 4),
    "chronos-bolt-mini": (384, 1_536, 4, 8),
    "chronos-bolt-small": (512, 2_048, 6, 8),
    "chronos-bolt-base": (768, 3_072, 12, 12),
}
"""Width, feed-forward width, layers of encoder and of decoder, heads."""

_CHRONOS_2_LEVELS = (0.01, *(step / 20 for step in range(1, 20)), 0.99)


def random_bolt(name: str) -> ChronosBoltModelForForecasting:
    """A Chronos-Bolt with weights from PyTorch's global generator.

    Args:
        name: Key of `BOLT_SHAPES`.

    Source:
        The shapes of amazon/chronos-bolt-*: those of T5-Efficient tiny, mini, small and base. They give 8.7,
        21.2, 47.7 and 205.3 million parameters, as published.
    """
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    width, feed_forward, layers, heads = BOLT_SHAPES[name]
    settings: dict[str, Any] = {
        "vocab_size": 2,
        "d_model": width,
        "d_kv": 64,
        "d_ff": feed_forward,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "relu",
        "initializer_factor": 0.05,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "chronos_config": {
            "context_length": 2_048,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "prediction_length": 64,
            "quantiles": list(DECILES),
            "use_reg_token": True,
        },
    }
    return ChronosBoltModelForForecasting(T5Config(**settings))


def random_chronos2() -> Chronos2Model:
    """A Chronos-2 with weights from PyTorch's global generator.

    Source:
        The shape of amazon/chronos-2. It gives 119.5 million parameters; 120 are published.
    """
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    config = Chronos2CoreConfig(
        d_model=768,
        d_kv=64,
        d_ff=3_072,
        num_layers=12,
        num_heads=12,
        chronos_config={
            "context_length": 8_192,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "output_patch_size": 16,
            "max_output_patches": 64,
            "quantiles": list(_CHRONOS_2_LEVELS),
            "use_reg_token": True,
            "use_arcsinh": True,
            "time_encoding_scale": 8_192,
        },
    )
    return Chronos2Model(config)
