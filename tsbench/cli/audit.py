"""The command that looks for leakage: in results, methods, published tables and data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tsbench.choices import Exclusion
from tsbench.cli import Command, app, table_console
from tsbench.cli import options as opt
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from tsbench.bench.audit.findings import Audit

EXIT_LEAK = 1

_LIVE = "Live method"
_DATA = "Data"


@app.command(cls=Command)
def audit(
    results: opt.Results = Path("results"),
    published: Annotated[
        bool, typer.Option("--published", help="Check the papers' tables against themselves instead.")
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="Fit this method with the future replaced, and see that nothing changes.",
            rich_help_panel=_LIVE,
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Below it; as for `tsbench run`.", rich_help_panel=_LIVE)
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="A stretch of it is fitted on; 2,000 rows or more.", rich_help_panel=_LIVE)
    ] = "demo",
    exclusion: Annotated[
        Exclusion, typer.Option(help="Rule of TS-Memory's teacher.", rich_help_panel=_LIVE)
    ] = "target",
    layers: Annotated[
        int | None, typer.Option(help="Blocks of a language model.", min=1, rich_help_panel=_LIVE)
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights of the backbone.", rich_help_panel=_LIVE)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel=_LIVE)] = "cpu",
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            help="Look for defects of these data sets instead. Several may follow.",
            rich_help_panel=_DATA,
        ),
    ] = [],
    csv: Annotated[
        Path | None,
        typer.Option(help="Or of your own file; times may repeat or be missing.", rich_help_panel=_DATA),
    ] = None,
    freq: Annotated[
        str | None, typer.Option(help="Step of --csv, such as 1h.", rich_help_panel=_DATA)
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of --csv: shares or rows.", rich_help_panel=_DATA)
    ] = "0.7,0.1,0.2",
    horizon: Annotated[
        int | None,
        typer.Option(help="Steps of the windows that scores are given for.", min=1, rich_help_panel=_DATA),
    ] = None,
    format: Annotated[
        Literal["table", "markdown", "text", "json"], typer.Option(help="table: for the terminal.")
    ] = "table",
    mirror: opt.Mirror = None,
) -> None:
    """Look for leakage and unfairness in stored results, in a method, in published tables, or in data.

    Exits with 1 where something leaks that does not say so, with 2 on bad input, else with 0: what a record
    declares (a weight chosen on test, exclusion self) is reported and does not fail, nor do faults of papers
    or data.

    Example: `tsbench audit --results results`

    Example: `tsbench audit --method ts-memory --backbone flame-small`

    Example: `tsbench audit --published --format markdown`

    Example: `tsbench audit --data ETTh1 Weather`

    Example: `tsbench audit --csv sales.csv --freq 1D --horizon 28`
    """
    modes = {"--published": published, "--method": method is not None, "--data or --csv": bool(data or csv)}
    asked = [name for name, wanted in modes.items() if wanted]
    if len(asked) > 1:
        raise TsbenchError(f"{' and '.join(asked)} are audits of their own; run one after the other")
    if published:
        from tsbench.report.consistency import audit_published

        found = audit_published()
    elif method is not None:
        found = _audit_method(method, backbone, dataset, exclusion, layers, checkpoint, device, mirror)
    elif backbone is not None:
        raise TsbenchError("--backbone is audited below a method; add --method, such as --method origin")
    elif data or csv:
        found = _audit_data(data, csv, freq, split, horizon, mirror)
    else:
        found = _audit_results(results, mirror)
    _print(found, format)
    if found.leaks:
        raise typer.Exit(EXIT_LEAK)


def _audit_results(results: Path, mirror: Path | None) -> "Audit":
    from tsbench.bench.audit.stored import audit_results
    from tsbench.bench.store import ResultsStore
    from tsbench.data.paths import find_mirror, home

    return audit_results(ResultsStore(results), find_mirror(mirror), home() / "artifacts")


def _audit_method(
    method: str,
    backbone: str | None,
    dataset: str,
    exclusion: Exclusion,
    layers: int | None,
    checkpoint: str | None,
    device: str,
    mirror: Path | None,
) -> "Audit":
    from tempfile import TemporaryDirectory

    from tsbench.bench.audit.canaries import audit_method, canary_spec
    from tsbench.data.load import load_dataset
    from tsbench.data.plugins import load_plugins

    _, others = load_plugins([dataset])
    values = others.get(dataset) or load_dataset(dataset, mirror)
    spec = canary_spec(
        method,
        backbone,
        values.name,
        exclusion=exclusion,
        layers=layers,
        checkpoint=checkpoint,
        device=device,
    )
    with TemporaryDirectory(prefix="tsbench-audit-") as folder:
        return audit_method(spec, values, Path(folder), lambda line: typer.echo(line, err=True))


def _audit_data(
    names: list[str],
    csv: Path | None,
    freq: str | None,
    split: str,
    horizon: int | None,
    mirror: Path | None,
) -> "Audit":
    from tsbench.bench.audit.data import audit_datasets
    from tsbench.data.catalog import CollectionEntry, resolve
    from tsbench.data.download import download
    from tsbench.data.load import load_collection, load_dataset
    from tsbench.data.paths import default_data_dir, find_mirror
    from tsbench.data.plugins import load_plugins
    from tsbench.data.splits import parse_split
    from tsbench.data.user_csv import read_any_csv

    catalogued, others = load_plugins(names)
    datasets, collections, files = [*others.values()], [], {}
    for entry in resolve(catalogued):
        if isinstance(entry, CollectionEntry):
            collections.append(load_collection(entry.name, mirror))
            continue
        datasets.append(load_dataset(entry.name, mirror))
        if entry.files:
            files[entry.name] = download(entry, find_mirror(mirror), default_data_dir(), None)[0]
    if csv is not None:
        if freq is None:
            raise TsbenchError("--csv needs --freq, the step between rows, such as --freq 1h")
        own = read_any_csv(csv, freq, parse_split(split))
        datasets.append(own)
        files[own.name] = csv
    return audit_datasets(datasets, collections, files, horizon)


def _print(found: "Audit", format: Literal["table", "markdown", "text", "json"]) -> None:
    from tsbench.report.audit import audit_tables, render_audit
    from tsbench.report.render import rich_table

    if format != "table":
        typer.echo(render_audit(found, format), nl=False)
        return
    console = table_console()
    for table in audit_tables(found):
        console.print(rich_table(table))
        console.print()
