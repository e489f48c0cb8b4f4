"""Tables for papers: LaTeX with booktabs."""

from collections.abc import Iterable, Sequence

from tsbench.report.cells import Cell, Table

_PREAMBLE = r"""% Made by tsbench. Preamble: \usepackage{booktabs,graphicx}.
% Compiles with pdflatex; names with letters beyond Latin-1 need lualatex or xelatex.
"""

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # an optional argument of \\ if a row begins with it
    "]": "{]}",
    "α": r"$\alpha$",
    "τ": r"$\tau$",
    "Δ": r"$\Delta$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\rightarrow$",
    "\N{MINUS SIGN}": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~",
    "\N{WORD JOINER}": "{}",
}
_TRANSLATION = str.maketrans(_ESCAPES)


def latex(tables: Sequence[Table]) -> str:
    r"""Print tables as LaTeX floats: caption, tabular with booktabs rules, notes below.

    A tabular wider than the line is shrunk to it.

    Args:
        tables: What to print, in order.

    Returns:
        A file to be read by \input; its first lines say what the preamble needs.
    """
    return "\n".join([_PREAMBLE, *map(_float, tables)])


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is; line breaks become spaces.

    Args:
        text: Any. Of letters beyond Latin-1 those that tables use are translated, such as α to $\alpha$.
    """
    apart = text.replace("--", "-\N{WORD JOINER}-")  # two hyphens in a row would print as a dash
    return " ".join(apart.split("\n")).translate(_TRANSLATION)


def _float(table: Table) -> str:
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize",
        rf"\caption{{{escape(table.title)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *_tabular(table),
        "}",
        *_notes(table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table) -> list[str]:
    alignment = "".join("l" if table.is_text(place) else "r" for place in range(len(table.columns)))
    *over, columns = table.spans()
    return [
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        *(line for level in over for line in _spanning(level)),
        _row(escape(text) for text, _ in columns),
        r"\midrule",
        *_body(table),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _spanning(level: Sequence[tuple[str, int]]) -> list[str]:
    """A level of headings, each over its columns and with a rule below."""
    cells, rules, first = [], [], 1
    for text, width in level:
        if text:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(text)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        else:
            cells += [""] * width
        first += width
    return [_row(cells), " ".join(rules)]


def _body(table: Table) -> list[str]:
    """The rows; a rule between groups of the first label, which is printed once for each."""
    lines = []
    for place, row in enumerate(table.rows):
        repeated = table.repeated(place)
        if place and table.grouped and not repeated:
            lines.append(r"\midrule")
        lines.append(_row("" if column < repeated else _cell(cell) for column, cell in enumerate(row)))
    return lines


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    elif cell.second:
        text = rf"\underline{{{text}}}"
    return rf"{text}\textsuperscript{{{escape(cell.marks)}}}" if cell.marks else text


def _notes(notes: Sequence[str]) -> list[str]:
    """A block of sentences, a paragraph each."""
    if not notes:
        return []
    body = [rf"{escape(note)}\par" for note in notes]
    return [
        r"\par\medskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *body,
        r"\end{minipage}",
    ]
