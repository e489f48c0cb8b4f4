"""Loading a data set of the catalogue by name."""

import hashlib
from pathlib import Path

import numpy as np

from tsbench.data.cache import Parsed, load_or_parse
from tsbench.data.catalog import CollectionEntry, Entry, LongEntry, find
from tsbench.data.dataset import Dataset, SeriesCollection
from tsbench.data.demo import array_sha256, demo_timestamps, generate_demo
from tsbench.data.download import Progress, download
from tsbench.data.paths import default_data_dir
from tsbench.data.readers import read_long_csv, read_m3, read_m4
from tsbench.errors import TsbenchError


def load_dataset(name: str, mirror: Path | None = None, progress: Progress | None = None) -> Dataset:
    """Load a long multivariate data set; its files are fetched if they are not here yet.

    Args:
        name: Name in the catalogue, upper or lower case, such as "ETTh1"; "demo" is generated.
        mirror: Local mirror; None stands for TSBENCH_MIRROR, and where that is unset for the network.
        progress: Told how a download proceeds.

    Raises:
        TsbenchError: The name is unknown or a competition's; or its files cannot be had or read.
    """
    entry = find(name)
    if not isinstance(entry, LongEntry):
        raise TsbenchError(
            f"{entry.name} is a collection of short series; choose a long data set such as ETTh1"
        )
    if entry.kind == "generated":
        parsed = _generate(entry)
        sha256 = array_sha256(parsed.arrays["values"])
    else:
        sha256 = source_sha256(entry)
        parsed = load_or_parse(
            entry.name, sha256, lambda: _parse_long(download(entry, mirror, default_data_dir(), progress))
        )
    values = parsed.arrays["values"]
    if values.shape != (entry.rows, entry.channels):
        raise _disagreement(entry, f"{values.shape[0]} rows x {values.shape[1]} channels")
    return Dataset(
        name=entry.name,
        values=values,
        timestamps=parsed.arrays["timestamps"],
        channels=parsed.labels,
        freq=entry.freq,
        season=entry.season,
        split=entry.split,
        horizons=entry.horizons,
        sha256=sha256,
    )


def load_collection(
    name: str, mirror: Path | None = None, progress: Progress | None = None
) -> SeriesCollection:
    """Load one frequency of M3 or M4, such as "M4-Hourly"; arguments and errors as for `load_dataset`."""
    entry = find(name)
    if not isinstance(entry, CollectionEntry):
        raise TsbenchError(
            f"{entry.name} is one long data set; choose a collection of short series such as M4-Hourly"
        )
    sha256 = source_sha256(entry)
    parsed = load_or_parse(
        entry.name,
        sha256,
        lambda: _parse_series(entry, download(entry, mirror, default_data_dir(), progress)),
    )
    joined, borders, test = (parsed.arrays[part] for part in ("train", "borders", "test"))
    if test.shape != (entry.series, entry.horizon):
        raise _disagreement(entry, f"{test.shape[0]} series with {test.shape[1]} test values")
    return SeriesCollection(
        name=entry.name,
        train=tuple(np.split(joined.view(np.ndarray), borders[1:-1])),
        test=test,
        ids=parsed.labels,
        freq=entry.freq,
        season=entry.season,
        horizon=entry.horizon,
        sha256=sha256,
    )


def source_sha256(entry: Entry) -> str:
    """Checksum by which records know a data set with files: its file's, or of several the joined ones'."""
    pins = [file.sha256 for file in entry.files]
    return pins[0] if len(pins) == 1 else hashlib.sha256("".join(pins).encode()).hexdigest()


def _generate(entry: LongEntry) -> Parsed:
    values, timestamps = generate_demo(entry.rows, entry.channels), demo_timestamps(entry.rows)
    values.setflags(write=False)
    channels = tuple(f"channel {index}" for index in range(entry.channels))
    return Parsed({"values": values, "timestamps": timestamps}, channels)


def _parse_long(paths: list[Path]) -> Parsed:
    table = read_long_csv(paths[0])
    return Parsed({"values": table.values, "timestamps": table.timestamps}, table.channels)


def _parse_series(entry: CollectionEntry, paths: list[Path]) -> Parsed:
    """Train series are stored end to end, series i in rows [borders[i], borders[i + 1])."""
    if entry.sheet:
        table = read_m3(paths[0], entry.sheet, entry.horizon)
    else:
        table = read_m4(paths[0], paths[1], entry.horizon)
    borders = np.cumsum([0, *(len(series) for series in table.train)])
    return Parsed({"train": np.concatenate(table.train), "borders": borders, "test": table.test}, table.ids)


def _disagreement(entry: Entry, found: str) -> TsbenchError:
    return TsbenchError(
        f"the source of {entry.name} holds {found}, which is not what datasets.toml states; "
        "correct the entry, or report it if you did not change it"
    )
