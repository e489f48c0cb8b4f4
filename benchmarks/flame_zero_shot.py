"""The zero-shot table of docs/flame.md, from the committed records and the published figures.

Usage: python benchmarks/flame_zero_shot.py [--results results]

The records come from
    tsbench run --method flame --dataset ETTh1 ETTh2 ETTm1 ETTm2 Weather Exchange \
        --horizon 96 192 336 720 --test-stride 1
"""

import argparse
from pathlib import Path

from tabulate import tabulate

from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.report.published import published
from tsbench.report.select import select

DATASETS = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "Exchange")
HORIZONS = (96, 192, 336, 720)
PUBLISHED = ("chronos-bolt-tiny", "chronos-bolt-base")
BACKBONES = ("naive-last", "naive-seasonal", "flame-small")
CELLS = f"method=origin test_stride=1 lookback=512 rollout=median backbone={','.join(BACKBONES)}"


def table(results: Path) -> str:
    """Markdown: MSE / MAE / CRPS of every data set and horizon, on all test windows."""
    records = {
        (record.spec.dataset, record.spec.horizon, record.spec.backbone): record
        for record in select(ResultsStore(results).records(), CELLS)
        if record.spec.checkpoint is None
    }
    rows = [
        [
            dataset,
            horizon,
            records[dataset, horizon, "flame-small"].windows,
            *(_scores(records[dataset, horizon, name]) for name in BACKBONES),
            *(_printed(dataset, horizon, backbone) for backbone in PUBLISHED),
        ]
        for dataset in DATASETS
        for horizon in HORIZONS
        if (dataset, horizon, "flame-small") in records
    ]
    headers = [
        "data set",
        "H",
        "windows",
        "repeat last",
        "seasonal naive",
        "flame-small",
        *(f"{backbone}, published: MSE / MAE" for backbone in PUBLISHED),
    ]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _scores(record: Record) -> str:
    return " / ".join(f"{record.metrics[score]:.3f}" for score in ("mse", "mae", "crps"))


def _printed(dataset: str, horizon: int, backbone: str) -> str:
    """What the TS-Memory paper prints of a backbone zero-shot; its first table counts."""
    found = {
        metric: next(
            (
                f"{figure.value:.3f}"
                for figure in published()
                if (figure.paper, figure.method, figure.backbone) == ("ts-memory", "origin", backbone)
                and (figure.dataset, figure.horizon, figure.metric) == (dataset, str(horizon), metric)
            ),
            "–",
        )
        for metric in ("mse", "mae")
    }
    return f"{found['mse']} / {found['mae']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    print(table(parser.parse_args().results))


if __name__ == "__main__":
    main()
