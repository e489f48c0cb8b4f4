"""Tables as LaTeX and HTML: well formed for any text, and compiled where there is a TeX."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_tables import make_record, memory_spec, origin_spec

from tsbench.report.cells import Cell, Table
from tsbench.report.latex import escape
from tsbench.report.layout import LAYOUTS
from tsbench.report.paper import paper_tables
from tsbench.report.render import render, rich_table
from tsbench.report.tables import comparison_tables

NASTY = r"a_b 50% A&B #1 $x$ {y} ~z ^w \cmd [opt] <i> \"q\" | α † ‡ ± – — Δ … · × ≥ ≤ → τ"
ENGINE = next((name for name in ("pdflatex", "tectonic", "lualatex") if shutil.which(name)), "")


def nasty_table() -> Table:
    rows = tuple((Cell(first), Cell(NASTY), Cell("0.1", marks="a, †leak")) for first in (NASTY, NASTY, "[x]"))
    return Table(
        title=NASTY,
        columns=(NASTY, "Method", NASTY),
        rows=(*rows, (Cell("[y]"), Cell("b", best=True), Cell("c", second=True))),
        notes=(NASTY, "a: second note"),
        over=(("", NASTY, NASTY),),
        grouped=1,
    )


def every_kind() -> list[Table]:
    """A comparison, a table of a paper with what it prints, and one of nasty names."""
    spec = origin_spec("flame-small", dataset="csv-my_50%_file")
    oracle = memory_spec({"alpha_policy": "oracle"}, backbone="flame-small", dataset=spec.dataset)
    comparisons = comparison_tables([make_record(spec), make_record(oracle, 0.3, alpha=0.5)])
    return [*comparisons, *paper_tables([LAYOUTS["ts-memory/14"]], with_published=True), nasty_table()]


def columns_of(line: str) -> int:
    """Columns that a row of a tabular fills."""
    cells = re.split(r"(?<!\\)&", line)
    spans = (re.match(r"\s*\\multicolumn\{(\d+)\}", cell) for cell in cells)
    return sum(int(span[1]) if span else 1 for span in spans)


def unescaped(text: str, character: str) -> int:
    return len(re.findall(rf"(?<!\\){re.escape(character)}", text))


def test_environments_and_braces_are_balanced_and_every_row_has_all_columns() -> None:
    text = render(every_kind(), "latex")
    for name in ("table", "tabular", "minipage"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == len(every_kind())
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))
    assert unescaped(body, "{") == unescaped(body, "}")
    assert unescaped(body, "$") % 2 == 0
    tabulars = re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\\end\{tabular\}", body, re.DOTALL)
    for (alignment, rows), table in zip(tabulars, every_kind(), strict=True):
        lines = [line for line in rows.splitlines() if line.endswith(r"\\")]
        assert len(lines) == len(table.over) + 1 + len(table.rows)
        assert {columns_of(line) for line in lines} == {len(alignment)} == {len(table.columns)}


def test_a_label_is_printed_once_for_each_run_and_headings_once_over_their_columns() -> None:
    text = render(paper_tables([LAYOUTS["ts-memory/14"]], with_published=True), "latex")
    assert text.count("\nETTh1 & 96 & ours &") == 1
    assert text.count("\n &  & published &") == 8 * 5
    assert r"\multicolumn{12}{c}{Chronos2-PlugMem}" in text
    assert r"\cmidrule(lr){4-15} \cmidrule(lr){16-27}" in text
    assert text.count(r"\midrule") == 8  # below the headings, and between eight data sets


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("50% & #1", r"50\% \& \#1"),
        ("$x$ {y}", r"\$x\$ \{y\}"),
        ("~ ^ \\", r"\textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("α † ± –", r"$\alpha$ $\dagger$ $\pm$ --"),
        ("two\nlines", "two lines"),
        ("--select ---", "-{}-select -{}--"),
    ],
)
def test_special_characters_are_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.text(alphabet='ab_%&#${}~^\\[]<>|"\n α†–'))
def test_no_special_character_survives_escaping(text: str) -> None:
    made = escape(text)
    for command in sorted(
        set(re.findall(r"\\text[a-z]+\{\}|\$\\(?:alpha|dagger)\$|\{[\[\]]\}", made)), key=len
    ):
        made = made.replace(command, "")
    assert not re.search(r"(?<!\\)[_%&#${}~^]|\\(?![_%&#${}])|[\n<>|\[\]]", made)


@pytest.mark.skipif(not ENGINE, reason="no TeX is installed")
def test_it_compiles(tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(render(every_kind(), "latex"), encoding="utf-8")
    main = tmp_path / "main.tex"
    packages = r"\usepackage{booktabs,graphicx}"
    main.write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}\input{{tables.tex}}\end{{document}}"
    )
    options = [] if ENGINE == "tectonic" else ["-halt-on-error", "-interaction=nonstopmode", "-draftmode"]
    done = subprocess.run([ENGINE, *options, "main.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


class Reader(HTMLParser):
    """Notes tags left open, and the cells of each row with their spans."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[tuple[int, int]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        spans = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append((int(spans.get("colspan") or 1), int(spans.get("rowspan") or 1)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("place", range(3))
