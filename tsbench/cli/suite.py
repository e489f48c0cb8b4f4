"""What --suite does: the cells of a published table in place of a grid, and the list of such tables."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tsbench.cli import table_console
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from tsbench.bench.plan import Plan
    from tsbench.bench.records import Failure, Record
    from tsbench.bench.runner import Bench

_OWN = (
    "method",
    "dataset",
    "horizon",
    "lookback",
    "fine_tune",
    "form",
    "train_dataset",
    "plugmem_from",
    "samples",
    "diagnose",
    "csv",
    "freq",
    "split",
)
"""Options of a single grid, which a suite names itself or has no use for."""


def refuse_other_grid(ctx: typer.Context, stage: str) -> None:
    """Refuse options that contradict --suite.

    Raises:
        TsbenchError: There is one, or the command has no suites.
    """
    if stage not in ("plan", "run", "eval"):
        raise TsbenchError(
            f"--suite goes with `tsbench run`, `tsbench eval` or `tsbench plan`, not {stage}; leave it out"
        )
    given = [name for name in _OWN if _is_given(ctx, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise TsbenchError(f"--suite names its cells itself; leave out {options}, or --suite")


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def run_suite(bench: "Bench", plan: "Plan", *, baselines: bool) -> "list[Record | Failure]":
    """Run what can run; print one table per score and horizon, a row per data set, then how the run went."""
    from tsbench.bench.records import Failure, Record
    from tsbench.bench.runner import run_cells, with_baselines
    from tsbench.report.labels import of_collection
    from tsbench.report.render import rich_table
    from tsbench.report.summary import summary_tables

    outcomes = run_cells(bench, with_baselines(plan.cells) if baselines else plan.cells)
    records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    series = [record for record in records if of_collection(record)]
    quantiles = [record for record in records if math.isfinite(record.metrics.get("crps", math.nan))]
    console = table_console()
    for table in (
        *summary_tables(records, "mse"),
        *summary_tables(records, "mae"),
        *summary_tables(quantiles, "crps"),
        *summary_tables(series, "smape"),
    ):
        console.print(rich_table(table))
        console.print()
    fresh = set(plan.cells) - plan.done
    failed = {outcome.spec for outcome in outcomes if isinstance(outcome, Failure)}
    bench.progress(
        f"{plan.name}: {len(plan.done)} done before, {len(fresh - failed)} run now, "
        f"{len(failed.intersection(plan.cells))} failed, {sum(plan.missing.values())} missing"
    )
    return outcomes


def list_suites() -> list[tuple[str, ...]]:
    """The suites that come with tsbench, for `tsbench list suites`.

    Cells are those of `tsbench run --suite NAME` as it is. "Ready" ones have their packages, weights and data
    on this machine; nothing is fetched to find out.
    """
    from tsbench.bench.checks import is_here
    from tsbench.bench.grid import default_settings
    from tsbench.bench.plan import absent_cells, expand
    from tsbench.bench.runner import Bench
    from tsbench.bench.store import ResultsStore
    from tsbench.bench.suite import load_suite, shipped_suites
    from tsbench.config import PROFILES
    from tsbench.data.paths import find_mirror

    bench, mirror = Bench(ResultsStore(Path("results"))), find_mirror(None)
    settings = default_settings(PROFILES["standard"])
    rows: list[tuple[str, ...]] = [("name", "what it fills", "cells", "in results/", "ready here")]
    for name in shipped_suites():
        suite = load_suite(name)
        found = expand(suite, seeds=[0], settings=settings)
        specs = {cell.spec for cell in found}
        total = len(specs) + absent_cells(suite).total()
        done = len(bench.store.done(bench.key(spec) for spec in specs))
        here = sum(is_here(spec, mirror) for spec in specs)
        rows.append((name, suite.title, *map(str, (total, done, here))))
    return rows
