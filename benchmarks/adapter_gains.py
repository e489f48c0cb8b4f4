"""What each adapter of flame-small changes, with intervals, from the committed records.

Usage: python benchmarks/adapter_gains.py [--results results]

Change of the MSE at H = 96 in percent, paired on the same test windows, with a 95 % moving-block bootstrap in
blocks beyond which windows share no target. The records come from
`tsbench run --backbone flame-small --horizon 96`
with `--method` ts-memory, raft, ts-rag and lora, profile `standard`, seed 0.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.metrics.bootstrap import disjoint_block, relative_change
from tsbench.report.labels import method_label
from tsbench.report.select import select

CELLS = "backbone=flame-small profile=standard horizon=96 lookback=512 rollout=median seed=0"
METHODS = (
    "No-retrieval control, PlugMem tiny",
    "TS-Memory, PlugMem tiny",
    "RAFT",
    "TS-RAG",
    "LoRA",
)


def table(results: Path) -> str:
    """Markdown: one row per data set, on the windows that TS-Memory was scored on."""
    store = ResultsStore(results)
    settings: dict[tuple[str, int], dict[str, Record]] = defaultdict(dict)
    for listed in select(store.records(), CELLS):
        record = store.load(listed.key)  # with the errors of each window
        if record is not None and record.spec.checkpoint is None:
            settings[record.spec.dataset, record.test_stride][method_label(record.spec)] = record
    rows = [
        [dataset, f"{found['Origin'].windows} of {found['Origin'].windows_total}"]
        + [change(found[method], found["Origin"]) if method in found else "–" for method in METHODS]
        for (dataset, _), found in sorted(settings.items())
        if METHODS[1] in found
    ]
    headers = ["data set", "windows", *(method.replace(", PlugMem tiny", "") for method in METHODS)]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def change(record: Record, origin: Record) -> str:
    """Such as "-2.3 % [-4.5, +0.1]"."""
    ours, theirs = record.window_scores, origin.window_scores
    if ours is None or theirs is None:
        raise SystemExit("records without the errors of each window; run the cells again")
    found = relative_change(ours.mse, theirs.mse, disjoint_block(ours.start, record.spec.horizon))
    return f"{found.value:+.1f} % [{found.low:+.1f}, {found.high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    print(table(parser.parse_args().results))


if __name__ == "__main__":
    main()
