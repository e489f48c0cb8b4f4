"""What `tsbench plan` prints."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import typer

from tsbench.cli import table_console

if TYPE_CHECKING:
    from tsbench.bench.runner import Bench
    from tsbench.config import CellSpec


def print_costs(
    bench: "Bench",
    cells: "Iterable[CellSpec]",
    missing: Mapping[str, int],
    format: Literal["json"] | None,
    started: float,
) -> None:
    """Print what a run of cells and of the rows beside them would take.

    Args:
        bench: Has checked and loaded what it could.
        cells: Those that can run, or are done.
        missing: Why others cannot run, and how many.
        format: "json" for programs; None for a reader.
        started: `time.perf_counter()` when the command began.
    """
    from tsbench.bench.cost.estimate import estimate
    from tsbench.bench.runner import with_baselines
    from tsbench.report.cost import cost_tables
    from tsbench.report.render import render, rich_table

    startup_s = time.perf_counter() - started
    tables = cost_tables(estimate(bench, with_baselines(cells)), missing, startup_s)
    if format is not None:
        typer.echo(render(tables, format), nl=False)
        return
    console = table_console()
    for table in tables:
        console.print(rich_table(replace(table, notes=())))
        for note in table.notes:  # below the table, which is too narrow for them
            console.print(note, markup=False, highlight=False)
        console.print()
