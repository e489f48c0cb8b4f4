"""Printing tables: for readers (markdown, text, terminal) and for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from tabulate import tabulate

from tsbench.report.tables import Cell, Table

if TYPE_CHECKING:
    import rich.table

Format = Literal["markdown", "csv", "json", "text"]


def render(tables: Sequence[Table], format: Format) -> str:
    """Print tables.

    Args:
        tables: What to print, in order.
        format: "markdown" and "text" show the tables with their notes, the best of a column in bold or with
            an asterisk. "csv" and "json" have one row per cell and seed, at full precision, with every score
            and the whole birth certificate; what a row lacks or what is undefined is empty, or null.

    Returns:
        The text, ending in a line feed.
    """
    if format == "csv":
        return _csv(_data(tables))
    if format == "json":
        return json.dumps(_data(tables), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return "\n".join(_readable(table, format) for table in tables)


def rich_table(table: Table) -> rich.table.Table:
    """The same table for the terminal, with the notes as its caption."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), caption=Text("\n".join(table.notes)), caption_justify="left")
    for place, column in enumerate(table.columns):
        justify: Literal["left", "right"] = "left" if _is_text(table, place) else "right"
        shown.add_column(Text(column), justify=justify, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
    return shown


def _readable(table: Table, format: Literal["markdown", "text"]) -> str:
    body = tabulate(
        [[_mark(cell, format) for cell in row] for row in table.rows],
        headers=table.columns,
        tablefmt="pipe" if format == "markdown" else "simple",
        disable_numparse=True,
        colalign=["left" if _is_text(table, place) else "right" for place in range(len(table.columns))],
    )
    if format == "markdown":
        notes = "\n".join(f"- {note}" for note in table.notes)
        return f"### {table.title}\n\n{body}\n" + (f"\n{notes}\n" if notes else "")
    marked = any(cell.best for row in table.rows for cell in row)
    return "\n".join([table.title, "", body, *table.notes, *(["*: best of its column."] * marked)]) + "\n"


def _mark(cell: Cell, format: Literal["markdown", "text"]) -> str:
    if format == "markdown":
        text = cell.text.replace("|", "\\|")
        return f"**{text}**" if cell.best else text
    return f"{cell.text}*" if cell.best else cell.text


def _is_text(table: Table, place: int) -> bool:
    """Whether a column holds words, to be aligned left."""
    return table.columns[place] in (
        "",
        "Method",
        "Backbone",
        "Dataset",
        "Data set",
        "Windows",
        "Profile",
        "Error",
        "Device",
        "Source",
        "Verdict",
    )


def _data(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The rows of all tables, each once, with the same columns, undefined values as None."""
    rows = list({tuple(row.items()): row for table in tables for row in table.data}.values())
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: _defined(row.get(name)) for name in columns} for row in rows]


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
