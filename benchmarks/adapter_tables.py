"""What each adapter of a frozen backbone changes, from the committed records: the tables of docs/adapters.md.

Usage: python benchmarks/adapter_tables.py [--results results]

Gains are changes of the MSE in percent, paired on the same test windows, with 95 %
intervals for windows that share targets. The records come from
`tsbench run --backbone flame-small` and `--backbone fracast`
with `--method` ts-memory, raft, ts-rag and, on flame-small, lora, profile `standard`, seed 0. TS-Memory
is the one with the profile's PlugMem, `tiny`.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import get_args

from tabulate import tabulate

from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.choices import PlugMemSizeName
from tsbench.metrics.overlap import disjoint_block, relative_change
from tsbench.report.labels import method_label
from tsbench.report.select import select

CELLS = "profile=standard lookback=512 rollout=median seed=0"
ADAPTERS = ("No-retrieval control", "TS-Memory", "RAFT", "TS-RAG", "LoRA")
SCORES = ("mse", "mae", "crps")
BACKBONES = ("flame-small", "fracast")
Setting = dict[str, Record]


def settings(
    results: Path, backbone: str, only: str = "", plugmem: PlugMemSizeName = "tiny"
) -> dict[tuple[str, int], Setting]:
    """Rows of one backbone by data set and horizon, all on the windows that TS-Memory was scored on last."""
    store = ResultsStore(results)
    found: dict[tuple[str, int, int], Setting] = defaultdict(dict)
    for listed in select(store.records(), f"{CELLS} backbone={backbone} {only}"):
        record = store.load(listed.key)  # with the errors of each window
        if record is not None and record.spec.checkpoint is None and has_size(record, plugmem):
            own = record.spec.model_copy(update={"train_stride": None})  # three settings of fracast have one
            label = method_label(own).replace(f", PlugMem {plugmem}", "")
            found[record.spec.dataset, record.spec.horizon, -record.test_stride][label] = record
    complete = {key: rows for key, rows in sorted(found.items()) if "TS-Memory" in rows and "Origin" in rows}
    return {(dataset, horizon): rows for (dataset, horizon, _), rows in complete.items()}


def has_size(record: Record, plugmem: PlugMemSizeName) -> bool:
    """Whether its PlugMem, if it has one, is of this size."""
    return record.spec.options is None or record.spec.options.plugmem == plugmem


def gains_table(results: Path, backbone: str, only: str = "horizon=96") -> str:
    """Markdown: a row per data set and horizon, the change of the MSE by adapter."""
    rows = [
        [dataset, horizon, f"{found['Origin'].windows} of {found['Origin'].windows_total}"]
        + [change(found[name], found["Origin"]) if name in found else "–" for name in ADAPTERS]
        for (dataset, horizon), found in settings(results, backbone, only).items()
    ]
    headers = ["data set", "H", "windows", *ADAPTERS]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def scores_table(results: Path, backbone: str) -> str:
    """Markdown: MSE / MAE / CRPS of the backbone alone and with each adapter."""
    columns = ("Origin", *ADAPTERS)
    rows = [
        [dataset, horizon, found["Origin"].windows, *(scores(found.get(name)) for name in columns)]
        for (dataset, horizon), found in settings(results, backbone).items()
    ]
    return tabulate(rows, ["data set", "H", "windows", *columns], tablefmt="github", disable_numparse=True)


def transfer_table(results: Path) -> str:
    """Markdown: memory modules trained for another backbone or on other data sets, a row for each."""
    rows = []
    for backbone in BACKBONES:
        for (dataset, horizon), found in settings(results, backbone).items():
            carried = {
                label: record
                for label, record in found.items()
                if record.spec.method == "ts-memory"
                and (record.spec.plugmem_from or record.spec.train_dataset)
            }
            if carried:
                own = {name: found[name] for name in ADAPTERS[:2] if name in found}
                for name, record in (own | dict(sorted(carried.items()))).items():
                    gain = change(record, found["Origin"])
                    rows.append([backbone, dataset, horizon, name, alpha(record), scores(record), gain])
    headers = ["backbone", "data set", "H", "memory module", "α", "MSE / MAE / CRPS", "MSE against Origin"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def sizes_table(results: Path, backbone: str) -> str:
    """Markdown: a row per data set, horizon and size of PlugMem, where there are several sizes."""
    found: dict[tuple[str, int], dict[str, Setting]] = defaultdict(dict)
    for size in get_args(PlugMemSizeName):
        for place, rows in settings(results, backbone, plugmem=size).items():
            found[place][size] = rows
    rows = []
    for (dataset, horizon), sizes in sorted(found.items()):
        for size, cells in sizes.items() if len(sizes) > 1 else ():
            pair = [cells[name] for name in ADAPTERS[:2]]
            gains = [change(record, cells["Origin"]) for record in pair]
            rows.append([dataset, horizon, size, *map(scores, pair), *gains])
    headers = ["data set", "H", "PlugMem", "control", "TS-Memory", "control against Origin", "TS-Memory"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def alpha(record: Record) -> str:
    """The fusion weight."""
    return "–" if record.alpha is None else f"{record.alpha:.2f}"


def scores(record: Record | None) -> str:
    """Such as ".385 / .391 / .395"."""
    if record is None:
        return "–"
    return " / ".join(f"{record.metrics[score]:.3f}".lstrip("0") for score in SCORES)


def change(record: Record, origin: Record) -> str:
    """Such as "-2.3 % [-4.5, +0.1]"."""
    ours, theirs = record.window_scores, origin.window_scores
    if ours is None or theirs is None:
        raise SystemExit("records without the errors of each window; run the cells again")
    found = relative_change(ours.mse, theirs.mse, disjoint_block(ours.start, record.spec.horizon)).interval
    return f"{found.value:+.1f} % [{found.low:+.1f}, {found.high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    for backbone in BACKBONES:
        print(f"\n{backbone}: MSE / MAE / CRPS\n\n{scores_table(results, backbone)}")
        print(f"\n{backbone}: change of the MSE\n\n{gains_table(results, backbone, '')}")
    print(f"\nSizes of PlugMem on flame-small\n\n{sizes_table(results, 'flame-small')}")
    print(f"\nTransfer\n\n{transfer_table(results)}")


if __name__ == "__main__":
    main()
