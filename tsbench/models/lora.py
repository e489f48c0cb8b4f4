"""Low-rank adapters (LoRA) in a copy of a frozen network, by way of peft."""

import copy
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

__all__ = ["adapted_copy", "adapters", "nearest_rank"]

Network = TypeVar("Network", bound=nn.Module)


def adapted_copy(
    network: Network, targets: Sequence[str], rank: int, alpha: int, fan_in_fan_out: bool = False
) -> Network:
    """Copy a frozen network and put trainable adapters, zero at the start, on some of its linear layers.

    W x becomes W x + (alpha / r) B A x with A and B in float32 and B = 0, so the untrained copy computes what
    the network does, bit for bit. The network is left as it is: the copy shares its weights and takes no
    memory for them. A is drawn from PyTorch's global generator.

    Args:
        network: Frozen network.
        targets: Ends of the dotted names of the layers to adapt, such as "q" or "attention.query".
        rank: Rank r.
        alpha: Scale alpha.
        fan_in_fan_out: Whether these layers keep their weight as [in, out], as GPT-2's do.

    Returns:
        The copy, in which the adapters alone require gradients.

    Source: Hu et al. 2021 (arXiv 2106.09685).
    """
    from peft import LoraConfig, inject_adapter_in_model

    weights = [*network.parameters(), *network.buffers()]
    adapted = copy.deepcopy(network, {id(tensor): tensor for tensor in weights})
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), fan_in_fan_out=fan_in_fan_out)
    # In a container: of a Hugging Face model peft itself would ask for embeddings, which Chronos-Bolt lacks.
    inject_adapter_in_model(lora, nn.Sequential(adapted))
    adapters(adapted).float()
    return adapted


def adapters(adapted: nn.Module) -> nn.ModuleList:
    """The pairs (A, B) of an adapted network, layer by layer."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    return nn.ModuleList(
        nn.ModuleList([layer.lora_A["default"], layer.lora_B["default"]]) for layer in layers
    )


def nearest_rank(network: nn.Module, targets: Sequence[str], budget: int) -> int:
    """The rank whose adapters come nearest to a number of parameters.

    Adapters of rank r hold r (in + out) parameters per layer. The rank is at least 1 and at most the smallest
    width of these layers, beyond which B A is no longer a restriction.

    Args:
        network: Network without adapters.
        targets: As for `adapted_copy`.
        budget: Number of parameters.
    """
    ends = tuple(f".{target}" for target in targets)
    layers = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and f".{name}".endswith(ends)
    ]
    per_rank = sum(layer.in_features + layer.out_features for layer in layers)
    full = min(min(layer.in_features, layer.out_features) for layer in layers)
    return min(max(1, round(budget / per_rank)), full)
