"""A changed training recipe must not pass for the one that stored results were made with."""

from dataclasses import asdict

import pytest

from tsbench.backbones.architectures import Shape
from tsbench.backbones.base import BackboneOptions
from tsbench.config import digest
from tsbench.registry import find, load_backbone

LONG = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "Weather", "Electricity", "Traffic", "ILI")
RECIPES = {
    "dlinear": (1, "4a3cc096"),
    "nlinear": (1, "27de603a"),
    "patchtst": (1, "bfad26ce"),
    "itransformer": (1, "d5a513b0"),
    "timesnet": (2, "cbd96407"),
    "timemixer": (1, "398a89b2"),
    "fedformer": (1, "d573435b"),
    "informer": (1, "ca95c747"),
    "autoformer": (1, "dc7e8d88"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_whoever_changes_a_recipe_raises_its_revision(name: str) -> None:
    """If this fails, raise the entry's `revision` in the registry and put the new pair here."""
    entry = find("backbone", name)
    if entry.requires is not None:
        pytest.importorskip(entry.requires.module)
    architecture = load_backbone(BackboneOptions(name))
    shapes = [Shape(512, 96, 7, dataset) for dataset in ("demo", *LONG)]
    settings = architecture.identity.rpartition("-")[2]  # without the version of the package
    content = [asdict(architecture.recipe(shape)) for shape in shapes], settings
    assert (entry.revision, digest(content)[:8]) == RECIPES[name]
