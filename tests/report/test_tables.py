import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tsbench.bench.columns import COLUMNS
from tsbench.bench.records import Failure, Provenance, Record
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, TsMemoryOptions
from tsbench.errors import TsbenchError
from tsbench.report.labels import ALPHA, MISSING
from tsbench.report.render import render, rich_table
from tsbench.report.select import select
from tsbench.report.tables import (
    Table,
    comparison_tables,
    diagnostics_tables,
    failure_tables,
    report_tables,
)

DECILES = tuple(round(0.1 * step, 1) for step in range(1, 10))


def origin_spec(backbone: str = "fracast", **fields: Any) -> CellSpec:
    return CellSpec.model_validate(
        {"method": "origin", "backbone": backbone, "dataset": "ETTh1", "horizon": 96} | fields
    )


def memory_spec(options: dict[str, object] | None = None, **fields: Any) -> CellSpec:
    chosen = TsMemoryOptions.model_validate(options or {})
    return origin_spec(method="ts-memory", options=chosen, **fields)


def make_record(
    spec: CellSpec,
    mse: float = 0.4,
    *,
    mae: float = 0.4,
    crps: float = 0.4,
    alpha: float | None = None,
    extra: dict[str, float] | None = None,
    windows: int = 349,
    stride: int = 8,
    levels: tuple[float, ...] = DECILES,
    device: str = "Some CPU",
    data: str = "d" * 64,
    created: str = "2026-01-02T03:04:05Z",
) -> Record:
    return Record(
        key=spec.content_hash(data, device, str(stride), created),
        spec=spec,
        metrics={"mse": mse, "mae": mae, "crps": crps, "coverage_80": 0.7921, "width_80": 1.25}
        | (extra or {}),
        windows=windows,
        windows_total=2785,
        test_stride=stride,
        levels=levels,
        alpha=alpha,
        provenance=Provenance(
            data_sha256=data,
            backbone_identity=f"{spec.backbone}-{spec.rollout}",
            code_version="0.1.0",
            versions={"torch": "2.6"},
            device=device,
            threads=2,
            created=created,
            wall_s=1.5,
            peak_rss_mb=300.0,
        ),
    )


def column(table: Table, heading: str) -> list[str]:
    return [row[table.columns.index(heading)].text for row in table.rows]


def best(table: Table, heading: str) -> list[str]:
    place = table.columns.index(heading)
    return [row[0].text for row in table.rows if row[place].best]


def small_table() -> list[Record]:
    return [
        make_record(memory_spec({"alpha_policy": "oracle"}), 0.35, mae=0.36, crps=0.37, alpha=0.8),
        make_record(memory_spec(), 0.38, mae=0.38, crps=0.385, alpha=0.35),
        make_record(memory_spec({"ablation": "no-retrieval"}), 0.384, mae=0.379, crps=0.386, alpha=0.3),
        make_record(origin_spec(), 0.4, mae=0.3895, crps=0.3863),
        make_record(origin_spec("naive-seasonal"), 0.6, mae=0.45, crps=0.5),
        make_record(origin_spec("naive-last"), 1.2939, mae=0.7131, crps=0.8),
    ]


def test_rows_stand_in_order_baselines_first_and_oracle_last() -> None:
    (table,) = comparison_tables(small_table())
    assert column(table, "Method") == [
        "Repeat last",
        "Seasonal naive",
        "Origin",
        "No-retrieval control",
        "TS-Memory",
        f"TS-Memory (oracle {ALPHA}) †leak",
    ]


@pytest.mark.parametrize(
    "other",
    [
        make_record(memory_spec(), 0.1, windows=175, stride=16),
        make_record(memory_spec(), 0.1, device="Some GPU"),
        make_record(memory_spec(), 0.1, data="e" * 64),
        make_record(memory_spec(profile="quick"), 0.1),
        make_record(memory_spec(lookback=336), 0.1),
        make_record(memory_spec(horizon=192), 0.1),
        make_record(memory_spec(dataset="ETTh2"), 0.1),
        make_record(memory_spec(drop_last=32), 0.1),
    ],
    ids=["stride", "device", "data", "profile", "lookback", "horizon", "dataset", "drop-last"],
)
def test_records_that_do_not_compare_never_share_a_table(other: Record) -> None:
    tables = comparison_tables([*small_table(), other])
    assert sorted(len(table.rows) for table in tables) == [1, 6]
    assert tables[0].title != tables[1].title
    (alone,) = (table for table in tables if len(table.rows) == 1)
    assert column(alone, "ΔMSE %") == [MISSING]
    assert not any(cell.best for row in alone.rows for cell in row)


