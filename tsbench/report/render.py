"""Printing tables: for readers (markdown, text, terminal) and for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from tabulate import tabulate

from tsbench.report.cells import Cell, Table
from tsbench.report.html import html
from tsbench.report.latex import latex

if TYPE_CHECKING:
    import rich.table

Format = Literal["markdown", "text", "latex", "html", "csv", "json"]


def render(tables: Sequence[Table], format: Format) -> str:
    """Print tables.

    Args:
        tables: What to print, in order.
        format: "markdown", "text", "latex" and "html" show the tables with their notes, the best of a column
            in bold and a second best underlined, in text with one and two asterisks. "csv" and "json" have
            one row per cell and seed, at full precision, with every score and the whole birth certificate;
            what a row lacks or what is undefined is empty, or null.

    Returns:
        The text, ending in a line feed.
    """
    if format == "csv":
        return _csv(_data(tables))
    if format == "json":
        return json.dumps(_data(tables), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if format == "latex":
        return latex(tables)
    if format == "html":
        return html(tables)
    return "\n".join(_readable(table, format) for table in tables)


def rich_table(table: Table) -> rich.table.Table:
    """The same table for the terminal, with the notes as its caption."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), caption=Text("\n".join(table.notes)), caption_justify="left")
    for place, column in enumerate(_headers(table, "text")):
        justify: Literal["left", "right"] = "left" if table.is_text(place) else "right"
        shown.add_column(Text(column), justify=justify, overflow="fold")
    for row in table.rows:
        shown.add_row(
            *(
                Text(_noted(cell.text, cell), "bold" if cell.best else "underline" if cell.second else "")
                for cell in row
            )
        )
    return shown


def _readable(table: Table, format: Literal["markdown", "text"]) -> str:
    body = tabulate(
        [[_mark(cell, format) for cell in row] for row in table.rows],
        headers=_headers(table, format),
        tablefmt="pipe" if format == "markdown" else "simple",
        disable_numparse=True,
        colalign=["left" if table.is_text(place) else "right" for place in range(len(table.columns))],
    )
    if format == "markdown":
        notes = "\n".join(f"- {note}" for note in table.notes)
        return f"### {table.title}\n\n{body}\n" + (f"\n{notes}\n" if notes else "")
    cells = [cell for row in table.rows for cell in row]
    marks = ["*: best"] * any(cell.best for cell in cells)
    marks += ["**: second best"] * any(cell.second for cell in cells)
    legend = [f"{'; '.join(marks)}."] if marks else []
    return "\n".join([table.title, "", body, *table.notes, *legend]) + "\n"


def _headers(table: Table, format: Literal["markdown", "text"]) -> list[str]:
    """One heading per column: its levels in one line, or above one another, each where it begins."""
    if format == "markdown":
        return [" / ".join(filter(None, levels)) for levels in zip(*table.over, table.columns, strict=True)]
    begun = [
        [text for heading, width in level for text in (heading, *[""] * (width - 1))]
        for level in table.spans()
    ]
    return ["\n".join(levels) for levels in zip(*begun, strict=True)]


def _mark(cell: Cell, format: Literal["markdown", "text"]) -> str:
    if format == "markdown":
        text = cell.text.replace("|", "\\|")
        text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text
        return f"{text}<sup>{cell.marks}</sup>" if cell.marks else text
    return _noted(cell.text + ("*" if cell.best else "**" if cell.second else ""), cell)


def _noted(text: str, cell: Cell) -> str:
    """Text with the letters of a cell's notes, where nothing can be raised."""
    return f"{text} [{cell.marks}]" if cell.marks else text


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
