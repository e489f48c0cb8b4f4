import math
from dataclasses import replace
from typing import Any

import pytest
from test_tables import best, column, make_record, memory_spec, origin_spec

from tsbench.bench.columns import variant
from tsbench.bench.records import Record
from tsbench.config import WHOLE_SERIES, CellSpec, FLlmOptions
from tsbench.report.labels import MISSING, method_label, row_rank
from tsbench.report.render import render
from tsbench.report.summary import summary_tables
from tsbench.report.tables import comparison_tables


def series_spec(backbone: str = "fracast", **fields: Any) -> CellSpec:
    given = {"dataset": "M3-Monthly", "horizon": 18, "lookback": WHOLE_SERIES}
    return origin_spec(backbone, **(given | fields))


def transfer_spec(form: str = "closed-loop", patch: int = 18, **fields: Any) -> CellSpec:
    given = {"method": "f-llm", "lookback": 36, "train_dataset": "M4-Monthly"}
    f_llm = FLlmOptions.model_validate({"form": form, "patch": patch})
    return series_spec("smollm2", f_llm=f_llm, **(given | fields))


def series_record(spec: CellSpec, smape: float = 14.0, mase: float = 0.9, undefined: int = 0) -> Record:
    metrics = {
        "smape": smape,
        "mase": mase,
        "owa": (smape / 16 + mase / 1) / 2,
        "smape_naive2": 16.0,
        "mase_naive2": 1.0,
        "series_without_mase": float(undefined),
    }
    record = make_record(spec, windows=1428, stride=1, levels=())
    return replace(record, metrics=metrics, windows_total=1428)


def rows() -> list[Record]:
    return [
        series_record(transfer_spec(), 13.0, 0.85),
        series_record(transfer_spec("open-loop"), 13.5, 0.86),
        series_record(series_spec(), 14.0, 0.84),
        series_record(series_spec("auto-ets"), 14.2, 0.86),
        series_record(series_spec("theta"), 14.1, 0.87),
        series_record(series_spec("naive2"), 16.0, 1.0),
        series_record(series_spec("naive-last"), 18.0, 1.2),
    ]


def test_a_collection_has_a_table_of_smape_mase_and_owa_whatever_the_lookback() -> None:
    (table,) = comparison_tables(rows())
    assert table.title == (
        "M3-Monthly, H = 18 · 1428 of 1428 series (stride 1) · profile standard · Some CPU · "
        "official test part · data dddddddd"
    )
    assert table.columns == ("Method", "Backbone", "L", "SMAPE", "MASE", "OWA", "Seeds")
    assert column(table, "Method") == [
        "Repeat last",
        "Naive2",
        "Theta",
        "AutoETS",
        "Origin",
        "F-LLM without feedback",
        "F-LLM",
    ]
    assert column(table, "L") == ["all"] * 5 + ["36"] * 2
    assert best(table, "SMAPE") == best(table, "OWA") == ["F-LLM"]
    assert best(table, "MASE") == ["Origin"]
    assert column(table, "OWA")[1] == "1.000"
    assert [row["owa"] for row in table.data] == [record.metrics["owa"] for record in reversed(rows())]


def test_its_notes_say_what_the_scores_are_and_what_was_trained_on() -> None:
    (table,) = comparison_tables([*rows(), series_record(series_spec("naive-seasonal"), undefined=3)][::-1])
    notes = " ".join(table.notes)
    assert "(SMAPE 16.000, MASE 1.000)" in notes
    assert "trained on the training parts of M4-Monthly" in notes
    assert "MASE leaves out 3 series" not in notes or "3 series that have none" in notes
    (plain,) = comparison_tables([series_record(series_spec("naive-last"), undefined=3)])
    assert "MASE leaves out 3 series that have none." in plain.notes
    assert "F-LLM" not in " ".join(plain.notes)


def test_collections_and_long_data_sets_have_tables_of_their_own() -> None:
    tables = comparison_tables([*rows(), make_record(origin_spec())])
    assert [table.columns[2] for table in tables] == ["MSE", "L"]
    assert '"owa": null' in render(tables, "json")


def test_what_the_paper_prints_stands_below() -> None:
    (table,) = comparison_tables(rows(), with_published=True)
    assert table.notes[-1].startswith(
        "Published SMAPE, zero-shot from the other competition: f-llm (llama-2-7b) 13.68, autotimes 14.06,"
    )
    weekly = [series_record(series_spec("naive-last", dataset="M4-Weekly", horizon=13))]
    (unprinted,) = comparison_tables(weekly, with_published=True)
    assert "Published" not in " ".join(unprinted.notes)


@pytest.mark.parametrize(
    ("spec", "label", "changed"),
    [
        (transfer_spec(), "F-LLM", ""),
        (transfer_spec(patch=9), "F-LLM, patch 9", "patch=9"),
        (transfer_spec(train_dataset="M4-Weekly"), "F-LLM, trained on M4-Weekly", ""),
    ],
)
def test_a_label_names_what_differs_from_the_papers_transfer(
    spec: CellSpec, label: str, changed: str
) -> None:
    assert method_label(spec) == label
    assert variant(spec) == changed


def test_ranks_go_from_baselines_to_leaks() -> None:
    ordered = [
        *(series_spec(name) for name in ("naive-last", "naive-seasonal", "naive2", "theta", "auto-arima")),
        series_spec(),
        transfer_spec("open-loop"),
        transfer_spec(),
        memory_spec({"alpha_policy": "oracle"}),
    ]
    ranks = [row_rank(spec) for spec in ordered]
    assert ranks == sorted(set(ranks))


def test_one_summary_has_all_collections_and_only_scores_that_exist() -> None:
    yearly = [
        series_record(series_spec("naive-last", dataset="M3-Yearly", horizon=6), 17.88, 3.17),
        series_record(series_spec(dataset="M3-Yearly", horizon=6, lookback=8), 16.0, 2.9),
    ]
    records = [*rows()[2:], *yearly, make_record(origin_spec())]
    (by_owa,) = summary_tables(records, "owa")
    assert by_owa.title == "OWA · official horizons · profile standard · Some CPU"
    assert by_owa.columns == (
        *("Data set", "Series", "Repeat last", "Naive2", "Theta", "AutoETS"),
        *("Origin (fracast)", "Origin, L = 8 (fracast)"),
    )
    assert column(by_owa, "Data set") == ["M3-Monthly", "M3-Yearly"]
    assert column(by_owa, "Origin (fracast)")[1] == MISSING
    (by_mse,) = summary_tables(records, "mse")
    assert column(by_mse, "Data set") == ["ETTh1"]
    assert summary_tables(rows(), "crps") == []


def test_an_undefined_owa_is_missing() -> None:
    record = series_record(series_spec("naive-last"))
    undefined = replace(record, metrics=record.metrics | {"owa": math.nan})
    (table,) = comparison_tables([undefined])
    assert column(table, "OWA") == [MISSING]
