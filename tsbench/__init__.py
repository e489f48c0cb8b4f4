"""tsbench benchmarks time-series foundation models and the ways to adapt them."""

from tsbench.api import evaluate, load_dataset, run, run_suite
from tsbench.errors import TsbenchError

__all__ = ["TsbenchError", "evaluate", "load_dataset", "run", "run_suite"]
