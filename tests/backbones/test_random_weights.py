"""Random weights of true shapes: published sizes, repeatable, labelled, and only where the shape is known."""

import pytest
import torch

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.chronos_random import random_bolt, random_chronos2
from tsbench.backbones.random_weights import random_backbone
from tsbench.errors import TsbenchError

pytest.importorskip("chronos")


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("chronos-bolt-tiny", 9),
        ("chronos-bolt-mini", 21),
        ("chronos-bolt-small", 48),
        ("chronos-bolt-base", 205),
        ("chronos-2", 119),
    ],
)
def test_shapes_have_the_published_number_of_parameters(name: str, millions: int) -> None:
    with torch.device("meta"):
        network = random_chronos2() if name == "chronos-2" else random_bolt(name)
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6) == millions


def test_lora_on_chronos_bolt_base_has_the_parameters_per_rank_of_its_attention() -> None:
    with torch.device("meta"):
        network = random_bolt("chronos-bolt-base")
    ends = (".q", ".k", ".v", ".o")
    layers = [module for name, module in network.named_modules() if name.endswith(ends)]
    assert sum(layer.in_features + layer.out_features for layer in layers) == 221_184


@pytest.mark.parametrize("name", ["chronos-bolt-tiny", "flame-base"])
def test_weights_repeat_forecasts_stay_finite_and_the_name_says_random(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1, 96, generator=generator).cumsum(1)
    state = torch.get_rng_state()
    first, second = (random_backbone(BackboneOptions(name)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.name == f"{name} (random weights)"
    assert first.identity == second.identity
    forecast = first.predict(context, 720)
    assert torch.equal(forecast, second.predict(context, 720))
    assert forecast.isfinite().all()


def test_a_backbone_of_unknown_shape_is_refused() -> None:
    with pytest.raises(TsbenchError, match="not of fracast"):
        random_backbone(BackboneOptions("fracast"))
