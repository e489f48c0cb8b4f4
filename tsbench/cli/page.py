"""The command that puts all stored results into one page for a browser."""

from pathlib import Path
from typing import Annotated

import typer

from tsbench.cli import Command, app
from tsbench.cli import options as opt


@app.command(cls=Command)
def page(
    results: opt.Results = Path("results"),
    output: Annotated[Path, typer.Option(help="File to write.", dir_okay=False)] = Path(
        "results/report.html"
    ),
    select: Annotated[
        str, typer.Option(help="Which cells, such as 'dataset=ETTh1,ETTh2 horizon=96 method=ts-memory'.")
    ] = "",
) -> None:
    """Make one page of the stored results for a browser: sortable tables, verdicts, forecasts, figures.

    One HTML file that loads nothing from elsewhere. Testing all differences of some hundred cells takes a
    few minutes.

    Example: `tsbench page`

    Example: `tsbench page --select "dataset=ETTh1 horizon=96" --output etth1.html`
    """
    from tsbench.bench.store import ResultsStore
    from tsbench.fsio import atomic_write
    from tsbench.report.page.document import page as document

    text = document(ResultsStore(results), select)
    with atomic_write(output, "w") as file:
        file.write(text)
    typer.echo(output)
