import csv
import io
import json
import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from test_tables import make_record, memory_spec, origin_spec
from typer.testing import CliRunner, Result

from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.cli import app, report
from tsbench.config import CellSpec
from tsbench.data.catalog import catalogue
from tsbench.report.labels import MISSING
from tsbench.report.published import Published, PublishedRow, counterpart, published, published_rows
from tsbench.report.tables import comparison_tables

assert report  # importing it registers the command

HORIZONS = ("96", "192", "336", "720")

UNROUNDED_AVERAGES = """
    f-llm 8 ETTh1 f-llm llama-2-7b  mse
    f-llm 8 ETTh1 f-llm llama-2-7b  mae
    f-llm 8 ETTm1 f-llm llama-2-7b  mae
    f-llm 8 ETTm2 f-llm llama-2-7b  mae
    f-llm 8 Weather f-llm llama-2-7b  mae
    ts-memory 9 Weather ts-memory sundial-base  mae
    ts-memory 10 ETTh2 lora chronos-bolt-base  crps
    ts-memory 10 Electricity ts-rag chronos-bolt-base  mse
    ts-memory 10 Exchange origin chronos-bolt-base  crps
    ts-memory 10 Exchange ts-rag chronos-bolt-base  mae
    ts-memory 10 Traffic raft chronos-bolt-base  mse
    ts-memory 10 Traffic ts-rag chronos-bolt-base  crps
    ts-memory 11 ETTm1 raft chronos-bolt-base  retrieval_fraction
    ts-memory 11 Electricity ts-memory chronos-bolt-base  forward_ms
    ts-memory 11 Electricity ts-memory chronos-bolt-base  total_ms
    ts-memory 12 ETTh2 lora chronos-bolt-base  forward_s
    ts-memory 12 ETTh2 lora chronos-bolt-base  total_s
    ts-memory 12 ETTm1 raft chronos-bolt-base  retrieval_fraction
    ts-memory 12 ETTm2 lora chronos-bolt-base  forward_s
    ts-memory 12 ETTm2 lora chronos-bolt-base  total_s
    ts-memory 12 Exchange ts-rag chronos-bolt-base  retrieval_s
    ts-memory 13 ETTh1 ts-memory chronos-bolt-small plugmem-from=chronos-bolt-base mse
    ts-memory 13 ETTh1 ts-memory chronos-bolt-tiny plugmem-from=chronos-bolt-base mae
    ts-memory 13 ETTh2 origin chronos-bolt-mini  mae
    ts-memory 13 ETTh2 ts-memory chronos-bolt-tiny plugmem-from=chronos-bolt-base mae
    ts-memory 13 ETTm2 origin chronos-bolt-small  mae
    ts-memory 13 Electricity origin chronos-bolt-small  mae
    ts-memory 13 Electricity ts-memory chronos-bolt-mini plugmem-from=chronos-bolt-base mae
    ts-memory 13 Traffic ts-memory chronos-bolt-mini plugmem-from=chronos-bolt-base mse
    ts-memory 15 ETTh1 ts-memory chronos-bolt-base train=etth2;setting=distribution-shift mse
"""
"""Averages as printed that are not the mean of their four horizons, rounded either way."""


def key_of(figure: Published) -> tuple[object, ...]:
    return tuple(vars(figure).values())[:-1]


def value(paper: str, table: int, dataset: str, horizon: str, method: str, backbone: str, metric: str) -> str:
    """The figure without a variant, as printed."""
    key = (paper, table, dataset, horizon, method, backbone, "", metric)
    (figure,) = (figure for figure in published() if key_of(figure) == key)
    return str(figure.value)


def rows_of(dataset: str, horizon: int) -> dict[tuple[str, str, str], list[PublishedRow]]:
    found = defaultdict(list)
    for row in published_rows(dataset, horizon, 512):
        found[row.method, row.backbone, row.variant].append(row)
    return found


def bolt_spec(**fields: object) -> CellSpec:
    return origin_spec("chronos-bolt-tiny", **fields)


