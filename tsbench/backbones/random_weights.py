"""Backbones of their true shape with random weights, for timing alone: their forecasts mean nothing."""

import torch

from tsbench.backbones.base import Backbone, BackboneOptions, choose_rollout, resolve_device
from tsbench.backbones.chronos import wrap_bolt, wrap_chronos2
from tsbench.backbones.chronos_random import BOLT_SHAPES, random_bolt, random_chronos2
from tsbench.backbones.flame import make_backbone
from tsbench.errors import TsbenchError
from tsbench.models.flame.model import PRESETS, Flame

RANDOM_BACKBONES = (*BOLT_SHAPES, "chronos-2", *PRESETS)
"""Backbones whose shape is known without a checkpoint."""


def random_backbone(options: BackboneOptions) -> Backbone:
    """Make a backbone with the same random weights at every call.

    Args:
        options: `name` is one of `RANDOM_BACKBONES`; `checkpoint` plays no part.

    Returns:
        The backbone, whose name says that its weights are random.

    Raises:
        TsbenchError: Its shape is not known here, or device or roll-out cannot be used.
    """
    require_shape(options.name)
    device, rollout = resolve_device(options.device), choose_rollout(options, "median", "expand")
    name = f"{options.name} (random weights)"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if options.name in PRESETS:
            return make_backbone(name, Flame(PRESETS[options.name]).to(device), rollout)
        network = random_chronos2() if options.name == "chronos-2" else random_bolt(options.name)
    network = network.eval().requires_grad_(False).to(device)
    return wrap_chronos2(name, network) if options.name == "chronos-2" else wrap_bolt(name, network, rollout)


def require_shape(name: str) -> None:
    """Make sure that a backbone can be made without a checkpoint.

    Raises:
        TsbenchError: Its shape is not known here.
    """
    if name not in RANDOM_BACKBONES:
        raise TsbenchError(
            f"--random-init knows the shapes of {', '.join(RANDOM_BACKBONES)}, not of {name}; leave it out"
        )
