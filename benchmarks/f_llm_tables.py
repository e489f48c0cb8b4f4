"""The tables of docs/f-llm.md, from the committed records.

Usage: python benchmarks/f_llm_tables.py [--results results]

The records come from
    tsbench run --method f-llm --backbone smollm2 --layers 8 --dataset ETTh1 --horizon 96 192 336 720
        --seed 0 1
with `--form lora`, `mlp` and `fpt`, the same for ETTh2 and Exchange at 96, from
    tsbench run --method supervised --dataset ETTh1 --horizon 96 192 336 720
and from
    tsbench run --method f-llm --backbone smollm2 --layers 8 --dataset M4-Hourly M4-Weekly --seed 0 1
    tsbench run --method f-llm --layers 8 --dataset M3-Monthly --train-dataset M3-Quarterly --seed 0 1
    tsbench run --method origin --backbone theta --dataset M3 M4-Hourly
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from tabulate import tabulate

from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec
from tsbench.metrics.overlap import disjoint_block, relative_change
from tsbench.report.labels import spread

FORMS = ("open-loop", "closed-loop", "lora", "mlp", "fpt")
HEADINGS = ("open loop", "closed loop", "LoRA, open loop", "MLP, closed loop", "FPT")
COMPARED = ("naive2", "naive-seasonal", "theta", "auto-ets")
Rows = dict[str, list[Record]]


def form_of(spec: CellSpec) -> str | None:
    """Column of a record; None where it is none of this table."""
    if spec.method == "supervised":
        return spec.backbone
    if spec.f_llm is None or spec.f_llm.layers != 8:
        return spec.backbone if spec.method == "origin" and spec.backbone in COMPARED else None
    default = spec.f_llm.model_copy(update={"form": "closed-loop", "layers": None, "patch": 96})
    return spec.f_llm.form if default == type(default)() else None


def grouped(results: Path) -> dict[tuple[str, int, str], Rows]:
    """Records by data set, horizon and source, then by column; one per seed."""
    cells: dict[tuple[str, int, str], Rows] = defaultdict(lambda: defaultdict(list))
    store = ResultsStore(results)
    for listed in store.records():
        spec, form = listed.spec, form_of(listed.spec)
        record = store.load(listed.key)  # with the errors of each window
        if form is not None and spec.profile == "standard" and record is not None:
            cells[spec.dataset, spec.horizon, spec.train_dataset or ""][form].append(record)
    return cells


def scores(records: list[Record], metric: str, digits: int) -> str:
    """Mean over seeds, with the standard deviation where there are several."""
    return spread([record.metrics[metric] for record in records], f".{digits}f")


def feedback(rows: Rows) -> str:
    """Change of the MSE by feedback, mean over seeds, with its 95 % interval over windows."""
    closed, opened = (
        {record.spec.seed: record for record in rows.get(form, [])} for form in ("closed-loop", "open-loop")
    )
    pairs = [
        (closed[seed].window_scores, opened[seed].window_scores) for seed in closed.keys() & opened.keys()
    ]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not known:
        return "–"
    starts, horizon = known[0][0].start, next(iter(closed.values())).spec.horizon
    change = relative_change(
        np.mean([one.mse for one, _ in known], axis=0),
        np.mean([other.mse for _, other in known], axis=0),
        disjoint_block(starts, horizon),
    ).interval
    return f"{change.value:+.1f} % [{change.low:+.1f}, {change.high:+.1f}]"


def long_table(results: Path) -> str:
    """Markdown: MSE of every form on the long data sets, and what feedback changes."""
    cells = grouped(results)
    rows = [
        [dataset, horizon, f"{first.windows} of {first.windows_total}"]
        + [scores(found.get(form, []), "mse", 3) for form in FORMS[:2]]
        + [feedback(found)]
        + [scores(found.get(form, []), "mse", 3) for form in (*FORMS[2:], "dlinear")]
        for (dataset, horizon, _), found in sorted(cells.items())
        for first in found.get("closed-loop", [])[:1]
        if "mase" not in first.metrics
    ]
    headers = [
        "data set",
        "H",
        "windows",
        *HEADINGS[:2],
        "feedback changes",
        *HEADINGS[2:],
        "DLinear, L = 336",
    ]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def transfer_table(results: Path) -> str:
    """Markdown: SMAPE from one competition to the other."""
    cells = grouped(results)
    rows = [
        [source, target, f"{first.windows} of {first.windows_total}"]
        + [scores(found.get(form, []), "smape", 2) for form in FORMS[:2]]
        + [scores(cells[target, horizon, ""].get(name, []), "smape", 2) for name in COMPARED]
        for (target, horizon, source), found in sorted(cells.items())
        for first in found.get("closed-loop", [])[:1]
        if source
    ]
    headers = [
        "trained on",
        "forecast",
        "series",
        *HEADINGS[:2],
        "Naive2",
        "seasonal naive",
        "Theta",
        "AutoETS",
    ]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    print(long_table(results), transfer_table(results), sep="\n\n")


if __name__ == "__main__":
    main()