def test_every_figure_is_there_once_for_each_table_that_prints_it() -> None:
    figures = published()
    assert Counter(figure.paper for figure in figures) == {"f-llm": 1288, "ts-memory": 5792}
    assert len({key_of(figure) for figure in figures}) == len(figures)
    assert {figure.table for figure in figures if figure.paper == "f-llm"} == {1, 2, 3, 4, 5, 6, 8}
    assert {figure.table for figure in figures if figure.paper == "ts-memory"} == {
        2,
        3,
        4,
        5,
        6,
        *range(9, 17),
    }


def test_figures_are_finite_and_positive_but_for_the_retrieval_that_does_not_happen() -> None:
    assert all(figure.value.is_finite() and figure.value >= 0 for figure in published())
    zeros = {(figure.metric, figure.method) for figure in published() if figure.value == 0}
    assert {metric.partition("_")[0] for metric, _ in zeros} == {"retrieval"}
    assert {method for _, method in zeros} == {"origin", "lora", "ts-memory"}


def test_the_file_holds_names_and_numbers_and_no_sentences() -> None:
    words = {str(field) for figure in published() for field in key_of(figure)}
    assert max(map(len, words)) < 40
    assert not any(" " in word for word in words)


@pytest.mark.parametrize(
    ("where", "printed"),
    [
        (("ts-memory", 3, "ETTh1", "avg", "origin", "chronos-bolt-base", "mse"), "0.448"),
        (("ts-memory", 3, "ETTh1", "avg", "ts-memory", "chronos-bolt-base", "crps"), "0.407"),
        (("ts-memory", 9, "ETTh1", "96", "ts-memory", "sundial-base", "mse"), "0.3540"),
        (("ts-memory", 10, "ETTh1", "96", "origin", "chronos-bolt-base", "mse"), "0.3849"),
        (("ts-memory", 13, "ETTh1", "96", "origin", "chronos-bolt-tiny", "mse"), "0.3844"),
        (("f-llm", 8, "ETTh1", "96", "f-llm", "llama-2-7b", "mse"), "0.347"),
        (("f-llm", 8, "Weather", "720", "unitime", "", "mae"), "0.340"),
    ],
)
def test_known_figures_keep_their_printed_digits(
    where: tuple[str, int, str, str, str, str, str], printed: str
) -> None:
    assert value(*where) == printed


def test_averages_are_the_rounded_means_of_four_horizons_but_for_the_known_ones() -> None:
    cells: dict[tuple[object, ...], dict[str, Decimal]] = defaultdict(dict)
    for figure in published():
        key = key_of(figure)
        cells[key[:3] + key[4:]][figure.horizon] = figure.value
    full = {cell: values for cell, values in cells.items() if values.keys() == {*HORIZONS, "avg"}}
    off = set()
    for cell, values in full.items():
        last_digit = Decimal(1).scaleb(int(values["avg"].as_tuple().exponent))
        mean = sum((values[horizon] for horizon in HORIZONS), Decimal()) / 4
        if abs(values["avg"] - mean) > last_digit / 2:
            off.add(" ".join(map(str, cell)))
    known = {line.strip() for line in UNROUNDED_AVERAGES.strip().splitlines()}
    assert len(full) == 1184
    assert len(known) == 30
    assert off == known


def test_every_published_data_set_of_the_shown_rows_is_in_the_catalogue_under_that_name() -> None:
    datasets = {figure.dataset for figure in published() if figure.horizon in HORIZONS}
    assert datasets <= catalogue().entries.keys()
    assert all(published_rows(dataset, int(h), 512) for dataset in datasets for h in HORIZONS)


def test_a_setting_has_origin_and_ts_memory_on_every_backbone() -> None:
    found = rows_of("ETTh1", 96)
    bolts = [f"chronos-bolt-{size}" for size in ("base", "mini", "small", "tiny")]
    others = ["chronos-2", "sundial-base", "timesfm"]
    from_base = "plugmem-from=chronos-bolt-base"
    assert found.keys() == {
        *(("origin", backbone, "") for backbone in (*bolts, *others)),
        *(("ts-memory", backbone, "") for backbone in (bolts[0], *others)),
        *(("ts-memory", backbone, from_base) for backbone in bolts[1:]),
    }
    assert all(len(rows) == 1 for rows in found.values())
    (row,) = found["ts-memory", "chronos-bolt-base", ""]
    assert (row.table, str(row.mse), str(row.mae)) == (9, "0.3736", "0.3772")


