"""The catalogue of data sets, read from datasets.toml. Imports nothing heavy: shell completion reads it."""

import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tsbench.data.splits import SplitRule
from tsbench.errors import TsbenchError


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RemoteFile(_Model):
    """One public file.

    Attributes:
        path: Path below the source's addresses and below ``<data directory>/<source>``.
        urls: Addresses that hold the same bytes, tried in order.
        n_bytes: Size, where known; a download never grows beyond it.
        sha256: Checksum.
        sha256_crlf: Checksum of the same values with CRLF line ends.
        sha256_masked: Checksum with `masked_bytes` zeroed.
        masked_bytes: Byte ranges [from, to) that hold no data and differ between copies.
        verified: Whether the checksum was taken from the file itself; otherwise it is the one public
            download scripts report.
    """

    path: str
    urls: tuple[str, ...]
    n_bytes: int | None = None
    sha256: str
    sha256_crlf: str | None = None
    sha256_masked: str | None = None
    masked_bytes: tuple[tuple[int, int], ...] = ()
    verified: bool = True


class _Entry(_Model):
    name: str
    source: str
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    freq: str
    season: int


class LongEntry(_Entry):
    """A long multivariate data set; attributes as in `tsbench.data.dataset.Dataset`."""

    kind: Literal["csv", "generated"]
    horizons: tuple[int, ...]
    split: SplitRule
    rows: int
    channels: int


class CollectionEntry(_Entry):
    """A competition's set of short series; attributes as in `tsbench.data.dataset.SeriesCollection`.

    Kind "m3" has one workbook and the name of a sheet; kind "m4" a train and a test file, in this order.
    """

    kind: Literal["m3", "m4"]
    horizon: int
    series: int
    sheet: str | None = None


Entry = LongEntry | CollectionEntry


class Catalogue(_Model):
    """Every known data set by name, and the groups of names."""

    entries: dict[str, Entry]
    groups: dict[str, tuple[str, ...]]


@cache
def catalogue() -> Catalogue:
    """The data sets of datasets.toml, in its order."""
    raw = tomllib.loads(_catalogue_text())
    entry = TypeAdapter[Entry](Annotated[Entry, Field(discriminator="kind")])
    entries = {
        name: entry.validate_python({"name": name, **_join_source(table, raw["source"][table["source"]])})
        for name, table in raw["dataset"].items()
    }
    with_files = tuple(name for name, item in entries.items() if item.files)
    return Catalogue(entries=entries, groups={**raw["group"], "all": with_files})


def _catalogue_text() -> str:
    """The copy inside the installed package, or the one beside the package in a checkout."""
    packaged = files("tsbench") / "datasets.toml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(str(files("tsbench"))).parent / "datasets.toml").read_text(encoding="utf-8")


def _join_source(table: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Replace the file paths of a data set by what its source says about them."""
    joined = [
        {"path": path, "urls": [base + path for base in source["urls"]], **source["files"][path]}
        for path in table["files"]
    ]
    return {**table, "files": joined, "licence": source["licence"]}


def find(name: str) -> Entry:
    """The data set called `name`, upper or lower case.

    Raises:
        TsbenchError: There is none, the message names the nearest; or it is the name of a group.
    """
    entries, groups = catalogue().entries, catalogue().groups
    for group, members in groups.items():
        if name.lower() == group.lower():
            raise TsbenchError(f"{group} stands for several data sets; choose one of {', '.join(members)}")
    return entries[_match(name, list(entries))]


def find_collection(name: str) -> CollectionEntry | None:
    """The collection of exactly this name; None where it is a long data set, or not in the catalogue."""
    entry = catalogue().entries.get(name)
    return entry if isinstance(entry, CollectionEntry) else None


def resolve(names: Iterable[str]) -> list[Entry]:
    """The data sets and groups ("M4", "all") called `names`, each data set once, in the order given.

    Raises:
        TsbenchError: A name is unknown; the message names the nearest.
    """
    entries, groups = catalogue().entries, catalogue().groups
    found: dict[str, Entry] = {}
    for name in names:
        match = _match(name, [*entries, *groups])
        found |= {member: entries[member] for member in groups.get(match, (match,))}
    return list(found.values())


def _match(name: str, known: list[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = set(get_close_matches(name.lower(), by_lower, n=3, cutoff=0.76))
    if near:
        hint = "did you mean " + ", ".join(by_lower[lower] for lower in by_lower if lower in near) + "?"
    else:
        hint = "known are " + ", ".join(known)
    raise TsbenchError(f"unknown dataset '{name}'; {hint}")
