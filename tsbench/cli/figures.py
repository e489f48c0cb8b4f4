"""The command that draws stored results."""

from pathlib import Path
from typing import Annotated

import typer

from tsbench.cli import Command, app
from tsbench.cli import options as opt
from tsbench.errors import TsbenchError


@app.command(cls=Command)
def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="forecasts, alpha, ablation, capacity, domain-shift, steps, calibration, accuracy-latency, "
            "retrieval-scaling, ranks, stability; all unless given.",
            show_default=False,
        ),
    ] = None,
    results: opt.Results = Path("results"),
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures, each as PNG and as PDF. Unless given: figures in --results.",
            file_okay=False,
        ),
    ] = None,
    select: Annotated[
        str, typer.Option(help="Which cells, such as 'dataset=ETTh1,ETTh2 horizon=96 method=ts-memory'.")
    ] = "",
) -> None:
    """Draw the stored results.

    A figure whose data were never measured is named with the command that makes them.

    Example: `tsbench figures`

    Example: `tsbench figures alpha calibration --select "dataset=ETTh1 backbone=flame-small"`
    """
    from tsbench.bench.diagnoses import load_diagnoses
    from tsbench.report.figures.catalog import draw_figures

    written, missing = draw_figures(
        results, output or results / "figures", names or (), select, load_diagnoses(results)
    )
    for line in missing:
        typer.echo(line, err=True)
    if not written:
        raise TsbenchError(f"nothing to draw in {results}/; see the commands above")
    for path in written:
        typer.echo(path)
