"""Tables for a browser: a plain document."""

from collections.abc import Sequence
from html import escape

from tsbench.report.cells import Cell, Table

UNDECIDED = ("inside the noise", "same forecast", "not tested")
"""Verdicts that are no finding; shown in grey."""

_STYLE = (
    "body { font-family: sans-serif; } table { border-collapse: collapse; margin: 2em 0 0.5em; } "
    "caption { text-align: left; font-weight: bold; } th, td { padding: 0.1em 0.6em; text-align: right; } "
    "th { border-bottom: 1px solid; } .words { text-align: left; } thead th { text-align: center; } "
    "tbody th { font-weight: normal; border: 0; vertical-align: top; } .undecided { color: #666; }"
)


def html(tables: Sequence[Table]) -> str:
    """Print tables as one document without scripts; every text is escaped.

    Args:
        tables: What to print, in order.

    Returns:
        The document, in UTF-8 as its head says.
    """
    head = f'<meta charset="utf-8">\n<title>tsbench</title>\n<style>{_STYLE}</style>'
    body = "\n".join(table_element(table) + notes_list(table) for table in tables)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def table_element(table: Table) -> str:
    """One table without its notes; every text is escaped."""
    lines = [
        "<table>",
        f"<caption>{escape(table.title)}</caption>",
        "<thead>",
        *(_headings(level) for level in table.spans()),
        "</thead>",
        "<tbody>",
        *(_row(table, place) for place in range(len(table.rows))),
        "</tbody>",
        "</table>",
    ]
    return "\n".join(lines)


def notes_list(table: Table) -> str:
    """Its notes as a list on lines of their own; empty where there are none."""
    notes = "".join(f"<li>{escape(note)}</li>\n" for note in table.notes)
    return f"\n<ul>\n{notes}</ul>" if notes else ""


def _headings(level: Sequence[tuple[str, int]]) -> str:
    cells = (f'<th{_spanning("col", width)} scope="col">{escape(text)}</th>' for text, width in level)
    return f"<tr>{''.join(cells)}</tr>"


def _row(table: Table, place: int) -> str:
    cells = []
    for column, cell in enumerate(table.rows[place]):
        classes = ["words"] if table.is_text(column) else []
        if cell.text in UNDECIDED:
            classes.append("undecided")
        kind = f' class="{" ".join(classes)}"' if classes else ""
        if column < table.repeated(place):
            continue
        name, scope = ("th", ' scope="row"') if table.is_name(column) else ("td", "")
        rows = _spanning("row", _height(table, place, column))
        cells.append(f"<{name}{kind}{rows}{scope}>{_marked(cell)}</{name}>")
    return f"<tr>{''.join(cells)}</tr>"


def _height(table: Table, place: int, column: int) -> int:
    """How many rows a cell stands for."""
    below = range(place + 1, len(table.rows))
    return next((row for row in below if table.repeated(row) <= column), len(table.rows)) - place


def _spanning(direction: str, number: int) -> str:
    return f' {direction}span="{number}"' if number > 1 else ""


def _marked(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.best:
        text = f"<b>{text}</b>"
    elif cell.second:
        text = f"<u>{text}</u>"
    return f"{text}<sup>{escape(cell.marks)}</sup>" if cell.marks else text