def test_html_is_balanced_and_every_row_has_all_columns(place: int) -> None:
    table = every_kind()[place]
    reader = Reader(render([table], "html"))
    assert reader.open == []
    assert len(reader.rows) == len(table.over) + 1 + len(table.rows)
    hanging: list[int] = []  # rows that cells from above still reach down
    for row in reader.rows:
        hanging = [rows - 1 for rows in hanging if rows > 1]
        assert sum(width for width, _ in row) + len(hanging) == len(table.columns)
        hanging += [height for _, height in row if height > 1]
    assert set(hanging) <= {1}


@pytest.mark.parametrize(
    ("columns", "grouped", "names"),
    [
        (("Data set", "H", "Windows", "Method", "p"), 0, [0, 1, 3]),
        (("H", "Method", "Total"), 0, [0, 1]),
        (("Step", "Bound"), 0, [0]),
        (("Data set", "", "MSE"), 2, [0, 1]),
    ],
)
def test_html_heads_every_row_by_what_it_is_about(
    columns: tuple[str, ...], grouped: int, names: list[int]
) -> None:
    rows = tuple(tuple(Cell(f"{row}{place}") for place in range(len(columns))) for row in range(2))
    body = render([Table("T", columns, rows, grouped=grouped)], "html").partition("<tbody>")[2]
    lines = re.findall(r"<tr>(.*?)</tr>", body)
    assert len(lines) == 2
    for line in lines:
        cells = re.findall(r'<(th|td)(?: class="words")?( scope="row")?>', line)
        assert [cell == ("th", ' scope="row"') for cell in cells] == [
            place in names for place in range(len(columns))
        ]


def test_html_shows_text_as_it_is() -> None:
    words = Reader(render([nasty_table()], "html")).words
    assert words.count(NASTY) >= 5


@pytest.mark.parametrize(
    ("format", "best", "second", "marked"),
    [
        ("markdown", "**1**", "<u>2</u>", "3<sup>a</sup>"),
        ("text", "1*", "2**", "3 [a]"),
        ("latex", r"\textbf{1}", r"\underline{2}", r"3\textsuperscript{a}"),
        ("html", "<b>1</b>", "<u>2</u>", "3<sup>a</sup>"),
    ],
)
def test_marks_in_every_format(format: str, best: str, second: str, marked: str) -> None:
    cells = (Cell("1", best=True), Cell("2", second=True), Cell("3", marks="a"))
    text = render([Table("Title", ("A", "B", "C"), (cells,))], format)  # type: ignore[arg-type]
    assert all(expected in text for expected in (best, second, marked))


def test_headings_of_several_levels_are_one_line_in_markdown_and_lines_in_text() -> None:
    table = Table(
        "T", ("H", "MSE", "MAE"), ((Cell("96"), Cell("1"), Cell("2")),), over=(("", "RAFT", "RAFT"),)
    )
    assert "| RAFT / MSE |" in " ".join(render([table], "markdown").split())
    lines = render([table], "text").splitlines()
    assert (lines[2].split(), lines[3].split()) == (["RAFT"], ["H", "MSE", "MAE"])


def test_the_terminal_shows_marks_and_headings_of_several_levels() -> None:
    cells = (Cell("1", best=True), Cell("2", second=True), Cell("3", marks="a"))
    table = Table("T", ("H", "MSE", "MAE"), (cells,), over=(("", "RAFT", "RAFT"),))
    shown = Console(width=80, force_terminal=True, color_system=None)
    with shown.capture() as captured:
        shown.print(rich_table(table))
    above, headings = captured.get().splitlines()[2:4]
    assert ("RAFT" in above, "RAFT" in headings, "MSE" in headings) == (True, False, True)
    styled = [next(iter(column.cells)) for column in rich_table(table).columns]
    assert [(str(text), text.style) for text in styled] == [("1", "bold"), ("2", "underline"), ("3 [a]", "")]


def test_equal_headings_below_different_ones_stay_apart() -> None:
    table = Table("T", ("MSE", "MSE"), (), over=(("A", "B"), ("same", "same")))
    assert table.spans()[1] == [("same", 1), ("same", 1)]
    joined = replace(table, over=(("A", "A"), ("same", "same")))
    assert joined.spans()[1] == [("same", 2)]
