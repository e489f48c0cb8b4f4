"""Data sets of other packages, by entry point."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint

from tsbench.data.catalog import catalogue
from tsbench.data.dataset import Dataset
from tsbench.errors import TsbenchError
from tsbench.registry import installed_points


def plugin_points() -> dict[str, EntryPoint]:
    """Entry points of group `tsbench.datasets` by name; nothing is imported.

    Each names a function without arguments that returns a `Dataset`.

    Raises:
        TsbenchError: A name is taken, by the catalogue or by another package.
    """
    known = {name.lower() for name in [*catalogue().entries, *catalogue().groups]}
    found: dict[str, EntryPoint] = {}
    for point in installed_points("tsbench.datasets"):
        if point.name.lower() in known:
            raise TsbenchError(
                f"dataset '{point.name}' of package {provider(point)} has a name that is taken; uninstall it"
            )
        known.add(point.name.lower())
        found[point.name] = point
    return found


def provider(point: EntryPoint) -> str:
    """Name of the package that registered an entry point."""
    return point.dist.name if point.dist else "unknown"


def load_plugins(names: Iterable[str]) -> tuple[list[str], dict[str, Dataset]]:
    """Tell the data sets of other packages from those of the catalogue, and load them.

    Args:
        names: As typed.

    Returns:
        The names that no package registered; and the loaded data sets by name.

    Raises:
        TsbenchError: A package's data set cannot be loaded, or is no `Dataset` of that name.
    """
    points = plugin_points()
    asked = list(names)
    return [name for name in asked if name not in points], {
        name: _load(points[name]) for name in asked if name in points
    }


def _load(point: EntryPoint) -> Dataset:
    package = provider(point)
    try:
        dataset = point.load()()
    except Exception as error:  # another package's code may raise anything
        cause = " ".join(str(error).split()) or type(error).__name__
        raise TsbenchError(
            f"dataset '{point.name}' of package {package} cannot be loaded ({cause}); mend the package"
        ) from error
    if not isinstance(dataset, Dataset) or dataset.name != point.name:
        raise TsbenchError(
            f"dataset '{point.name}' of package {package} is not a Dataset of that name; mend the package"
        )
    return dataset
