"""The audit of a data set: defects of its rows and values, and what they do to scores."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tsbench.bench.audit.findings import Audit, Ledger, Severity
from tsbench.bench.audit.repeat_last import RepeatLast, constant_spans, repeat_last
from tsbench.data.dataset import Dataset, SeriesCollection
from tsbench.data.splits import split_borders
from tsbench.data.windows import window_grid

BASELINE = "repeat-last is scored"
TIMES = "times rise by one step"
SENTINELS = "values are no codes for missing ones"
CONSTANT = "contexts have variance"
NAMES = "channel names are readable and distinct"
UNUSED = "every row is used"
WEEKDAYS = "weekdays mean something"
FILE = "lines end as text files' do"
SERIES = "series have one sign and some variance"

_LOOKBACK = 512
_HORIZON = 96
_FAR = 2.0
"""A lowest or highest value is a code if it lies more than this many ranges of the others away from them."""


def audit_datasets(
    datasets: Iterable[Dataset],
    collections: Iterable[SeriesCollection],
    files: dict[str, Path],
    horizon: int | None = None,
) -> Audit:
    """Audit data sets.

    Args:
        datasets: Long data sets.
        collections: Collections of short series (M3, M4).
        files: Source files of long data sets, by name, for what reading them hides.
        horizon: Steps H of the windows that scores are given for; None takes each data set's first, or 96,
            shortened to what its rows allow.
    """
    ledger = Ledger()
    for dataset in datasets:
        audit_dataset(dataset, ledger, horizon)
        if dataset.name in files:
            _audit_file(dataset.name, files[dataset.name], ledger)
    for collection in collections:
        _audit_collection(collection, ledger)
    return ledger.audit()


def audit_dataset(dataset: Dataset, ledger: Ledger, horizon: int | None = None) -> None:
    """Look for defects of one long data set.

    Raises:
        TsbenchError: The horizon does not fit its splits.
    """
    asked = horizon or _first_horizon(dataset)
    plain = repeat_last(dataset, dataset.values, asked, _LOOKBACK)
    group = dataset.name
    setting = f"{len(plain.grid.starts)} test windows, H = {asked}, L = {plain.grid.lookback}"
    ledger.find("note", BASELINE, group, "repeat-last", f"{setting}: {plain.scores()}.", 0)
    _audit_times(dataset, plain, group, ledger)
    _audit_sentinels(dataset, plain, group, ledger)
    _audit_constant(dataset, plain, group, ledger)
    _audit_names(dataset, group, ledger)
    ledger.look(UNUSED, len(dataset.values))
    unused = len(dataset.values) - plain.borders.test[1]
    if unused:
        text = f"{unused} of {len(dataset.values)} rows lie after the test split and are not used."
        ledger.find("note", UNUSED, group, "rows", text, unused)
    if dataset.freq in ("1D", "D"):
        _audit_weekdays(dataset, group, ledger)


def _first_horizon(dataset: Dataset) -> int:
    borders = split_borders(dataset.split, len(dataset.values))
    first = dataset.horizons[0] if dataset.horizons else _HORIZON
    return min(first, borders.test[1] - borders.test[0], borders.train[1] // 2)


def _audit_times(dataset: Dataset, plain: RepeatLast, group: str, ledger: Ledger) -> None:
    times = dataset.timestamps
    gaps = np.diff(times).astype(np.int64)
    step = max(1, int(np.median(gaps)))
    ledger.look(TIMES, len(gaps))
    kinds = {
        "repeat the time of the row above": np.flatnonzero(gaps == 0) + 1,
        "go back behind the row above": np.flatnonzero(gaps < 0) + 1,
    }
    for what, rows in kinds.items():
        if len(rows):
            text = f"rows that {what}: {len(rows)}, the first is row {rows[0]} ({_time(times[rows[0]])})"
            ledger.find("fault", TIMES, group, "times", f"{text}; {_effect(plain, rows)}.", len(rows))
    late = np.flatnonzero(gaps > 1.5 * step) + 1
    if len(late):
        missing = int(np.rint(gaps[late - 1] / step - 1).sum())
        first = late[0]
        text = (
            f"missing times: {missing}, in gaps: {len(late)}, the first between rows {first - 1} and {first} "
            f"({_time(times[first - 1])} to {_time(times[first])})"
        )
        ledger.find("fault", TIMES, group, "times", f"{text}; {_effect(plain, late)}.", len(late))


def _time(stamp: np.datetime64) -> str:
    return str(stamp).replace("T", " ")


def _effect(plain: RepeatLast, rows: NDArray[np.int64]) -> str:
    """How many test windows hold one of the rows, and the scores without them."""
    touched = plain.touched(rows)
    share = f"{int(touched.sum())} of {len(touched)} test windows hold one"
    if not touched.any():
        return share
    kept = np.broadcast_to(~touched[:, None], plain.mse.shape)
    return f"{share}, repeat-last without them {plain.scores(kept)}"


def sentinels(values: NDArray[np.float64]) -> float | None:
    """The lowest or highest of a channel's values [T], where it lies far off all others; None for neither."""
    distinct = np.unique(values)
    if len(distinct) < 3:
        return None
    for code, rest in ((distinct[0], distinct[1:]), (distinct[-1], distinct[:-1])):
        gap = min(abs(code - rest[0]), abs(code - rest[-1]))
        if gap > _FAR * (rest[-1] - rest[0]) and code == np.rint(code):
            return float(code)
    return None


