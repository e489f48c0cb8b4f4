"""The work of a cell on M3 or M4."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tsbench.backbones.base import Forecaster
from tsbench.bench.collections import forecast_series, series_metrics, series_stride, series_task
from tsbench.bench.cost.work import Work
from tsbench.methods.f_llm_transfer import fit_transfer

if TYPE_CHECKING:
    from tsbench.bench.runner import Bench

_RUNS, _RUN = 4, 16  # series that forecasting and scoring are measured on
_RECORD_BYTES = 3 * 4096


def collection_work(work: Work, bench: "Bench") -> None:
    """Add up the work of a cell on a collection: F-LLM's training, if there is one, and every series."""
    spec = work.spec
    collection = bench.collection(spec.dataset)
    forecaster: Forecaster = bench.backbone(spec)
    if spec.train_dataset is not None:
        task = series_task(bench, spec)
        counted = replace(task, artifacts=work.scratch, progress=lambda line: None, train=work.rehearse)
        forecaster = fit_transfer(counted, bench.backbone(spec)).forecaster
    chosen = np.arange(0, len(collection.train), series_stride(collection, spec))
    lengths = np.array([len(collection.train[place]) for place in chosen])
    # Neighbours by length, so that as many of them share a call as in the run.
    firsts = np.linspace(0, max(0, len(chosen) - _RUN), _RUNS).astype(np.int64)
    places = np.unique(np.add.outer(firsts, np.arange(min(_RUN, len(chosen)))))
    few = chosen[np.argsort(lengths, kind="stable")][places]
    train = [collection.train[place] for place in few]
    work.spend(
        ("forecast series", spec.backbone, spec.dataset, spec.method, spec.f_llm),
        len(chosen),
        len(few),
        lambda: forecast_series(forecaster, train, collection.horizon, spec.lookback),
    )
    flat = np.ones((len(few), collection.horizon))
    work.spend(
        ("score series", spec.dataset), len(chosen), len(few), lambda: series_metrics(collection, few, flat)
    )
    work.done.new_bytes += _RECORD_BYTES