def test_scores_of_two_processors_share_a_table_whose_title_names_both() -> None:
    one, other = make_record(origin_spec(), device="cpu: A"), make_record(memory_spec(), device="cpu: B")
    (table,) = comparison_tables([one, other])
    assert len(table.rows) == 2
    assert "cpu: A; cpu: B" in table.title


def test_a_cell_with_sampled_paths_shares_the_row_of_the_same_cell_without() -> None:
    later = make_record(origin_spec(samples=100), extra={"samples": 100.0}, created="2026-01-03T00:00:00Z")
    (table,) = comparison_tables([later, *small_table()])
    assert len(table.rows) == len(small_table())
    assert [row["samples"] for row in table.data if "samples" in row] == [100.0]


def test_the_title_states_the_setting() -> None:
    (table,) = comparison_tables([make_record(origin_spec(drop_last=32))])
    assert table.title == (
        "ETTh1, H = 96, L = 512 · 349 of 2785 windows (stride 8) · incomplete last batch of 32 dropped · "
        "profile standard · Some CPU · test split · CRPS pooled over 9 levels 0.1, 0.2, …, 0.9 · "
        "data dddddddd"
    )


def test_a_setting_of_point_forecasts_says_that_it_has_no_crps() -> None:
    (table,) = comparison_tables([make_record(origin_spec(), crps=math.nan, levels=())])
    assert "no CRPS: point forecasts" in table.title
    assert column(table, "CRPS") == [MISSING]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=6), st.floats(0.001, 100))
def test_bold_is_the_minimum_and_never_an_oracle_row(scores: list[float], oracle: float) -> None:
    records = [make_record(origin_spec(f"model-{place}"), score) for place, score in enumerate(scores)]
    records.append(make_record(memory_spec({"alpha_policy": "oracle"}), oracle))
    (table,) = comparison_tables(records)
    place = table.columns.index("MSE")
    honest = [row[place] for row in table.rows if "†leak" not in row[0].text]
    lowest = min(float(cell.text) for cell in honest)
    assert [cell.best for cell in honest] == [float(cell.text) == lowest for cell in honest]
    assert not table.rows[-1][place].best
    assert lowest == pytest.approx(min(scores), rel=1e-3)


def test_undefined_scores_are_missing_and_never_best() -> None:
    records = [make_record(origin_spec("a"), math.nan), make_record(origin_spec("b"), 2.0)]
    records.append(make_record(origin_spec("c"), 3.0))
    (table,) = comparison_tables(records)
    assert column(table, "MSE") == [MISSING, "2.000", "3.000"]
    assert [row[2].best for row in table.rows] == [False, True, False]


def test_crps_over_other_levels_is_marked_and_takes_no_part() -> None:
    odd = make_record(origin_spec("chronos-2"), crps=0.1, levels=(0.05, 0.5, 0.95))
    (table,) = comparison_tables([*small_table(), odd])
    assert column(table, "CRPS")[column(table, "Backbone").index("chronos-2")] == "0.1000‡"
    assert best(table, "CRPS") == ["TS-Memory"]
    assert any(note.startswith("‡: CRPS over 3 levels 0.05, 0.5, 0.95") for note in table.notes)


def test_the_change_against_origin_is_negative_when_better() -> None:
    (table,) = comparison_tables(small_table())
    changes = dict(zip(column(table, "Method"), column(table, "ΔMSE %"), strict=True))
    assert changes["TS-Memory"] == "-5.00"
    assert changes["Origin"] == changes["Repeat last"] == MISSING
    worse = [make_record(origin_spec(), 0.4), make_record(memory_spec(), 0.41)]
    assert column(comparison_tables(worse)[0], "ΔMSE %") == [MISSING, "+2.50"]
    perfect = [make_record(origin_spec(), 0.0), make_record(memory_spec(), 0.41)]
    assert column(comparison_tables(perfect)[0], "ΔMSE %") == [MISSING, MISSING]


def test_the_change_is_against_the_same_backbone_and_roll_out() -> None:
    records = [
        make_record(origin_spec(), 0.5),
        make_record(origin_spec(rollout="expand"), 0.4),
        make_record(origin_spec("chronos-2"), 0.1),
        make_record(memory_spec(rollout="expand"), 0.3),
        make_record(memory_spec(backbone="timesfm"), 0.3),
    ]
    (table,) = comparison_tables(records)
    changes = dict(zip(column(table, "Method"), column(table, "ΔMSE %"), strict=True))
    assert changes["TS-Memory (expand roll-out)"] == "-25.00"
    assert changes["TS-Memory"] == MISSING


