"""From what a user asks for to the list of cells."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from pydantic import ValidationError

from tsbench.config import CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.errors import TsbenchError
from tsbench.registry import find


def cells(
    *,
    method: str,
    backbone: str,
    datasets: Iterable[str],
    horizons: Iterable[int],
    seeds: Iterable[int],
    variants: Sequence[TsMemoryOptions | None],
    **common: Any,
) -> list[CellSpec]:
    """Every combination, data set by data set, the longest horizon first so that shorter ones reuse its pass.

    Args:
        method: Name or alias of a method.
        backbone: Name or alias of a backbone.
        datasets: Names of data sets.
        horizons: Forecast steps.
        seeds: Seeds.
        variants: TS-Memory settings; (None,) for other methods.
        **common: Further fields that all cells share.

    Raises:
        TsbenchError: A name is unknown or a value out of range.
    """
    names = {"method": find("method", method).name, "backbone": find("backbone", backbone).name}
    grid = product(datasets, sorted(horizons, reverse=True), seeds, variants)
    try:
        return [
            CellSpec(**names, dataset=dataset, horizon=horizon, seed=seed, options=variant, **common)
            for dataset, horizon, seed, variant in grid
        ]
    except ValidationError as error:
        raise _first_mistake(error) from error


def variants(
    *, exclusions: Iterable[str], ablations: Iterable[str], **shared: Any
) -> tuple[TsMemoryOptions, ...]:
    """TS-Memory's settings for every combination of exclusion rule and ablation.

    The no-retrieval control has no teacher and no recipe, so neither multiplies it.

    Args:
        exclusions: Values of `TeacherOptions.exclusion`.
        ablations: Values of `TsMemoryOptions.ablation`.
        **shared: Further fields of `TsMemoryOptions`.

    Raises:
        TsbenchError: A value is out of range.
    """
    found: dict[TsMemoryOptions, None] = {}
    try:
        for ablation, exclusion in product(ablations, exclusions):
            fields: dict[str, Any] = {**shared, "ablation": ablation}
            if ablation == "no-retrieval":
                fields.pop("recipe", None)
            else:
                fields["teacher"] = TeacherOptions.model_validate({"exclusion": exclusion})
            found[TsMemoryOptions.model_validate(fields)] = None
    except ValidationError as error:
        raise _first_mistake(error) from error
    return tuple(found)


def _first_mistake(error: ValidationError) -> TsbenchError:
    mistake = error.errors()[0]
    where = ".".join(str(part) for part in mistake["loc"])
    said = mistake["msg"].lower()
    return TsbenchError(f"{where} is {mistake['input']!r}: {said}; give another value")
