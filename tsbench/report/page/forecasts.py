"""What the page's forecast browser draws: a few test windows of every method that stored some."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.bench.records import Record, SampleForecasts
from tsbench.bench.store import ResultsStore
from tsbench.metrics.streaming import point_forecast
from tsbench.report.figures.forecasts import intervals
from tsbench.report.labels import backbone_label
from tsbench.report.tables import comparable_rows

MOST_BYTES = 2_500_000
"""Of all values in the page. Settings have fewer windows where they would take more."""
_LARGEST = 32_000


@dataclass(frozen=True, eq=False)
class Fan:
    """The forecasts of one cell, at its first seed.

    Attributes:
        label: Method and backbone.
        key: Of the record.
        bands: Central intervals, the widest first: places of their two series, and a name.
        series: [W, C, S, H] the point forecast, then lower and upper bound of each interval.
    """

    label: str
    key: str
    bands: tuple[tuple[int, int, str], ...]
    series: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Windows:
    """One data set and horizon with the forecasts of its methods on the same windows.

    Attributes:
        label: Data set, horizon, lookback, profile.
        samples: Of the first method; its forecasts are not used.
        fans: The methods.
    """

    label: str
    samples: SampleForecasts
    fans: tuple[Fan, ...]


def forecast_windows(records: Sequence[Record], store: ResultsStore) -> tuple[list[Windows], int]:
    """Collect the stored sample forecasts of cells that compare.

    Args:
        records: Chosen cells.
        store: Where their details are.

    Returns:
        Data sets and horizons with any, and how many cells have none. Cells whose samples are of other
        windows than those of the first in their setting are among the latter.

    Raises:
        TsbenchError: A file is damaged.
    """
    found: dict[str, Windows] = {}
    absent = 0
    for rows in comparable_rows(records):
        samples: SampleForecasts | None = None
        fans = []
        for row in rows:
            loaded = store.load(row.records[0].key)
            details = loaded.details if loaded else None
            if details is None or (samples and not _same_windows(details.samples, samples)):
                absent += 1
                continue
            samples = samples or details.samples
            name = f"{row.label} · {backbone_label(row.spec)}"
            fans.append(_fan(name, row.records[0].key, tuple(details.levels.tolist()), details.samples))
        if samples is not None:
            spec, first = rows[0].spec, rows[0].records[0]
            label = f"{spec.dataset}, H = {spec.horizon}, L = {spec.lookback}, profile {spec.profile}"
            if label in found:
                label += f", {first.windows} windows of {first.provenance.device}"
            while label in found:
                label += f", data {first.provenance.data_sha256[:8]}"
            found[label] = Windows(label, samples, tuple(fans))
    return list(found.values()), absent


def _same_windows(one: SampleForecasts, other: SampleForecasts) -> bool:
    return one.channels == other.channels and np.array_equal(one.start, other.start)


def _fan(label: str, key: str, levels: tuple[float, ...], samples: SampleForecasts) -> Fan:
    point = point_forecast(torch.tensor(samples.forecast), levels).numpy()
    chosen = intervals(levels)
    series = [point, *(samples.forecast[:, :, place] for low, high, _ in chosen for place in (low, high))]
    bands = tuple((1 + 2 * place, 2 + 2 * place, name) for place, (_, _, name) in enumerate(chosen))
    return Fan(label, key, bands, np.stack(series, axis=2))


def thinned(found: Sequence[Windows], most_bytes: int = MOST_BYTES) -> list[Windows]:
    """Keep as many windows of each, evenly spaced, as fit into the page together; at least one."""
    kept = list(found)
    most = max((len(one.samples.start) for one in kept), default=0)
    while most > 1 and sum(map(_size, kept)) > most_bytes:
        most -= 1
        kept = [_fewer_windows(one, most) for one in found]
    return kept


def _fewer_windows(one: Windows, most: int) -> Windows:
    count = len(one.samples.start)
    shown = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    cut = {name: getattr(one.samples, name)[shown] for name in ("start", "time", "context", "target")}
    fans = tuple(replace(fan, series=fan.series[shown]) for fan in one.fans)
    return replace(one, samples=replace(one.samples, **cut), fans=fans)


def _size(one: Windows) -> int:
    values = one.samples.context.size + one.samples.target.size + sum(fan.series.size for fan in one.fans)
    return values * 8 // 3  # 16 bits in base64


def packed(found: Iterable[Windows]) -> list[dict[str, Any]]:
    """For the script: arrays as 16-bit integers in base64 with their scale, in C order."""
    return [
        {
            "label": one.label,
            "channels": list(one.samples.channels),
            "times": [str(time).replace("T", " ")[:16] for time in one.samples.time],
            "context": _packed(one.samples.context),
            "target": _packed(one.samples.target),
            "methods": [
                {
                    "label": fan.label,
                    "key": fan.key,
                    "bands": [list(band) for band in fan.bands],
                    "series": _packed(fan.series),
                }
                for fan in one.fans
            ],
        }
        for one in found
    ]


def _packed(values: NDArray[np.float32]) -> dict[str, Any]:
    """Missing values are -32768."""
    known = np.isfinite(values)
    largest = float(np.abs(values[known]).max(initial=0)) or 1.0
    whole = np.where(known, np.rint(np.where(known, values, 0) / largest * _LARGEST), -32_768)
    data = b64encode(whole.astype("<i2").tobytes()).decode()
    return {"shape": list(values.shape), "scale": float(f"{largest / _LARGEST:.6g}"), "data": data}