def _audit_sentinels(dataset: Dataset, plain: RepeatLast, group: str, ledger: Ledger) -> None:
    values, (begin, end) = dataset.values, plain.borders.train
    ledger.look(SENTINELS, values.size)
    codes = {channel: sentinels(values[:, channel]) for channel in range(values.shape[1])}
    codes = {channel: code for channel, code in codes.items() if code is not None}
    if not codes:
        return
    marked = np.zeros(values.shape, dtype=bool)
    for channel, code in codes.items():
        marked[:, channel] = values[:, channel] == code
    mended = _carried_forward(values, marked)
    for channel, code in codes.items():
        rows = np.flatnonzero(marked[:, channel])
        in_train = int(((rows >= begin) & (rows < end)).sum())
        text = (
            f"{code:g} stands in {len(rows)} rows from {rows[0]} to {rows[-1]}, {in_train} of them train "
            f"rows; the train deviation is {values[begin:end, channel].std():.6f}, with the value before in "
            f"its place {mended[begin:end, channel].std():.6f}."
        )
        cell = f"channel {channel}, {dataset.channels[channel]}"
        ledger.find("fault", SENTINELS, group, cell, text, len(rows))
    scored = repeat_last(dataset, mended, plain.grid.horizon, plain.grid.lookback)
    text = (
        f"{int(marked.sum())} values are codes; {_effect(plain, np.flatnonzero(marked.any(axis=1)))}. With "
        f"the value before in place of each, repeat-last has {scored.scores()}."
    )
    ledger.find("fault", SENTINELS, group, "all channels", text, 0)


