"""Parsed data on disk: a source file is parsed once, later loads map the arrays into memory."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from tsbench.data.paths import home
from tsbench.errors import TsbenchError
from tsbench.fsio import atomic_write

READER_VERSION = 1  # raise it when a reader's result changes for the same file


@dataclass(frozen=True)
class Parsed:
    """What a source file was parsed to: named arrays, and names of channels or series."""

    arrays: Mapping[str, NDArray[Any]]
    labels: tuple[str, ...]

    def digest(self) -> str:
        """sha256 over names, shapes, types and bytes of the arrays, and the labels."""
        digest = hashlib.sha256(json.dumps(self.labels).encode())
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def load_or_parse(name: str, sha256: str, parse: Callable[[], Parsed]) -> Parsed:
    """Load what was parsed from a source before, or parse and store it.

    The folder is ``<home>/parsed/<name>-<key>/`` with one .npy file an array and meta.json, written
    last; the key comes from the source's checksum and the reader version, so a changed source or reader
    never meets old arrays. meta.json holds a sha256 over all content, compared on every load. A check of
    size and header alone would let a flipped byte into results; hashing costs about a tenth of a second
    per 100 MB, and the pages it reads are those needed next. A folder that fails is written anew. A lock
    lets one process parse while others wait.

    Args:
        name: Name of the data set.
        sha256: Checksum of its source.
        parse: Gets and parses the source; called only when nothing valid is stored.

    Returns:
        The arrays, memory-mapped read-only, and the labels.

    Raises:
        TsbenchError: The folder cannot be written, or `parse` fails.
    """
    key = hashlib.sha256(f"{sha256} {READER_VERSION}".encode()).hexdigest()[:12]
    folder = home() / "parsed" / f"{name}-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            stored = _read(folder)
            if stored is None:
                _write(folder, parse())
                stored = _read(folder)
    except OSError as error:
        raise TsbenchError(
            f"cannot use {folder}: {error.strerror or error}; set TSBENCH_HOME to a directory you can write"
        ) from error
    if stored is None:
        raise TsbenchError(
            f"{folder} does not keep what is written to it; check the disk or set TSBENCH_HOME"
        )
    return stored


def _read(folder: Path) -> Parsed | None:
    """What the folder holds, or None if that is incomplete or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        parsed = Parsed(
            arrays={name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in meta["arrays"]},
            labels=tuple(meta["labels"]),
        )
        return parsed if parsed.digest() == meta["sha256"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError):
        return None


def _write(folder: Path, parsed: Parsed) -> None:
    for name, array in parsed.arrays.items():
        with atomic_write(folder / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    meta = {"arrays": list(parsed.arrays), "labels": parsed.labels, "sha256": parsed.digest()}
    with atomic_write(folder / "meta.json", "w") as file:
        json.dump(meta, file)
