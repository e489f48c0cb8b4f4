"""Methods as they forecast, but without their training: what a query costs does not depend on it."""

from collections.abc import Callable

import torch

from tsbench.backbones.base import resolve_device
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.choices import TimingPrecision
from tsbench.methods.fusion import FusedForecaster, median_levels
from tsbench.methods.lora import adapted_network, matched_rank, with_network
from tsbench.methods.online_retrieval import OnlineMemory, RetrievalForecaster
from tsbench.methods.retrieval_fusion import raft_memory, ts_rag_memory
from tsbench.methods.task import Fitted, Task
from tsbench.methods.ts_memory.distillation import PlugMemForecaster
from tsbench.models.lora import adapters
from tsbench.models.plugmem import PlugMem, PlugMemConfig

UNTRAINED = ("origin", "raft", "ts-rag", "lora", "ts-memory")
"""Methods that `untrained` makes."""

FUSION_WEIGHT = 0.5
NEIGHBOURS = 20
TEMPERATURE = 0.1


def untrained(task: Task, frozen: FrozenBackbone, precision: TimingPrecision) -> Fitted:
    """Make the forecaster that the cell's method would end in, with the weights it would start from.

    PlugMem and LoRA's adapters have the size they would be trained in and random weights; the adapters are
    not merged, as they are not where the method is evaluated. RAFT and TS-RAG search their real knowledge
    base, for 20 neighbours. All fuse at α = 0.5: what validation would choose changes no operation, except
    that α = 0 or a LoRA that does not help would cost what the backbone costs.

    Args:
        task: The cell, of a method in `UNTRAINED`; the profile bounds the knowledge base and says the size
            of PlugMem.
        frozen: The backbone over its data.
        precision: Of PlugMem.

    Returns:
        The forecaster, with the settings above as diagnostics.

    Raises:
        TsbenchError: The backbone has no median forecast, no encoder, or cannot be adapted.
    """
    method = task.spec.method
    if method == "origin":
        return Fitted(frozen.backbone)
    if method == "lora":
        return _lora(task, frozen)
    levels = median_levels(frozen.backbone, method)
    if method == "ts-memory":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.spec.seed)
            spec = task.spec
            config = PlugMemConfig.preset(task.profile.plugmem, spec.lookback, spec.horizon, len(levels))
            network = PlugMem(config).eval().requires_grad_(False).to(resolve_device(spec.device))
        companion = PlugMemForecaster(network, levels, precision)
        return Fitted(
            FusedForecaster(frozen.backbone, companion, FUSION_WEIGHT), {"fusion_weight": FUSION_WEIGHT}
        )
    memories: dict[str, Callable[[Task, FrozenBackbone], OnlineMemory]] = {
        "raft": raft_memory,
        "ts-rag": ts_rag_memory,
    }
    memory = memories[method](task, frozen)
    retrieval = RetrievalForecaster(memory, levels, NEIGHBOURS, TEMPERATURE, method)
    return Fitted(
        FusedForecaster(frozen.backbone, retrieval, FUSION_WEIGHT, "retrieval"),
        {
            "fusion_weight": FUSION_WEIGHT,
            "neighbours": float(NEIGHBOURS),
            "known_windows": float(len(memory.base.starts)),
            "known_mb": memory.base.embeddings.nbytes / 2**20,
        },
    )


def _lora(task: Task, frozen: FrozenBackbone) -> Fitted:
    rank = matched_rank(task, frozen.backbone)
    network = adapted_network(task, frozen.backbone, rank)
    size = sum(parameter.numel() for parameter in adapters(network).parameters())
    return Fitted(
        with_network(frozen.backbone, network.eval().requires_grad_(False), "untrained"),
        {"lora_rank": float(rank), "lora_parameters": float(size)},
    )
