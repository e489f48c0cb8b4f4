"""The whole page: what is in a results folder, as one file that loads nothing."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from string import Template

from tsbench.bench.diagnoses import load_diagnoses
from tsbench.bench.latency_records import Measurement, load_measurements
from tsbench.bench.records import Failure, Record
from tsbench.bench.store import ResultsStore
from tsbench.errors import TsbenchError
from tsbench.report.cells import Table
from tsbench.report.figures.settings import Results
from tsbench.report.labels import is_baseline, of_collection
from tsbench.report.latency import latency_tables
from tsbench.report.layout import LAYOUTS, carries_modules
from tsbench.report.page.forecasts import forecast_windows, packed, thinned
from tsbench.report.page.markup import (
    bullets,
    figure_block,
    paragraph,
    score_section,
    section,
    table_block,
)
from tsbench.report.page.pictures import pictures
from tsbench.report.page.provenance import as_json, keys_of, provenance_facts
from tsbench.report.page.scores import LONG, gains, score_rows
from tsbench.report.paper import paper_tables
from tsbench.report.select import select
from tsbench.report.significance import JudgedSuite, judge, judged_tables
from tsbench.report.tables import failure_tables, stored_cells


def page(store: ResultsStore, expression: str = "") -> str:
    """Make one HTML document of a results folder: scores, verdicts, paper tables, forecasts, figures, costs.

    The same results give the same text. Style and script are inside; a content security policy forbids every
    other source.

    Args:
        store: Where the results are.
        expression: Which cells, see `select`; empty for all. Timings are shown all the same.

    Raises:
        TsbenchError: There are no results, none is selected, or a file is damaged.
    """
    records, failed = stored_cells(store, expression)
    measured = load_measurements(store.root)
    judged = [suite for metric in LONG for suite in judge(_long(records), store, metric)]
    long, collection = score_rows(records, gains(judged))
    windows, without = forecast_windows(_long(records), store)
    groups: dict[str, int] = {}
    sections = {
        "scores": (
            "Scores",
            [
                _MARKS,
                score_section("long", "Scores of cells on long series", long, groups),
                score_section("collections", "Scores of cells on collections (M3, M4)", collection, groups),
            ],
        ),
        **_significance(judged, store),
        "papers": ("Tables of the papers", _papers(records, failed, measured)),
        "forecasts": ("Forecasts", _browser(len(windows), without)),
        "figures": ("Figures", _figures(store, records, expression)),
        "latency": (
            "What a query costs",
            list(map(table_block, latency_tables(measured)))
            or [paragraph("Nothing was timed; run `tsbench latency`.")],
        ),
        "failures": ("Failed cells", list(map(table_block, failure_tables(failed)))),
    }
    filled = {name: found for name, found in sections.items() if any(found[1])}
    data = {
        "facts": provenance_facts(records, failed, measured),
        "settings": list(groups),
        "forecasts": packed(thinned(windows)),
    }
    style, script = (_part(f"page.{ending}") for ending in ("css", "js"))
    return Template(_part("page.html")).substitute(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        summary=paragraph(_summary(records, failed, measured)),
        links="".join(f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in filled.items()),
        sections="\n".join(section(name, *found) for name, found in filled.items()),
        data=as_json(data),
    )


_MARKS = paragraph(
    "A row is a cell: the mean, and ± the standard deviation over seeds. Bold is the best and underlined the "
    "second best of the rows that share data, horizon, lookback, profile, windows and kind of device, as "
    "printed; ‡ is a CRPS over other quantile levels than most of these rows have, which does not compare; "
    "shaded rows marked †leak chose something on the test split and take no part. Δ is the change in percent "
    "against the same backbone alone with its 95 % interval; the verdict below it is corrected for all "
    "comparisons of its suite. Without a finding it is grey."
)


def _long(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if not of_collection(record)]


def _summary(records: Sequence[Record], failed: Sequence[Failure], measured: Sequence[Measurement]) -> str:
    specs = [record.spec for record in records]
    devices = sorted({record.provenance.device for record in records})
    parts = [
        f"{_count(len(records), 'record')} of {_count(len({spec.dataset for spec in specs}), 'data set')}",
        _count(len(failed), "failed cell") if failed else "",
        _count(len(measured), "timing") if measured else "",
        f"on {'; '.join(devices)}" if devices else "",
    ]
    return f"{', '.join(filter(None, parts))}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _significance(judged: Sequence[JudgedSuite], store: ResultsStore) -> dict[str, tuple[str, list[str]]]:
    """What is claimed beside what is measured, then every comparison."""
    claimed: list[Table] = []
    others: list[Table] = []
    for suite in judged:
        for table in judged_tables(suite, store):
            average = bool(table.data) and table.data[0].get("table") == "claim on average"
            (claimed if average else others).append(table)
    return {
        "claim": ("The claim and what is measured", list(map(table_block, claimed))),
        "significance": ("Which differences are real", [table_block(table, open=False) for table in others]),
    }


def _papers(
    records: Sequence[Record], failed: Sequence[Failure], measured: Sequence[Measurement]
) -> list[str]:
    """Each table on each backbone that fills it, or on two that exchanged modules; no figures twice."""
    own = sorted({record.spec.backbone for record in records if not is_baseline(record.spec)})
    exchanged = {
        tuple(sorted((record.spec.backbone, record.spec.plugmem_from)))
        for record in records
        if record.spec.plugmem_from
    }
    found: list[Table] = []
    for layout in LAYOUTS.values():
        filled: dict[frozenset[str], Table] = {}
        pairs = sorted(exchanged) if carries_modules(layout) else []
        for backbones in ((), *((name,) for name in own), *pairs):
            try:
                tables = paper_tables(
                    [layout], records=records, failures=failed, measurements=measured, backbones=backbones
                )
            except TsbenchError:
                continue  # no figure, or a backbone of a package that is not here
            filled |= {frozenset(keys_of(table.data)): table for table in tables}
        found += [table for keys, table in filled.items() if not any(keys < others for others in filled)]
    return [table_block(table, open=False) for table in found] or [
        paragraph("No stored figure has a place in a published table.")
    ]


def _browser(settings: int, without: int) -> list[str]:
    absent = (
        f"Without stored sample forecasts, so not shown: {_count(without, 'cell')}. Run again to have some."
    )
    if not settings:
        return [paragraph(absent)]
    return [_part("browser.html"), *([paragraph(absent)] if without else [])]


def _figures(store: ResultsStore, records: Sequence[Record], expression: str) -> list[str]:
    diagnoses = select(load_diagnoses(store.root), expression)
    shown, absent = pictures(Results(store.root, tuple(records), tuple(diagnoses)))
    return [
        f'<div class="figures">{"".join(map(figure_block, shown))}</div>' if shown else "",
        bullets(absent),
    ]


def _part(name: str) -> str:
    return (files("tsbench.report.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an element's text."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
