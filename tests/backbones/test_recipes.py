"""A changed training recipe must not pass for the one that stored results were made with."""

from dataclasses import asdict

import pytest

from tsbench.backbones.architectures import Shape
from tsbench.backbones.base import BackboneOptions
from tsbench.config import digest
from tsbench.registry import find, load_backbone

LONG = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "Weather", "Electricity", "Traffic", "ILI")
RECIPES = {
    "dlinear": (2, "8badde1b"),
    "nlinear": (2, "f57a29d4"),
    "patchtst": (1, "bfad26ce"),
    "itransformer": (2, "55d5f3cf"),
    "timesnet": (3, "da3b43f8"),
    "timemixer": (2, "1029eb87"),
    "fedformer": (2, "f57966bc"),
    "informer": (2, "3214a3ba"),
    "autoformer": (2, "150b9d9a"),
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