def test_seeds_share_a_row_with_mean_and_sample_deviation() -> None:
    scores = [0.381, 0.3835, 0.39]
    records = [make_record(memory_spec(seed=seed), score, alpha=0.3) for seed, score in enumerate(scores)]
    (table,) = comparison_tables([*records, make_record(origin_spec(), 0.4)])
    assert column(table, "Seeds") == ["1", "3"]
    assert column(table, "MSE")[1] == f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}"
    assert column(table, "ΔMSE %")[1] == f"{100 * (np.mean(scores) / 0.4 - 1):+.2f}"
    assert column(table, ALPHA) == [MISSING, "0.30 ± 0.00 (val)"]
    assert "±: sample standard deviation over seeds." in table.notes
    assert len(table.data) == 4


def test_a_score_missing_for_one_seed_is_missing() -> None:
    records = [make_record(memory_spec(seed=0), 0.4), make_record(memory_spec(seed=1), math.nan)]
    assert column(comparison_tables(records)[0], "MSE") == [MISSING]


def test_of_two_records_of_one_cell_and_seed_the_newest_counts() -> None:
    new = make_record(origin_spec(), 0.3, created="2026-02-01T00:00:00Z")
    old = make_record(origin_spec(), 0.5, created="2026-01-01T00:00:00Z")
    (table,) = comparison_tables([new, old])
    assert column(table, "MSE") == ["0.3000"]
    assert column(table, "Seeds") == ["1"]


def test_notes_explain_every_mark_of_the_table() -> None:
    (table,) = comparison_tables(
        [*small_table(), make_record(memory_spec({"teacher": {"exclusion": "self"}}))]
    )
    starts = (
        *("Coverage", "ΔMSE", ALPHA, "†leak", "Exclusion self", "Exclusion target"),
        *("No-retrieval control", "Roll-out median"),
    )
    assert [note.split(":")[0] for note in table.notes] == list(starts)
    (plain,) = comparison_tables([make_record(origin_spec("naive-last"), windows=2785, stride=1)])
    assert plain.notes == ("Coverage: 2785 of 2785 test windows (100 %).",)


def test_diagnostics_show_the_teacher_beside_the_base() -> None:
    extra = {"teacher_mae_train": 0.488, "base_mae_train": 0.44, "gate_open_train": 0.29, "oracle_alpha": 0.6}
    fused = make_record(memory_spec(), alpha=0.35, extra=extra)
    (table,) = diagnostics_tables([*small_table()[3:], fused])
    assert column(table, "Method") == ["TS-Memory"]
    assert column(table, "Teacher MAE train") == ["0.4880"]
    assert column(table, "Base MAE train") == ["0.4400"]
    assert column(table, ALPHA) == ["0.35 (val)"]
    assert column(table, f"Oracle {ALPHA}") == ["0.60"]
    assert column(table, "Steps") == [MISSING]
    assert diagnostics_tables(small_table()[3:]) == []


def test_failed_cells_are_rows_of_their_own() -> None:
    failure = Failure("f" * 64, memory_spec(), "out of memory\n| at step 3", "Traceback")
    (table,) = failure_tables([failure])
    assert [cell.text for cell in table.rows[0]][-1] == "out of memory | at step 3"
    assert "out of memory \\| at step 3" in render([table], "markdown")
    (row,) = json.loads(render([table], "json"))
    assert (row["key"], row["error"]) == (failure.key, failure.error)
    assert failure_tables([]) == []


def test_markdown_snapshot() -> None:
    chosen = [record for record in small_table() if record.spec.backbone != "naive-seasonal"]
    (table,) = comparison_tables(
        [record for record in chosen if "no-retrieval" not in record.spec.model_dump_json()]
    )
    assert render([replace(table, title="Title", notes=table.notes[:2])], "markdown") == (
        """\
### Title

| Method                     | Backbone   |        MSE |        MAE |       CRPS |   Cov80 |   Width |   ΔMSE % |             α |   Seeds |
|:---------------------------|:-----------|-----------:|-----------:|-----------:|--------:|--------:|---------:|--------------:|--------:|
| Repeat last                | naive-last |      1.294 |     0.7131 |     0.8000 |  0.7921 |   1.250 |        – |             – |       1 |
| Origin                     | fracast    |     0.4000 |     0.3895 |     0.3863 |  0.7921 |   1.250 |        – |             – |       1 |
| TS-Memory                  | fracast    | **0.3800** | **0.3800** | **0.3850** |  0.7921 |   1.250 |    -5.00 |    0.35 (val) |       1 |
| TS-Memory (oracle α) †leak | fracast    |     0.3500 |     0.3600 |     0.3700 |  0.7921 |   1.250 |   -12.50 | 0.80 (oracle) |       1 |

- Coverage: 349 of 2785 test windows (12.5 %).
- ΔMSE: percent against Origin on the same backbone and roll-out; negative is better.
"""  # noqa: E501
    )


