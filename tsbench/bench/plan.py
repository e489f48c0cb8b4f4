"""From a suite to its cells, and to those of them that are done, can run, or cannot."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tsbench.bench.checks import obstacles
from tsbench.bench.grid import Options, Settings, cells
from tsbench.bench.mistakes import Mistakes
from tsbench.bench.runner import Bench
from tsbench.bench.suite import Rows, Suite, load_suite, on_backbones, restricted
from tsbench.config import CellSpec
from tsbench.data.catalog import find_collection
from tsbench.data.plugins import load_plugins
from tsbench.errors import TsbenchError


@dataclass(frozen=True)
class Label:
    """A published row on one data set, in the names of `tsbench.report.published`."""

    method: str
    backbone: str
    variant: str
    dataset: str


@dataclass(frozen=True)
class SuiteCell:
    """A cell, and the published row it repeats."""

    spec: CellSpec
    label: Label


@dataclass(frozen=True)
class Plan:
    """What a run of a suite will do.

    Attributes:
        name: Of the suite.
        cells: Those that are done or can run on this machine, in the order of the suite.
        done: Those of them that are in the results store.
        missing: Why others cannot run, and how many.
    """

    name: str
    cells: tuple[CellSpec, ...]
    done: frozenset[CellSpec]
    missing: dict[str, int]

    @property
    def summary(self) -> str:
        """How many cells are done, will run and are missing."""
        missing = sum(self.missing.values())
        return (
            f"{self.name}: {len(self.cells) + missing} cells: {len(self.done)} done before, "
            f"{len(self.cells) - len(self.done)} to run, {missing} missing"
        )


def plan_suite(
    bench: Bench,
    which: str,
    *,
    only: Iterable[str],
    backbone: str | None,
    settings: Settings,
    **common: Any,
) -> Plan:
    """Sort the cells of a suite into done, ready and missing; `Bench.progress` is told.

    Data sets that are not here are fetched.

    Args:
        bench: Where results are and go; gets the data sets of other packages.
        which: As for `load_suite`.
        only: As for `restricted`.
        backbone: Takes the place of the suite's, as for `on_backbones`; None keeps those.
        settings: As for `expand`.
        **common: Further arguments of `expand`.

    Raises:
        TsbenchError: The suite or what is asked of it has mistakes, or no cell could run.
    """
    suite = restricted(load_suite(which), only)
    if backbone is not None:
        suite = on_backbones(suite, (backbone,))
    bench.own_data.update(load_plugins(suite.every_dataset())[1])
    found = expand(suite, settings=settings, own_data=bench.own_data, **common)
    keys = {cell.spec: bench.key(cell.spec) for cell in found}
    stored = bench.store.done(keys.values())
    done = frozenset(spec for spec, key in keys.items() if key in stored)
    why_not = obstacles(bench, (spec for spec in keys if spec not in done))
    planned = Plan(
        name=suite.name,
        cells=tuple(spec for spec in keys if spec not in why_not),
        done=done,
        missing=Counter(why_not.values()) + absent_cells(suite),
    )
    bench.progress(planned.summary)
    for reason, count in planned.missing.items():
        bench.progress(f"{count} missing: {reason}")
    return planned


def expand(
    suite: Suite,
    *,
    seeds: Iterable[int],
    settings: Settings,
    checkpoint: str | None = None,
    own_data: Collection[str] = (),
    **common: Any,
) -> list[SuiteCell]:
    """The cells of a suite, data set by data set; one that repeats two published rows is there twice.

    Args:
        suite: The table.
        seeds: Seeds.
        settings: Settings of TS-Memory and F-LLM, which a row's own override.
        checkpoint: Hub id or directory of the weights of the suite's one backbone.
        own_data: Names of data sets that are not in the catalogue.
        **common: Further fields that all cells share, as for `tsbench.bench.grid.cells`.

    Raises:
        TsbenchError: Names are unknown or values out of range, one line per mistake; or `checkpoint` is given
            and there are several backbones.
    """
    _check_checkpoint(suite, checkpoint)
    mistakes = Mistakes()
    found: list[SuiteCell] = []
    for row in suite.rows:
        datasets = row.datasets or suite.datasets
        carried = row.model_dump(include={"plugmem_from", "train_datasets"}, exclude_defaults=True)
        for backbone in row.backbones:
            with mistakes.noting():
                specs = cells(
                    method=row.method,
                    backbone=backbone,
                    datasets=[name for name in datasets if name not in own_data],
                    own_data=[name for name in datasets if name in own_data],
                    horizons=row.horizons or suite.horizons,
                    lookback=row.lookback or suite.lookback,
                    seeds=seeds,
                    variants=_variants(row, settings),
                    fine_tune=row.fine_tune,
                    checkpoint=None if row.method == "supervised" else checkpoint,
                    **carried,
                    **common,
                )
                found += [SuiteCell(spec, _label(suite, row, backbone, spec.dataset)) for spec in specs]
    try:
        mistakes.raise_any()
    except TsbenchError as error:
        lines = (f"suite {suite.name}: {line}" for line in str(error).splitlines())
        raise TsbenchError("\n".join(lines)) from error
    places = {name: place for place, name in enumerate(suite.every_dataset())}
    return sorted(found, key=lambda cell: places[cell.spec.dataset])


def absent_cells(suite: Suite) -> Counter[str]:
    """How many cells of the published table have no counterpart here, by reason."""
    counts: Counter[str] = Counter()
    for row in suite.absent:
        for dataset in row.datasets or suite.datasets:
            counts[row.reason] += len(row.methods) * (1 if find_collection(dataset) else len(suite.horizons))
    return counts


def _check_checkpoint(suite: Suite, checkpoint: str | None) -> None:
    frozen = dict.fromkeys(name for row in suite.rows if row.method != "supervised" for name in row.backbones)
    if checkpoint is not None and len(frozen) > 1:
        raise TsbenchError(
            f"--checkpoint holds the weights of one backbone, but suite {suite.name} has "
            f"{', '.join(frozen)}; choose one with --backbone, or leave it out"
        )


def _variants(row: Rows, settings: Settings) -> Sequence[Options | None]:
    if row.method in settings:
        return [_changed(options, row.options) for options in settings[row.method]]
    if row.options:
        raise TsbenchError(f"method '{row.method}' takes no options; leave them out of its row")
    return (None,)


def _changed(options: Options, changes: dict[str, Any]) -> Options:
    return type(options).model_validate(options.model_dump(exclude_unset=True) | changes)


def _label(suite: Suite, row: Rows, backbone: str, dataset: str) -> Label:
    printed = row.printed
    return Label(
        method=row.method if printed.method is None else printed.method,
        backbone=backbone if printed.backbone is None else printed.backbone,
        variant=printed.variant,
        dataset=suite.printed_datasets.get(dataset, dataset),
    )
