"""Commands about what there is: download and list."""

from enum import StrEnum
from typing import Annotated

import typer

from tsbench.cli import Command, app, table_console
from tsbench.cli import options as opt
from tsbench.cli.suite import list_suites
from tsbench.errors import TsbenchError


class Listed(StrEnum):
    """What `tsbench list` shows."""

    METHODS = "methods"
    BACKBONES = "backbones"
    DATASETS = "datasets"
    PROFILES = "profiles"
    SUITES = "suites"


@app.command(cls=Command)
def download(
    names: Annotated[list[str], typer.Argument(help="Data sets or groups (ETT, M3, M4), or all.")],
    mirror: opt.Mirror = None,
) -> None:
    """Fetch public data sets and check their checksums.

    With --mirror or TSBENCH_MIRROR the same files are read from a local copy. An interrupted download
    continues where it stopped.

    Example: `tsbench download ETTh1 Weather M4`
    """
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from tsbench.data.catalog import resolve
    from tsbench.data.download import download as fetch
    from tsbench.data.paths import default_data_dir, find_mirror

    source, wanted = find_mirror(mirror), resolve(names)
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def advance(path: str, done: int, total: int | None) -> None:
            if path not in tasks:
                tasks[path] = bars.add_task(path, total=total)
            bars.update(tasks[path], completed=done, total=total)

        missing = []
        for entry in wanted:
            try:
                paths = fetch(entry, source, default_data_dir(), advance)
            except TsbenchError as error:
                missing.append(str(error))
                continue
            console.print(f"{entry.name}: {', '.join(map(str, paths)) or 'generated, nothing to fetch'}")
    if missing:
        raise TsbenchError("\n".join(missing))


@app.command("list", cls=Command)
def list_(what: Annotated[Listed, typer.Argument(help="What to list.")]) -> None:
    """Show what there is, what is installed or present, and the command that gets what is missing.

    Example: `tsbench list backbones`
    """
    from rich.table import Table
    from rich.text import Text

    rows = {
        Listed.METHODS: lambda: _registered("method"),
        Listed.BACKBONES: lambda: _registered("backbone"),
        Listed.DATASETS: _datasets,
        Listed.PROFILES: _profiles,
        Listed.SUITES: list_suites,
    }[what]()
    table = Table(box=None, header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "size", "step", "state"))
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    table_console().print(table)


def _registered(kind: str) -> list[tuple[str, ...]]:
    from tsbench.registry import entries

    rows: list[tuple[str, ...]] = [("name", "what it is", "state")]
    for entry in entries("method" if kind == "method" else "backbone"):
        needed = entry.requires
        ready = needed is None or needed.installed
        state = "ready" if ready else f"missing; {needed.install_command}" if needed else ""
        names = entry.name + "".join(f" ({alias})" for alias in entry.aliases)
        rows.append((names, entry.description, state))
    return rows


def _datasets() -> list[tuple[str, ...]]:
    from tsbench.data.catalog import LongEntry, catalogue
    from tsbench.data.local import is_present
    from tsbench.data.paths import default_data_dir, find_mirror
    from tsbench.data.plugins import plugin_points, provider

    mirror, directory = find_mirror(None), default_data_dir()
    rows: list[tuple[str, ...]] = [("name", "size", "step", "horizons", "licence", "state")]
    for name, entry in catalogue().entries.items():
        if isinstance(entry, LongEntry):
            size = f"{entry.rows} x {entry.channels}"
            horizons = " ".join(str(horizon) for horizon in entry.horizons)
        else:
            size, horizons = f"{entry.series} series", str(entry.horizon)
        present = not entry.files or is_present(entry, mirror, directory)
        state = "ready" if present else f"tsbench download {name}"
        rows.append((name, size, entry.freq, horizons, entry.licence, state))
    for name, point in plugin_points().items():
        rows.append((name, "", "", "", "", f"from package {provider(point)}"))
    return rows


def _profiles() -> list[tuple[str, ...]]:
    from tsbench.config import PROFILES

    shown = ("max_test_values", "max_knowledge_rows", "max_train_pairs", "max_steps", "batch_size")
    rows: list[tuple[str, ...]] = [("name", *shown)]
    for name, settings in PROFILES.items():
        bounds = (getattr(settings, field) for field in shown)
        rows.append((name, *("all" if bound == 2**62 else str(bound) for bound in bounds)))
    return rows
