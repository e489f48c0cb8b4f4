import math
from typing import Any

import numpy as np
import pytest
from test_tables import column, make_record

from tsbench.bench.records import Failure
from tsbench.config import CellSpec, TsMemoryOptions
from tsbench.report.labels import ALPHA, MISSING, levels_label, method_label, spread
from tsbench.report.summary import summary_tables
from tsbench.report.tables import comparison_tables, failure_tables


def origin_spec(backbone: str = "fracast", **fields: Any) -> CellSpec:
    return CellSpec.model_validate(
        {"method": "origin", "backbone": backbone, "dataset": "ETTh1", "horizon": 96} | fields
    )


def memory_spec(options: dict[str, object] | None = None, **fields: Any) -> CellSpec:
    chosen = TsMemoryOptions.model_validate(options or {})
    return origin_spec(method="ts-memory", options=chosen, **fields)


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (origin_spec("naive-last"), "Repeat last"),
        (origin_spec("naive-seasonal"), "Seasonal naive"),
        (origin_spec(), "Origin"),
        (origin_spec(rollout="expand"), "Origin (expand roll-out)"),
        (memory_spec(), "TS-Memory"),
        (memory_spec({"teacher": {"exclusion": "self"}}), "TS-Memory, exclusion self"),
        (memory_spec({"ablation": "no-retrieval"}), "No-retrieval control"),
        (memory_spec({"ablation": "no-gate"}), "TS-Memory, no-gate"),
        (
            memory_spec({"plugmem": "small", "recipe": "released"}),
            "TS-Memory, recipe released, PlugMem small",
        ),
        (memory_spec({"alpha_criterion": "mae"}), f"TS-Memory, {ALPHA} by MAE"),
        (
            memory_spec({"ablation": "no-gate", "alpha_policy": "oracle"}),
            f"TS-Memory, no-gate (oracle {ALPHA}) †leak",
        ),
        (origin_spec(method="raft"), "RAFT"),
        (origin_spec("naive-seasonal", method="raft"), "RAFT"),
        (origin_spec(method="ts-rag"), "TS-RAG"),
        (origin_spec(method="lora"), "LoRA"),
        (origin_spec(method="lora", train_dataset="ETTh2"), "LoRA, trained on ETTh2"),
        (memory_spec(plugmem_from="chronos-2"), "TS-Memory, from chronos-2"),
        (memory_spec({"plugmem": "tiny"}, train_dataset="A+B"), "TS-Memory, PlugMem tiny, trained on A + B"),
        (
            memory_spec({"ablation": "no-retrieval"}, train_dataset="ETTh2"),
            "No-retrieval control, trained on ETTh2",
        ),
        (origin_spec(method="other"), "other"),
    ],
)
def test_labels_name_what_differs_from_the_default(spec: CellSpec, label: str) -> None:
    assert method_label(spec) == label


def test_rows_that_differ_in_their_precision_alone_are_named_by_it_in_every_table() -> None:
    exact, rounded = memory_spec(precision="fp32"), memory_spec(precision="bf16")
    elsewhere = memory_spec(precision="bf16", dataset="Weather")
    other = memory_spec({"plugmem": "tiny"}, precision="bf16")
    specs = [origin_spec(), exact, rounded, elsewhere, other]
    first, second = comparison_tables(make_record(spec, alpha=0.5) for spec in specs)
    named = ["TS-Memory, bf16", "TS-Memory, fp32"]
    assert column(first, "Method") == ["Origin", "TS-Memory, PlugMem tiny", *named]
    assert [line["label"] for line in first.data] == column(first, "Method")
    assert column(second, "Method") == named[:1]
    records = [make_record(exact, 0.3), make_record(rounded, 0.2), make_record(elsewhere, 0.1)]
    (summary,) = summary_tables(records, "mse")
    assert [[cell.text for cell in row[2:]] for row in summary.rows] == [
        ["0.2000", "0.3000"],
        ["0.1000", MISSING],
    ]


def test_one_precision_of_each_backbone_and_method_needs_no_name() -> None:
    specs = [
        memory_spec(precision="bf16"),
        memory_spec(backbone="toy", precision="fp32"),
        origin_spec(method="lora"),
    ]
    tables = comparison_tables(map(make_record, specs))
    labels = {name for table in tables for name in column(table, "Method")}
    assert labels == {"TS-Memory", "LoRA"}


def test_failed_cells_that_differ_in_their_precision_alone_are_named_by_it() -> None:
    specs = [memory_spec(precision=precision) for precision in ("bf16", "fp32")] + [origin_spec()]
    (table,) = failure_tables([Failure(str(place), spec, "error", "") for place, spec in enumerate(specs)])
    assert column(table, "Method") == ["TS-Memory, bf16", "TS-Memory, fp32", "Origin"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.38754, "0.3875"),
        (0.0811, "0.08110"),
        (12.3456, "12.35"),
        (123456.7, "123457"),
        (0.0, "0.0000"),
        (0.00001234, "1.234e-05"),
        (math.nan, MISSING),
        (math.inf, MISSING),
    ],
)
def test_numbers_show_four_significant_digits(value: float, text: str) -> None:
    assert spread([value]) == text


def test_spread_over_seeds_keeps_the_decimals_of_the_mean() -> None:
    values = [12.0, 12.5, 13.1]
    assert spread(values) == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert spread([-1.0, -3.0], "+.2f") == "-2.00 ± 1.41"
    assert spread([]) == spread([1.0, math.nan]) == MISSING


def test_levels_are_abbreviated_when_there_are_many() -> None:
    assert levels_label((0.5,)) == "1 level 0.5"
    assert levels_label((0.1, 0.5, 0.9)) == "3 levels 0.1, 0.5, 0.9"
    assert levels_label(tuple(step / 100 for step in range(1, 100))) == "99 levels 0.01, 0.02, …, 0.99"