def test_tables_that_print_different_figures_each_have_a_row() -> None:
    prints = {
        (dataset, horizon, *key): [(row.table, str(row.mse), str(row.mae)) for row in rows]
        for dataset in {figure.dataset for figure in published() if figure.horizon in HORIZONS}
        for horizon in map(int, HORIZONS)
        for key, rows in rows_of(dataset, horizon).items()
        if len(rows) > 1
    }
    assert prints == {
        ("ETTh1", 336, "origin", "chronos-bolt-base", ""): [
            (9, "0.4814", "0.4331"),
            (14, "0.4814", "0.4332"),
        ],
        ("Electricity", 192, "origin", "chronos-bolt-base", ""): [
            (9, "0.1428", "0.2287"),
            (14, "0.1429", "0.2287"),
        ],
    }


@pytest.mark.parametrize(("dataset", "horizon", "lookback"), [("demo", 96, 512), ("ETTh1", 96, 336)])
def test_what_no_paper_prints_is_said_so(dataset: str, horizon: int, lookback: int) -> None:
    assert published_rows(dataset, horizon, lookback) == []
    records = [make_record(origin_spec(dataset=dataset, horizon=horizon, lookback=lookback))]
    (without,) = comparison_tables(records)
    (table,) = comparison_tables(records, with_published=True)
    assert table.rows == without.rows
    assert table.notes == (*without.notes, "Published: nothing for this data set, H and L.")


@pytest.mark.parametrize(
    ("spec", "table"),
    [
        (bolt_spec(), 13),
        (origin_spec("chronos-2"), 9),
        (memory_spec(backbone="chronos-bolt-base"), 9),
        (memory_spec({"teacher": {"exclusion": "self"}}, backbone="chronos-bolt-base"), 9),
        (memory_spec(backbone="chronos-bolt-tiny"), None),  # printed only with the module of another backbone
        (memory_spec(backbone="chronos-bolt-tiny", plugmem_from="chronos-bolt-base"), 13),
        (memory_spec(backbone="chronos-bolt-tiny", plugmem_from="chronos-2"), None),
        (memory_spec(backbone="chronos-bolt-base", plugmem_from="fracast"), None),
        (memory_spec(backbone="chronos-bolt-base", train_dataset="ETTh2"), None),
        (memory_spec({"ablation": "no-retrieval"}, backbone="chronos-bolt-base"), None),
        (memory_spec({"alpha_policy": "oracle"}, backbone="chronos-bolt-base"), None),
        (bolt_spec(rollout="expand"), None),
        (bolt_spec(checkpoint="my/weights"), None),
        (origin_spec("fracast"), None),
        (origin_spec("naive-last"), None),
    ],
)
def test_only_the_same_method_and_backbone_as_proposed_have_a_counterpart(
    spec: CellSpec, table: int | None
) -> None:
    found = counterpart(spec, published_rows("ETTh1", 96, 512))
    assert (found and found.table) == table


def test_published_rows_stand_below_ours_are_never_best_and_change_nothing() -> None:
    records = [
        *(make_record(origin_spec(backbone), 0.9, mae=0.9) for backbone in ("fracast", "chronos-2")),
        make_record(memory_spec(), 0.8, mae=0.8, alpha=0.3),
    ]
    (without,) = comparison_tables(records)
    (table,) = comparison_tables(records, with_published=True)
    assert table.rows[:3] == without.rows
    assert (table.title, table.columns) == (without.title, without.columns)
    assert len(table.rows) == 3 + 14
    for row in table.rows[3:]:
        assert "(published, TS-Memory Table " in row[0].text
        assert not any(cell.best for cell in row)
        assert [cell.text for cell in row[4:]] == [MISSING] * 6
    (tiny,) = (
        row for row in table.rows[3:] if (row[0].text[:6], row[1].text) == ("Origin", "chronos-bolt-tiny")
    )
    assert [cell.text for cell in tiny[2:4]] == ["0.3844", "0.3821"]


