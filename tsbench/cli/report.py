"""The command that renders stored results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tsbench.cli import Command, app, table_console
from tsbench.cli import options as opt
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from tsbench.bench.records import Record
    from tsbench.bench.store import ResultsStore
    from tsbench.report.cells import Table


@app.command(cls=Command)
def report(
    results: opt.Results = Path("results"),
    format: Annotated[
        Literal["markdown", "text", "latex", "html", "csv", "json"],
        typer.Option(
            help="markdown, text, latex and html for reading, csv and json with every figure in full."
        ),
    ] = "markdown",
    select: Annotated[
        str, typer.Option(help="Which cells, such as 'dataset=ETTh1,ETTh2 horizon=96 method=ts-memory'.")
    ] = "",
    summary: Annotated[
        Literal["mse", "mae", "crps", "smape", "mase", "owa"] | None,
        typer.Option(
            help="One row per data set in this score instead of the full tables; mase, owa: M3 and M4 alone."
        ),
    ] = None,
    table: Annotated[
        list[str],
        typer.Option(help="Published table to fill with our figures, such as ts-memory/3; repeat for more."),
    ] = [],
    backbone: Annotated[
        list[str],
        typer.Option(
            help="With --table: takes the place of the paper's frozen backbones. Several may follow: modules "
            "of the first are carried to the others, then those of the second."
        ),
    ] = [],
    with_published: Annotated[
        bool,
        typer.Option("--with-published", help="Put what papers print below our rows, marked as published."),
    ] = False,
    significance: Annotated[
        bool,
        typer.Option(
            "--significance", help="Which differences are real: intervals, corrected tests, verdicts, ranks."
        ),
    ] = False,
    metric: Annotated[
        Literal["mse", "mae", "crps"], typer.Option(help="Score that --significance compares.")
    ] = "mse",
    latency: Annotated[
        bool, typer.Option("--latency", help="What `tsbench latency` stored, instead of scores.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="File to write; standard output unless given.", dir_okay=False)
    ] = None,
) -> None:
    """Render the stored results.

    Example: `tsbench report --format markdown --select "dataset=ETTh1"`

    Example: `tsbench report --summary mse --select "horizon=96"`

    Example: `tsbench report --with-published --select "dataset=ETTh1 horizon=96"`

    Example: `tsbench report --significance --metric crps --select "backbone=flame-small"`

    Example: `tsbench report --table ts-memory/3 --backbone flame-small --format latex`

    Example: `tsbench report --latency --format csv`
    """
    from tsbench.bench.store import ResultsStore
    from tsbench.fsio import atomic_write
    from tsbench.report.render import render
    from tsbench.report.summary import summary_tables
    from tsbench.report.tables import report_tables, stored_cells

    store = ResultsStore(results)
    if significance and (latency or summary or with_published or table):
        raise TsbenchError("--significance goes without --summary, --table, --with-published and --latency")
    if backbone and not table:
        raise TsbenchError("--backbone goes with --table; use --select backbone=NAME, or add --table")
    if table:
        if summary or latency:
            raise TsbenchError("--table has its own scores; leave out --summary and --latency, or --table")
        tables = _paper_tables(store, table, select, backbone, with_published)
    elif latency:
        tables = _latency_tables(results, select, summary, with_published)
    elif significance:
        from tsbench.report.significance import significance_tables

        tables = significance_tables(stored_cells(store, select)[0], store, metric)
    elif summary is None:
        tables = report_tables(store, select, with_published=with_published)
    elif with_published:
        raise TsbenchError("--with-published goes with the full tables; leave out --summary, or this")
    elif format in ("csv", "json"):
        raise TsbenchError(f"--summary is for reading; use --format markdown, or leave it out for {format}")
    else:
        tables = summary_tables(stored_cells(store, select)[0], summary)
        if not tables:
            raise TsbenchError(f"none of the chosen results has the score {summary}; use another --summary")
    text = render(tables, format)
    if output is None:
        typer.echo(text, nl=False)
        return
    with atomic_write(output, "w") as file:
        file.write(text)


def _paper_tables(
    store: "ResultsStore", names: list[str], expression: str, backbones: list[str], with_published: bool
) -> "list[Table]":
    from tsbench.bench.latency_records import load_measurements
    from tsbench.report.layout import find_layout
    from tsbench.report.paper import paper_tables
    from tsbench.report.select import select

    layouts = [find_layout(name) for name in names]
    timed = [layout.name for layout in layouts if layout.timed]
    if expression and timed:
        raise TsbenchError(f"--select is for scores, and {timed[0]} is a table of timings; leave one out")
    return paper_tables(
        layouts,
        records=select(store.records(), expression),
        failures=select(store.failures(), expression),
        measurements=load_measurements(store.root) if timed else (),
        backbones=backbones,
        with_published=with_published,
    )


def _latency_tables(results: Path, select: str, summary: str | None, with_published: bool) -> "list[Table]":
    from tsbench.bench.latency_records import load_measurements
    from tsbench.report.latency import latency_tables

    if select or summary or with_published:
        raise TsbenchError("--latency goes with --format and --output alone; leave out the other options")
    measured = load_measurements(results)
    if not measured:
        raise TsbenchError(f"no timings in {results}; run `tsbench latency` first")
    return latency_tables(measured)


def print_tables(records: "Sequence[Record]") -> None:
    """Print the comparison and diagnostics tables of some records to the terminal."""
    from tsbench.report.render import rich_table
    from tsbench.report.tables import comparison_tables, diagnostics_tables

    console = table_console()
    for table in [*comparison_tables(records), *diagnostics_tables(records)]:
        console.print(rich_table(table))
        console.print()
