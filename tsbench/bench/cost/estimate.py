"""What cells will take before they run: seconds, memory and disk, from counted work and measured rates."""

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tsbench.bench.cost.collections import collection_work
from tsbench.bench.cost.ledger import Ledger
from tsbench.bench.cost.methods import METHODS, window_work
from tsbench.bench.cost.rates import Rates
from tsbench.bench.cost.work import Done, Work
from tsbench.bench.provenance import peak_rss_mb
from tsbench.bench.runner import Bench, describe
from tsbench.config import CellSpec
from tsbench.data.catalog import find_collection
from tsbench.data.paths import home
from tsbench.errors import TsbenchError
from tsbench.methods.task import Source
from tsbench.registry import find

_MB = 2**20


@dataclass(frozen=True)
class Estimate:
    """What a cell will take.

    Attributes:
        spec: The cell.
        name: One line naming it.
        done: Whether it is in the results store; then it takes nothing.
        work: What is needed and what of it is there; None where that is not known.
        seconds: Of one worker on this machine.
        peak_mb: Largest resident memory of its process, MiB, with what earlier cells left.
        disk_mb: MiB it adds to cache, artifacts and results.
        unknown: Why nothing is known; empty where something is.
    """

    spec: CellSpec
    name: str
    done: bool = False
    work: Done | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
    disk_mb: float = 0.0
    unknown: str = ""


def estimate(bench: Bench, specs: Iterable[CellSpec], rates: Rates | None = None) -> list[Estimate]:
    """Estimate cells in the order in which they will run; what several share counts for the first.

    Steps are counted from the windows, strides and bounds that the run will use, less what is cached. Each
    kind of step is measured once, with the real network on a real batch. Early stopping is not foreseen, so
    trainings count all their steps; of LoRA and FLAME it is assumed that training helps, so that test
    forecasts are new. Nothing is stored.

    Args:
        bench: As for `run_cells`; its results are read only.
        specs: Cells that passed `tsbench.bench.checks.check`.
        rates: Rates measured before; None starts without any.
    """
    cells = list(specs)
    rates = rates or Rates(bench.progress)
    keys = {spec: bench.key(spec) for spec in cells}
    stored = bench.store.done(keys.values())
    ledger = Ledger()
    found: list[Estimate] = []
    highest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for spec in cells:
            if keys[spec] in stored:
                found.append(Estimate(spec, describe(spec), done=True))
                continue
            found.append(_estimate(bench, spec, ledger, rates, Path(scratch), highest))
            highest = max(highest, found[-1].peak_mb if found[-1].work else 0)
    return found


def _estimate(
    bench: Bench, spec: CellSpec, ledger: Ledger, rates: Rates, scratch: Path, highest: float
) -> Estimate:
    started, measured = time.perf_counter(), rates.seconds
    unknown, done = _not_estimated(spec), Done()
    if not unknown:
        try:
            done = _work(bench, spec, ledger, rates, scratch)
        except TsbenchError as error:
            unknown = str(error)
    if unknown:
        nan = math.nan
        return Estimate(spec, describe(spec), seconds=nan, peak_mb=nan, disk_mb=nan, unknown=unknown)
    # Standardising data and the like is done here as in the run; measuring is not.
    own = time.perf_counter() - started - (rates.seconds - measured)
    return Estimate(
        spec,
        describe(spec),
        work=done,
        seconds=done.seconds + own,
        peak_mb=max(highest, peak_rss_mb() + done.held_bytes / _MB),
        disk_mb=done.new_bytes / _MB,
    )


def _work(bench: Bench, spec: CellSpec, ledger: Ledger, rates: Rates, scratch: Path) -> Done:
    artifacts = home() / "artifacts"
    if find_collection(spec.dataset):
        work = Work(spec, 1, artifacts, scratch, ledger, rates)
        collection_work(work, bench)
        return work.done
    task = bench.task(spec)
    work = Work(spec, task.channels, artifacts, scratch, ledger, rates)
    changes: dict[str, Any] = {"artifacts": scratch, "progress": lambda line: None, "train": work.rehearse}
    sources = tuple(Source(replace(each.task, **changes), each.frozen) for each in task.sources)
    window_work(work, replace(task, sources=sources, **changes), bench.frozen(spec, task))
    return work.done


def _not_estimated(spec: CellSpec) -> str:
    from tsbench.backbones.hub import HUB_IDS, is_here

    if spec.method not in METHODS:
        return f"method '{spec.method}' comes from another package, whose work is not known"
    weights = spec.checkpoint or HUB_IDS.get(spec.backbone)
    if find("backbone", spec.backbone).role == "language-model" and weights and not is_here(weights):
        return f"the weights of {spec.backbone} would be downloaded"
    return ""