def test_a_counterpart_has_its_deviation_in_per_cent() -> None:
    records = [make_record(bolt_spec(seed=seed), mse, mae=0.4) for seed, mse in enumerate((0.39, 0.4))]
    (table,) = comparison_tables([*records, make_record(origin_spec())], with_published=True)
    percents = [100 * (mse / 0.3844 - 1) for mse in (0.39, 0.4)]
    mean, half_range = sum(percents) / 2, (percents[1] - percents[0]) / 2
    assert table.notes[-1] == (
        "Origin on chronos-bolt-tiny differs from TS-Memory Table 13 by "
        f"MSE {mean:+.2f} ± {half_range * math.sqrt(2):.2f} %, MAE {100 * (0.4 / 0.3821 - 1):+.2f} ± 0.00 %."
    )
    found = [line["mse_vs_published_percent"] for line in table.data if "mse_vs_published_percent" in line]
    assert found == pytest.approx(percents)
    (without,) = comparison_tables([make_record(origin_spec())], with_published=True)
    assert without.notes[-1].startswith("Published: MSE and MAE")


def test_a_missing_score_has_no_deviation() -> None:
    (table,) = comparison_tables([make_record(bolt_spec(), math.nan)], with_published=True)
    assert f"by MSE {MISSING} %, MAE +4.68 %." in table.notes[-1]


@pytest.fixture
def tsbench(tmp_path: Path) -> Callable[[str], Result]:
    """Report on Origin on two backbones, at two test strides."""
    store = ResultsStore(tmp_path / "results")
    cells: list[Record] = [
        make_record(bolt_spec(test_stride=stride), 0.39, windows=windows, stride=stride)
        for stride, windows in ((4, 697), (8, 349))
    ]
    for record in (*cells, make_record(origin_spec(), 0.38)):
        store.save(record)

    def invoke(line: str) -> Result:
        return CliRunner().invoke(app, ["report", "--results", str(store.root), *shlex.split(line)])

    return invoke


@pytest.mark.parametrize("format", ["markdown", "text"])
def test_the_command_shows_rows_and_deviations_only_when_asked(
    tsbench: Callable[[str], Result], format: str
) -> None:
    result = tsbench(f"--with-published --format {format}")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("Origin (published, TS-Memory Table 13)") == 2 * 3  # mini, small, tiny
    assert result.stdout.count("differs from TS-Memory Table 13 by MSE +1.46 %, MAE +4.68 %.") == 2
    assert "ublished" not in tsbench(f"--format {format}").stdout


def test_csv_and_json_tell_published_rows_apart_and_hold_each_once(tsbench: Callable[[str], Result]) -> None:
    from_csv = list(csv.DictReader(io.StringIO(tsbench("--with-published --format csv").stdout)))
    from_json = json.loads(tsbench("--with-published --format json").stdout)
    for rows in (from_csv, from_json):
        ours = [row for row in rows if not row["published"]]
        printed = [row for row in rows if row["published"]]
        assert (len(ours), len(printed)) == (3, 14)
        assert all(row["key"] for row in ours)
        assert not any(row["key"] or row["crps"] or row["mse_vs_published_percent"] for row in printed)
        deviations = [
            float(row["mse_vs_published_percent"]) for row in ours if row["mse_vs_published_percent"]
        ]
        assert deviations == pytest.approx([100 * (0.39 / 0.3844 - 1)] * 2)
        (tiny,) = (
            row
            for row in printed
            if row["label"] == "Origin (published, TS-Memory Table 13)"
            and row["backbone"] == "chronos-bolt-tiny"
        )
        assert (tiny["published"], float(tiny["mse"]), float(tiny["mae"])) == (
            "TS-Memory Table 13",
            0.3844,
            0.3821,
        )
        assert (tiny["dataset"], int(tiny["horizon"]), int(tiny["lookback"])) == ("ETTh1", 96, 512)
    columns = tsbench("--format csv").stdout.partition("\n")[0].split(",")
    assert not any("published" in name for name in columns)


def test_a_summary_has_no_published_rows_and_says_so(tsbench: Callable[[str], Result]) -> None:
    result = tsbench("--with-published --summary mse")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: --with-published goes with the full tables")