def test_text_marks_the_best_with_an_asterisk_and_says_so() -> None:
    text = render(comparison_tables(small_table()), "text")
    assert "0.3800*" in text
    assert "0.3500*" not in text
    assert text.endswith("\n*: best.\n")


def test_csv_can_be_read_again_at_full_precision() -> None:
    third = make_record(memory_spec(), 1 / 3, crps=math.nan, alpha=0.1 + 0.2, extra={"gate_open_val": 2 / 7})
    tables = comparison_tables([make_record(origin_spec(), 0.4), third])
    rows = list(csv.DictReader(io.StringIO(render([*tables, *diagnostics_tables([third])], "csv"))))
    assert len(rows) == 2
    row = rows[1]
    assert set(COLUMNS) - {"metric", "value"} < set(row)
    assert float(row["mse"]) == 1 / 3
    assert float(row["alpha"]) == 0.1 + 0.2
    assert float(row["gate_open_val"]) == 2 / 7
    assert float(row["delta_mse_percent"]) == 100 * ((1 / 3) / 0.4 - 1)
    assert row["crps"] == rows[0]["gate_open_val"] == rows[0]["delta_mse_percent"] == ""
    assert CellSpec.model_validate_json(row["spec"]) == third.spec


def test_json_holds_every_seed_and_flags_leaks() -> None:
    records = small_table()
    rows = json.loads(render(comparison_tables(records), "json"))
    assert {row["key"]: row["mse"] for row in rows} == {r.key: r.metrics["mse"] for r in records}
    assert [row["leak"] for row in rows] == [False] * 5 + [True]
    assert rows[2]["delta_mse_percent"] is None


def test_csv_and_json_of_nothing_are_empty() -> None:
    assert render([], "json") == "[]\n"
    assert render([], "csv").strip() == ""


def test_the_terminal_shows_the_same_cells() -> None:
    (table,) = comparison_tables(small_table())
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    console.print(rich_table(table))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for row in table.rows:
        assert all(cell.text in shown for cell in row)
    assert all(note.split(":")[0] in shown for note in table.notes)


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("", 6),
        ("method=ts-memory", 3),
        ("method=ts-memory ablation=none", 2),
        ("alpha_policy=oracle", 1),
        ("backbone=naive-last,naive-seasonal", 2),
        ("dataset=etth1 horizon=96", 6),
        ("horizon=192", 0),
        ("exclusion=target", 3),
        ("variant=ablation=no-retrieval", 1),
        ("checkpoint=none", 6),
    ],
)
def test_select_keeps_the_cells_that_match_every_part(expression: str, count: int) -> None:
    assert len(select(small_table(), expression)) == count


def test_select_names_what_it_cannot_use() -> None:
    with pytest.raises(TsbenchError, match="unknown selection key 'datset'; did you mean dataset"):
        select(small_table(), "datset=ETTh1")
    with pytest.raises(TsbenchError, match="cannot select by 'ETTh1'; write key=value"):
        select(small_table(), "ETTh1")


def test_report_tables_reads_a_folder(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    for record in small_table():
        store.save(record)
    store.save_failure(Failure("f" * 64, memory_spec(horizon=192), "out of memory"))
    titles = [table.title.split(" ")[0] for table in report_tables(store)]
    assert titles == ["ETTh1,", "Diagnostics", "Failed"]
    assert len(report_tables(store, "method=origin")) == 1
    assert [table.title for table in report_tables(store, "horizon=192")] == ["Failed cells"]
    assert report_tables(store)[0].rows == comparison_tables(small_table())[0].rows


def test_an_empty_folder_and_an_empty_choice_are_one_line(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "results")
    with pytest.raises(TsbenchError, match=r"no results in .*results/; run `tsbench run` first"):
        report_tables(store)
    store.save(make_record(origin_spec()))
    with pytest.raises(TsbenchError, match="none of 1 results matches 'horizon=192'"):
        report_tables(store, "horizon=192")
