"""From what a user asks for to the list of cells."""

from collections.abc import Collection, Iterable, Sequence
from itertools import product
from typing import Any

from tsbench.bench.mistakes import Mistakes
from tsbench.config import CellSpec, TeacherOptions, TsMemoryOptions
from tsbench.data.catalog import resolve
from tsbench.errors import TsbenchError
from tsbench.registry import Kind, find


def cells(
    *,
    method: str,
    backbone: str | None,
    datasets: Iterable[str],
    horizons: Iterable[int],
    seeds: Iterable[int],
    variants: Sequence[TsMemoryOptions | None],
    fine_tune: bool = False,
    own_data: Collection[str] = (),
    **common: Any,
) -> list[CellSpec]:
    """Every combination, data set by data set, the longest horizon first so that shorter ones reuse its pass.

    Where nothing is trained (Origin), seed and precision change no forecast: there is one cell for all of
    them, with seed 0, which is also that of its sampled paths.

    Args:
        method: Name or alias of a method.
        backbone: Name or alias of a backbone; None takes flame-small for FLAME and fracast for others.
        datasets: Names of data sets or groups of the catalogue.
        horizons: Forecast steps.
        seeds: Seeds.
        variants: TS-Memory settings; (None,) for other methods.
        fine_tune: Train FLAME on the data set. Zero-shot, FLAME is its backbone as it is: an Origin cell.
        own_data: Names of data sets that are not in the catalogue.
        **common: Further fields that all cells share.

    Raises:
        TsbenchError: Names are unknown or values out of range; one line per mistake.
    """
    mistakes = Mistakes()
    names: dict[Kind, str] = {
        "method": method,
        "backbone": backbone or ("flame-small" if method == "flame" else "fracast"),
    }
    for kind, typed in names.items():
        with mistakes.noting():
            names[kind] = find(kind, typed).name
    members = []
    for name in datasets:
        with mistakes.noting():
            members += [entry.name for entry in resolve([name])]
    with mistakes.noting():
        names["method"] = _trained_method(names, fine_tune)
    if names["method"] == "origin":
        seeds, common = (0,), common | {"precision": "fp32", "train_stride": None}
    found: dict[CellSpec, None] = {}
    for dataset, horizon, seed, variant in product(
        (*members, *own_data), sorted(horizons, reverse=True), seeds, variants
    ):
        with mistakes.noting():
            fields = common | {"dataset": dataset, "horizon": horizon, "seed": seed, "options": variant}
            found[CellSpec.model_validate(names | fields)] = None
    mistakes.raise_any()
    return list(found)


def _trained_method(names: dict[Kind, str], fine_tune: bool) -> str:
    """FLAME zero-shot is Origin on its backbone."""
    method, backbone = names["method"], names["backbone"]
    if fine_tune and method != "flame":
        raise TsbenchError(f"--fine-tune belongs to --method flame, not to {method}; leave it out")
    if method == "flame" and not backbone.startswith("flame-"):
        raise TsbenchError(
            f"method 'flame' is a model of its own, not an adapter of {backbone}; use --backbone flame-small"
        )
    return "origin" if method == "flame" and not fine_tune else method


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
    mistakes = Mistakes()
    found: dict[TsMemoryOptions, None] = {}
    for ablation, exclusion in product(ablations, exclusions):
        fields: dict[str, Any] = {**shared, "ablation": ablation}
        with mistakes.noting():
            if ablation == "no-retrieval":
                fields.pop("recipe", None)
            else:
                fields["teacher"] = TeacherOptions.model_validate({"exclusion": exclusion})
            found[TsMemoryOptions.model_validate(fields)] = None
    mistakes.raise_any()
    return tuple(found)
