"""Cells on M3 and M4: many short series, each forecast once from its training part and scored on its tail."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.base import Forecaster
from tsbench.backbones.naive2 import Naive2
from tsbench.bench.provenance import provenance
from tsbench.bench.records import Record
from tsbench.config import CellSpec, profile
from tsbench.data.dataset import SeriesCollection
from tsbench.data.paths import home
from tsbench.errors import TsbenchError
from tsbench.methods.task import Fitted, SeriesTask
from tsbench.metrics.scaled import mase, mean_defined, owa, seasonal_error, smape
from tsbench.metrics.streaming import point_forecast
from tsbench.stages import Stages

if TYPE_CHECKING:
    from tsbench.bench.runner import Bench

_ROWS_PER_CALL = 256


def collection_record(bench: "Bench", spec: CellSpec, key: str) -> Record:
    """Forecast and score every series of a cell's collection, or every k-th by profile or `test_stride`.

    Raises:
        TsbenchError: A forecast is not finite: leaving its series out would favour the forecaster.
    """
    started = time.perf_counter()
    collection = bench.collection(spec.dataset)
    stages = Stages()
    fitted = fit_collection(bench, spec, stages)
    total, stride = len(collection.train), series_stride(collection, spec)
    chosen = np.arange(0, total, stride)
    bench.progress(f"forecasting {len(chosen)} of {total} series")
    train = [collection.train[place] for place in chosen]
    with stages("forecast", len(train)):
        forecast = forecast_series(fitted.forecaster, train, collection.horizon, spec.lookback)
    wrong = np.flatnonzero(~np.isfinite(forecast).all(axis=1))
    if wrong.size:
        raise TsbenchError(
            f"{fitted.forecaster.name} forecasts no finite value for {wrong.size} of {len(chosen)} series, "
            f"such as {collection.ids[chosen[wrong[0]]]}; use another backbone"
        )
    with stages("score", len(train)):
        metrics = series_metrics(collection, chosen, forecast) | fitted.diagnostics
    backbone = bench.backbone(spec)
    return Record(
        key=key,
        spec=spec,
        metrics=metrics,
        costs=stages.costs(),
        windows=len(chosen),
        windows_total=total,
        test_stride=stride,
        levels=(),
        alpha=None,
        provenance=provenance(
            collection.sha256, backbone.identity, spec.device, time.perf_counter() - started
        ),
    )


def fit_collection(bench: "Bench", spec: CellSpec, stages: Stages) -> Fitted:
    """Make the forecaster of a cell on a collection: the backbone, or F-LLM trained on another collection."""
    backbone = bench.backbone(spec)
    if spec.train_dataset is None:
        return Fitted(backbone)
    from tsbench.methods.f_llm_transfer import fit_transfer

    return fit_transfer(replace(series_task(bench, spec), stages=stages), backbone)


def series_task(bench: "Bench", spec: CellSpec) -> SeriesTask:
    """The collection that a cell on another one is trained on."""
    source = bench.collection(spec.train_dataset or spec.dataset)
    return SeriesTask(spec, profile(spec.profile), source, home() / "artifacts", bench.progress)


def series_stride(collection: SeriesCollection, spec: CellSpec) -> int:
    """Every how many series one is scored."""
    return spec.test_stride or -(-collection.test.size // profile(spec.profile).max_test_values)


def forecast_series(
    forecaster: Forecaster, train: Sequence[NDArray[np.float64]], horizon: int, lookback: int
) -> NDArray[np.float64]:
    """Point forecast (level 0.5) of each series from its last values.

    Series go to the forecaster in groups of equal length, so that any forecaster will do and none sees
    padding.

    Args:
        forecaster: What forecasts.
        train: N series [T_i], oldest value first, in data units.
        horizon: H, steps ahead.
        lookback: Values used of each series at most.

    Returns:
        [N, H] float64 in data units.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, series in enumerate(train):
        by_length[min(len(series), lookback)].append(place)
    forecast = np.empty((len(train), horizon))
    for length, places in by_length.items():
        for first in range(0, len(places), _ROWS_PER_CALL):
            rows = places[first : first + _ROWS_PER_CALL]
            context = np.stack([train[place][-length:] for place in rows]).astype(np.float32)
            quantiles = forecaster.predict(torch.from_numpy(context), horizon)
            forecast[rows] = point_forecast(quantiles, forecaster.quantile_levels).double().cpu().numpy()
    return forecast


def series_metrics(
    collection: SeriesCollection, chosen: NDArray[np.int64], forecast: NDArray[np.float64]
) -> dict[str, float]:
    """Scores of the M competitions, means over series, beside those of Naive2 on the same series.

    The scale of MASE comes from the whole training part, at the catalogue's season; where it is zero, the
    series has no MASE and is counted in `series_without_mase`. OWA is the ratio of means that M4 defines. Its
    Naive2 is ours, from the whole training parts, not the published forecasts: of the same scores in M4.

    Args:
        collection: The series.
        chosen: [n] places of the series that are scored.
        forecast: [n, H] in data units.

    Returns:
        smape (0 to 200), mase, owa, smape_naive2, mase_naive2, series_without_mase; NaN where undefined.
    """
    train = [collection.train[place] for place in chosen]
    target = collection.test[chosen]
    scale = np.array([seasonal_error(series, collection.season) for series in train])
    reference = forecast_series(
        Naive2(collection.season), train, collection.horizon, max(len(series) for series in train)
    )
    own, naive2 = (
        (mean_defined(smape(target, point)).mean, mean_defined(mase(target, point, scale)))
        for point in (forecast, reference)
    )
    comparable = naive2[0] > 0 and naive2[1].mean > 0
    return {
        "smape": own[0],
        "mase": own[1].mean,
        "owa": owa(own[0], own[1].mean, naive2[0], naive2[1].mean) if comparable else math.nan,
        "smape_naive2": naive2[0],
        "mase_naive2": naive2[1].mean,
        "series_without_mase": float(own[1].n_undefined),
    }
