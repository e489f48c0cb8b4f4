"""Supervised baselines beside what their own papers print, from the committed records.

Usage: python benchmarks/supervised_table.py [--results results]

The records come from `tsbench run --method supervised --backbone NAME --dataset ... --horizon ...`, profile
`standard`; means over the seeds that are there. Published: DLinear at lookback 336 (arXiv 2205.13504, Table
2), PatchTST/64 at 512 (arXiv 2211.14730, Table 3), iTransformer and TimesNet at 96 (full tables of their
papers).
"""

import argparse
from pathlib import Path

import numpy as np
from tabulate import tabulate

from tsbench.bench.store import ResultsStore
from tsbench.report.labels import spread
from tsbench.report.select import select
from tsbench.report.tables import comparable_rows

HORIZONS = (96, 192, 336, 720)
PUBLISHED = {
    ("dlinear", "ETTh1"): (0.375, 0.405, 0.439, 0.472),
    ("dlinear", "ETTh2"): (0.289, 0.383, 0.448, 0.605),
    ("dlinear", "Exchange"): (0.081, 0.157, 0.305, 0.643),
    ("dlinear", "Weather"): (0.176, 0.220, 0.265, 0.323),
    ("patchtst", "ETTh1"): (0.370, 0.413, 0.422, 0.447),
    ("patchtst", "ETTh2"): (0.274, 0.341, 0.329, 0.379),
    ("patchtst", "Weather"): (0.149, 0.194, 0.245, 0.314),
    ("itransformer", "ETTh1"): (0.386, 0.441, 0.487, 0.503),
    ("timesnet", "ETTh1"): (0.384, 0.436, 0.491, 0.521),
}


def table(results: Path) -> str:
    """Markdown: one row per network, data set and horizon."""
    rows = []
    records = select(ResultsStore(results).records(), "method=supervised profile=standard")
    for alike in comparable_rows(records):
        for row in alike:
            spec, record, mses = row.spec, row.records[0], row.values("mse")
            printed = dict(zip(HORIZONS, PUBLISHED.get((spec.backbone, spec.dataset), ()), strict=False))
            theirs = printed.get(spec.horizon)
            beside = (
                ["–", "–"]
                if theirs is None
                else [f"{theirs:.3f}", f"{100 * (float(np.mean(mses)) / theirs - 1):+.1f} %"]
            )
            windows = f"{record.windows} of {record.windows_total}"
            scores = [spread(mses, ".3f"), spread(row.values("mae"), ".3f")]
            where = [row.label, spec.dataset, spec.horizon, spec.lookback, windows]
            rows.append([*where, len(row.records), *scores, *beside])
    headers = ["network", "data set", "H", "lookback", "windows", "seeds", "MSE", "MAE"]
    headers += ["published MSE", "difference"]
    return tabulate(sorted(rows), headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    print(table(parser.parse_args().results))


if __name__ == "__main__":
    main()
