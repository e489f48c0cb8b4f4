"""The command that puts all stored results into one page for a browser."""

from pathlib import Path
from typing import Annotated

import typer

from tsbench.cli import Command, app
from tsbench.cli import options as opt


@app.command(cls=Command)
def page(
    results: opt.Results = Path("results"),
    output: Annotated[
        Path | None,
        typer.Option(help="File to write. Unless given: report.html in --results.", dir_okay=False),
    ] = None,
    select: Annotated[
        str, typer.Option(help="Which cells, such as 'dataset=ETTh1,ETTh2 horizon=96 method=ts-memory'.")
    ] = "",
) -> None:
    """Make one page of the stored results for a browser: sortable tables, verdicts, forecasts, figures.

    One HTML file that loads nothing from elsewhere. Drawing the figures takes most of the time.

    Example: `tsbench page`

    Example: `tsbench page --select "dataset=ETTh1 horizon=96" --output etth1.html`
    """
    from tsbench.bench.store import ResultsStore
    from tsbench.fsio import atomic_write
    from tsbench.report.page.document import page as document

    text = document(ResultsStore(results), select)
    path = output or results / "report.html"
    with atomic_write(path, "w") as file:
        file.write(text)
    typer.echo(path)
