"""A folder of results for the page: seeds, a leak, verdicts, a collection, a failure, and nasty names."""

from pathlib import Path

import numpy as np
from figure_results import MADE, cell, measurement, memory, record

from tsbench.bench.latency_records import save_measurement
from tsbench.bench.records import Failure, Record, WindowScores
from tsbench.bench.store import ResultsStore
from tsbench.config import TsMemoryOptions

NASTY = "csv-</script><img src=x onerror=alert(1)>&\"'"
ERROR = "cannot read <b>that</b>; </script><script>alert(2)</script>"


def windows(mse: float, noise: int, gain: float = 0.0) -> WindowScores:
    """Errors of 400 windows around a mean; `gain` is taken from every one."""
    rng = np.random.default_rng(7)
    shared = rng.uniform(0.5, 1.5, 400)
    own = np.random.default_rng(noise).normal(0, 0.05, 400)
    errors = (mse * shared + own - gain).astype(np.float32)
    return WindowScores(np.arange(400) * 4, errors, errors, errors, np.ones(400, np.float32))


def records() -> list[Record]:
    oracle = TsMemoryOptions.model_validate({"plugmem": "tiny", "alpha_policy": "oracle"})
    nasty = {"dataset": NASTY}
    series = {"smape": 12.5, "mase": 0.9, "owa": 0.95, "series_without_mase": 0.0}
    naive = {"smape_naive2": 13.0, "mase_naive2": 1.0}
    return [
        record(cell("origin", 24, "naive-seasonal"), 0.6, window_scores=windows(0.6, 1)),
        record(cell("origin", 24), 0.4, window_scores=windows(0.4, 2)),
        record(memory(24), 0.3, window_scores=windows(0.4, 3, gain=0.1)),
        record(memory(24, seed=1), 0.31, window_scores=windows(0.4, 3, gain=0.09)),
        record(cell("raft", 24), 0.401, window_scores=windows(0.4, 4)),
        record(cell("ts-memory", 24, options=oracle), 0.2, window_scores=windows(0.2, 5)),
        record(cell("origin", 48), 0.45, details=None, window_scores=windows(0.45, 6)),
        record(cell("origin", 24, **nasty), 0.5),
        record(cell("origin", 18, "naive2", dataset="M3-Monthly"), 0.5, metrics=series | naive, details=None),
    ]


def write_page_results(root: Path) -> ResultsStore:
    """Write them, with a measurement of latency."""
    store = ResultsStore(root)
    for each in records():
        store.save(each)
    spec = cell("origin", 96, dataset=NASTY)
    store.save_failure(Failure("f" * 64, spec, ERROR))
    save_measurement(root, measurement(24))
    assert MADE.device == "Some CPU"
    return store
