"""The networks that forecasters run: how many parameters they have, and running them compiled."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from tsbench.backbones.base import Backbone, Forecaster
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster
from tsbench.methods.online_retrieval import RetrievalForecaster, granular_keys


def networks(forecaster: Forecaster) -> list[nn.Module]:
    """Networks among a forecaster's attributes, or among those of an object that is one of them."""
    if isinstance(forecaster, FusedForecaster):
        return [*networks(forecaster.base), *networks(forecaster.companion)]
    found = []
    for value in vars(forecaster).values():
        within = [value] if isinstance(value, nn.Module) else getattr(value, "__dict__", {}).values()
        found += [each for each in within if isinstance(each, nn.Module)]
    return found


def parameter_count(forecaster: Forecaster) -> int | None:
    """Parameters of all networks, each once; None where none is in sight."""
    found = {id(weight): weight.numel() for each in networks(forecaster) for weight in each.parameters()}
    return sum(found.values()) or None


def require_compilable(backbone: Backbone, lookback: int) -> None:
    """Forecast once, to see whether calls of the backbone's networks can be compiled.

    Args:
        backbone: Not compiled yet.
        lookback: Context steps L.

    Raises:
        TsbenchError: It computes with a network's weights without calling the network.
    """
    found, called = networks(backbone), set[nn.Module]()
    if not found:
        return
    hooks = [network.register_forward_pre_hook(lambda module, _: called.add(module)) for network in found]
    backbone.predict(torch.linspace(0, 1, lookback)[None], 1)
    for hook in hooks:
        hook.remove()
    if called != set(found):
        raise TsbenchError(
            f"--compile does not reach the network of {backbone.name}, whose parts are evaluated one by one; "
            "leave it out"
        )


def compiled(forecasters: Mapping[str, Forecaster]) -> dict[str, Forecaster]:
    """The same forecasters with every network run through torch.compile, each from its next call on.

    Networks are changed in place, those that forecasters share once. A query's embedding is a pass of the
    encoder alone, no call of a network, so it is compiled as a function.
    """
    for network in {each for forecaster in forecasters.values() for each in networks(forecaster)}:
        network.compile()
    return {name: _with_compiled_embedding(forecaster) for name, forecaster in forecasters.items()}


def _with_compiled_embedding(forecaster: Forecaster) -> Forecaster:
    if not isinstance(forecaster, FusedForecaster):
        return forecaster
    retrieval = forecaster.companion
    if not isinstance(retrieval, RetrievalForecaster) or retrieval.memory.represent is granular_keys:
        return forecaster
    memory = replace(retrieval.memory, represent=torch.compile(retrieval.memory.represent))
    return replace(forecaster, companion=replace(retrieval, memory=memory))