def _carried_forward(values: NDArray[np.float64], marked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values with each marked one replaced by the last unmarked one before it."""
    rows = np.where(marked, 0, np.arange(len(values))[:, None])
    return np.asarray(np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0))


def _audit_constant(dataset: Dataset, plain: RepeatLast, group: str, ledger: Ledger) -> None:
    """Contexts of one value: a division by the standard deviation of the window divides by zero."""
    grid, lookback = plain.grid, plain.grid.lookback
    train = window_grid(plain.borders, "train", lookback, grid.horizon).starts
    constant = constant_spans(dataset.values, grid.starts - lookback, lookback)
    in_train = constant_spans(dataset.values, train - lookback, lookback)
    ledger.look(CONSTANT, constant.size)
    for channel, name in enumerate(dataset.channels):
        test, known = int(constant[:, channel].sum()), int(in_train[:, channel].sum())
        if test or known:
            text = (
                f"{test} of {len(constant)} test contexts and {known} of {len(in_train)} train contexts hold "
                "a single value"
            )
            if test:
                kept = np.zeros_like(constant)
                kept[:, channel] = True
                own, without = plain.scores(kept), plain.scores(kept & ~constant)
                text += f"; repeat-last on this channel has {own}, without them {without}"
            severity: Severity = "fault" if test else "note"
            ledger.find(severity, CONSTANT, group, f"channel {channel}, {name}", f"{text}.", test)
    if constant.any():
        text = f"leaving out all constant contexts, repeat-last has {plain.scores(~constant)}."
        ledger.find("note", CONSTANT, group, "all channels", text, 0)


def _audit_names(dataset: Dataset, group: str, ledger: Ledger) -> None:
    ledger.look(NAMES, len(dataset.channels))
    lost = [place for place, name in enumerate(dataset.channels) if "\N{REPLACEMENT CHARACTER}" in name]
    if lost:
        text = f"the names of channels {', '.join(map(str, lost))} have lost a character (U+FFFD)."
        ledger.find("fault", NAMES, group, "channel names", text, len(lost))
    repeated = {name for name in dataset.channels if dataset.channels.count(name) > 1}
    if repeated:
        text = f"several channels are called {', '.join(sorted(repeated))}."
        ledger.find("fault", NAMES, group, "channel names", text, len(repeated))


def _audit_weekdays(dataset: Dataset, group: str, ledger: Ledger) -> None:
    """Days that all change alike: their weekdays may be made up, and a season of seven rests on them."""
    days = dataset.timestamps.astype("datetime64[D]").astype(np.int64)
    weekday = (days[1:] + 3) % 7  # day 0 was a Thursday; 0 is Monday here
    if len(np.unique(weekday)) < 7:
        return
    ledger.look(WEEKDAYS)
    changes = np.abs(np.diff(dataset.values, axis=0)) / (dataset.values.std(axis=0) + 1e-300)
    means = np.array([changes[weekday == day].mean() for day in range(7)])
    if means.max() < 1.25 * means.min():
        text = (
            f"mean changes from day to day differ by a factor of {means.max() / means.min():.2f} between "
            f"weekdays, Sundays included; a season of {dataset.season} may rest on made-up dates."
        )
        ledger.find("note", WEEKDAYS, group, "times", text)


def _audit_file(name: str, path: Path, ledger: Ledger) -> None:
    ledger.look(FILE)
    content = path.read_bytes()
    found = []
    if b"\r\n" in content:
        found.append("lines end with CR LF")
    if not content.endswith(b"\n"):
        found.append("the last line has no end")
    if found:
        ledger.find("note", FILE, f"{name}: file", path.name, f"{' and '.join(found)}.")


def _audit_collection(collection: SeriesCollection, ledger: Ledger) -> None:
    """Values of the wrong sign, and training parts without variance, in a collection of short series."""
    group = f"{collection.name}: {len(collection.ids)} series, H = {collection.horizon}"
    ledger.look(SERIES, len(collection.ids))
    for name, train, test in zip(collection.ids, collection.train, collection.test, strict=True):
        values = np.concatenate([train, test])
        negative = np.flatnonzero(values <= 0)
        if 0 < len(negative) < 0.05 * len(values):
            place = int(negative[0])
            part = "test" if place >= len(train) else "training"
            others = values[values > 0].mean()
            text = (
                f"values not positive: {len(negative)} of {len(values)}, the first {values[place]:g} "
                f"at position {place + 1}, in the {part} part; the mean of the others is {others:.0f}."
            )
            ledger.find("fault", SERIES, group, name, text)
        if np.ptp(train) == 0:
            text = f"all {len(train)} training values are {train[0]:g}, so it has no MASE."
            ledger.find("note", SERIES, group, name, text)
