"""The page's elements from data; every text is escaped."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from math import isfinite

from tsbench.report.cells import Table
from tsbench.report.html import UNDECIDED, notes_list, table_element
from tsbench.report.labels import ALPHA, backbone_label, method_label
from tsbench.report.page.pictures import Shown
from tsbench.report.page.provenance import keys_of
from tsbench.report.page.scores import Score, ScoreRow

_FILTERS = ("Data set", "Horizon", "Method", "Backbone", "Profile")


def score_section(name: str, caption: str, rows: Sequence[ScoreRow], groups: dict[str, int]) -> str:
    """A table of scores with its filters, or nothing without rows.

    Args:
        name: Of the table, unique in the page.
        caption: What it shows.
        rows: At least their scores are the same.
        groups: Number of each setting, which the script tells the reader; new ones are added.
    """
    if not rows:
        return ""
    metrics = [score.metric for score in rows[0].scores]
    adapted = any(score.gain for row in rows for score in row.scores)
    body = "\n".join(
        _score_row(row, groups.setdefault(setting, len(groups)), adapted, first=place == 0)
        for setting, group in groupby(rows, key=lambda row: row.setting)
        for place, row in enumerate(group)
    )
    headings = [
        *(_heading(text) for text in ("Method", "Backbone", "Data set")),
        *(_heading(text, "number") for text in ("H", "L")),
        _heading("Profile"),
        *(heading for metric in metrics for heading in _score_headings(metric, adapted)),
        *(_heading(text, "number") for text in (ALPHA, "Seeds", "Windows")),
        *map(_heading, ("Device", "Made", "Record")),
    ]
    return (
        f'<div class="scores" id="{name}">\n{_filters(name, rows, metrics)}\n'
        f'<a class="skip" href="#{name}-end">Skip the table</a>\n'
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">\n<table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{''.join(headings)}</tr></thead>\n"
        f'<tbody>\n{body}\n</tbody>\n</table>\n</div>\n<div id="{name}-end" tabindex="-1"></div>\n</div>'
    )


def _heading(text: str, order: str = "text", score: str = "") -> str:
    shown = f' data-score="{score}"' if score else ""
    return f'<th scope="col" data-order="{order}"{shown}>{escape(text)}</th>'


def _score_headings(metric: str, adapted: bool) -> list[str]:
    change = [_heading(f"Δ{metric.upper()} %", "number", metric)] if adapted else []
    return [_heading(metric.upper(), "number", metric), *change]


def _filters(name: str, rows: Sequence[ScoreRow], metrics: Sequence[str]) -> str:
    columns = zip(*(_filtered(row) for row in rows), strict=True)
    fields = [
        _choice(f"{name}-{place}", label, sorted(set(values), key=_numbers_first), f"data-filter={place}")
        for place, (label, values) in enumerate(zip(_FILTERS, columns, strict=True))
    ]
    fields.append(_choice(f"{name}-score", "Score", metrics, "data-scores"))
    return (
        f'<form class="filters" aria-label="Filter the table" data-script hidden>{"".join(fields)}'
        '<button type="reset">Show all</button></form>\n<p role="status"></p>'
    )


def _choice(name: str, label: str, values: Iterable[str], attribute: str) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    return (
        f'<label for="{name}">{escape(label)} <select id="{name}" {attribute}>'
        f'<option value="">all</option>{options}</select></label>'
    )


def _numbers_first(value: str) -> tuple[float, str]:
    return (float(value) if value.isdigit() else float("inf"), value)


def _filtered(row: ScoreRow) -> tuple[str, ...]:
    """What the filters choose by; of a method its name without what differs from the defaults."""
    spec = row.row.spec
    method = method_label(spec).split(",")[0]
    return spec.dataset, str(spec.horizon), method, backbone_label(spec), spec.profile


def _score_row(row: ScoreRow, group: int, adapted: bool, *, first: bool) -> str:
    spec, record = row.row.spec, row.row.records[0]
    classes = " ".join(name for name, on in (("first", first), ("leak", row.leak)) if on)
    keys = " ".join(each.key for each in row.row.records)
    weights = [each.alpha for each in row.row.records if each.alpha is not None]
    cells = [
        f'<th scope="row" class="words">{escape(row.row.label)}</th>',
        _words(backbone_label(spec)),
        _words(spec.dataset),
        _number(str(spec.horizon), spec.horizon),
        _number(str(spec.lookback) if spec.lookback < 2**31 else "all", spec.lookback),
        _words(spec.profile),
        *(cell for score in row.scores for cell in _score_cells(score, adapted)),
        _number(row.row.alpha().text, sum(weights) / len(weights) if weights else float("nan")),
        _number(str(len(row.row.records)), len(row.row.records)),
        _number(f"{record.windows} of {record.windows_total}", record.windows / record.windows_total),
        *map(_words, (record.provenance.device, record.provenance.created[:10])),
        f"<td><code>{escape(record.key[:12])}</code></td>",
    ]
    filters = escape(json.dumps(_filtered(row), ensure_ascii=False))
    return (
        f'<tr class="{classes}" data-made="{escape(keys)}" data-group="{group}" data-filters="{filters}">'
        f"{''.join(cells)}</tr>"
    )


def _words(text: str) -> str:
    return f'<td class="words">{escape(text)}</td>'


def _number(text: str, value: float) -> str:
    return f'<td data-value="{_value(value)}">{escape(text)}</td>'


def _value(value: float) -> str:
    return f"{value:.8g}" if isfinite(value) else ""


def _score_cells(score: Score, adapted: bool) -> list[str]:
    text = escape(score.text)
    if score.best:
        text = f'<b>{text}</b><span class="unseen"> best</span>'
    elif score.second:
        text = f'<u>{text}</u><span class="unseen"> second best</span>'
    where = f'data-score="{score.metric}"'
    figure = " data-figure" if isfinite(score.value) else ""
    cells = [f'<td {where}{figure} data-value="{_value(score.value)}">{text}</td>']
    if not adapted:
        return cells
    if score.gain is None:
        return [*cells, f'<td {where} data-value="">–</td>']
    kind = "undecided" if score.gain.verdict in UNDECIDED else score.gain.verdict
    return [
        *cells,
        f'<td {where} class="gain {kind}" data-value="{_value(score.gain.value)}">{escape(score.gain.text)}'
        f' <span class="verdict">{escape(score.gain.verdict)}</span></td>',
    ]


def table_block(table: Table, *, open: bool = True) -> str:
    """A table that scrolls by itself, its notes, and where its figures come from; closed ones fold."""
    keys = " ".join(keys_of(table.data))
    made = f'<p data-about="{escape(table.title)}" data-made="{escape(keys)}"></p>' if keys else ""
    block = (
        f'<div class="scroll" role="region" aria-label="{escape(table.title)}" tabindex="0">'
        f"{table_element(table)}</div>{made}{notes_list(table)}"
    )
    if open:
        return f'<div class="table">{block}</div>'
    return f"<details><summary>{escape(table.title)}</summary>{block}</details>"


def figure_block(shown: Shown) -> str:
    """A picture with its caption and, in words, what is seen."""
    return (
        f'<figure><img src="{shown.png}" width="{shown.width}" height="{shown.height}" loading="lazy" '
        f'alt="{escape(shown.alt)}"><figcaption>{escape(shown.title)}</figcaption></figure>'
    )


def section(name: str, title: str, parts: Sequence[str]) -> str:
    """A section with its heading."""
    body = "\n".join(filter(None, parts))
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{escape(title)}</h2>\n'
        f"{body}\n</section>"
    )


def paragraph(text: str) -> str:
    """A sentence or two."""
    return f"<p>{escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """A list of sentences; nothing without any."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""
