"""Tables of what cells will take before they run."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tsbench.bench.cost.estimate import Estimate
from tsbench.bench.cost.ledger import Amount
from tsbench.report.tables import Cell, Table

_COLUMNS = (
    "Method",
    "H",
    "Forecasts",
    "Embeddings",
    "Teachers",
    "Trained",
    "Steps",
    "Time",
    "Memory",
    "Disk",
)


def cost_tables(estimates: Sequence[Estimate], missing: Mapping[str, int], startup_s: float) -> list[Table]:
    """One table per data set with a row for each cell, and one of totals.

    Args:
        estimates: In the order of the run.
        missing: Why further cells cannot run, and how many.
        startup_s: Seconds that the command took before it had loaded and checked everything.
    """
    by_dataset: dict[str, list[Estimate]] = defaultdict(list)
    for each in estimates:
        by_dataset[each.spec.dataset].append(each)
    tables = [
        Table(name, _COLUMNS, tuple(map(_row, found)), data=tuple(map(_data, found)))
        for name, found in by_dataset.items()
    ]
    return [*tables, _totals(estimates, missing, startup_s)]


def _totals(estimates: Sequence[Estimate], missing: Mapping[str, int], startup_s: float) -> Table:
    done = sum(each.done for each in estimates)
    known = [each for each in estimates if not each.done and not each.unknown]
    unknown = Counter(each.unknown for each in estimates if each.unknown)
    counts = {
        "done": done,
        "to run": len(known),
        "to run, not estimated": unknown.total(),
        "missing": sum(missing.values()),
    }
    rows = [(f"Cells {name}", str(count)) for name, count in counts.items() if count]
    if known:
        rows += [
            ("Time of one worker", duration(startup_s + sum(each.seconds for each in known))),
            ("of it loading and checking", duration(startup_s)),
            ("Largest memory", size(max(each.peak_mb for each in known))),
            ("Disk", size(sum(each.disk_mb for each in known))),
        ]
    notes = [f"{count} not estimated: {reason}" for reason, count in unknown.items()]
    notes += [f"{count} missing: {reason}" for reason, count in missing.items()]
    if known:
        notes.append(
            "Forecasts, embeddings: windows to compute of those needed; what cells share, the first computes."
        )
        notes.append(
            "Trainings count every step; early stopping may end them sooner. No download is counted."
        )
    elif not unknown:
        notes.append("Nothing to compute.")
    return Table("Total", ("", "Sum"), tuple((Cell(name), Cell(value)) for name, value in rows), tuple(notes))


def duration(seconds: float) -> str:
    """Seconds for a reader, in two digits or so."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(mb: float) -> str:
    """MiB for a reader."""
    return f"{mb:.1f} MB" if mb < 10 else f"{mb:.0f} MB" if mb < 10_000 else f"{mb / 1024:.1f} GB"


def _row(each: Estimate) -> tuple[Cell, ...]:
    # The data set and the horizon have places of their own.
    name = each.name.partition(": ")[2]
    first = (Cell(name), Cell(str(each.spec.horizon)))
    if each.work is None:
        return (*first, *[Cell("")] * 5, Cell("done" if each.done else "?"), Cell(""), Cell(""))
    work = each.work
    parts = (work.forecasts, work.embeddings, work.teachers, work.trainings)
    return (
        *first,
        *(Cell(_share(part)) for part in parts),
        Cell(f"{work.steps:,}" if work.steps else ""),
        Cell(duration(each.seconds)),
        Cell(size(each.peak_mb)),
        Cell(size(each.disk_mb)),
    )


def _share(amount: Amount) -> str:
    return f"{amount.missing:,} of {amount.needed:,}" if amount.needed else ""


def _data(each: Estimate) -> dict[str, object]:
    figures = (each.seconds, each.peak_mb, each.disk_mb)
    seconds, peak_mb, disk_mb = (None if math.isnan(figure) else round(figure, 3) for figure in figures)
    counted = {}
    if each.work is not None:
        for name in ("forecasts", "embeddings", "teachers", "trainings"):
            amount: Amount = getattr(each.work, name)
            counted |= {f"{name}_needed": amount.needed, f"{name}_missing": amount.missing}
        counted["steps"] = each.work.steps
    return {
        "cell": each.name,
        "dataset": each.spec.dataset,
        "horizon": each.spec.horizon,
        "method": each.spec.method,
        "backbone": each.spec.backbone,
        "seed": each.spec.seed,
        "done": each.done,
        "seconds": seconds,
        "peak_mb": peak_mb,
        "disk_mb": disk_mb,
        "not_estimated": each.unknown or None,
        **counted,
    }
