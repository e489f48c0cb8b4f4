"""Source files on this machine: finding them in a mirror or the data directory, and checking them."""

import hashlib
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tsbench.data.catalog import Entry, RemoteFile
from tsbench.errors import TsbenchError


def destination(entry: Entry, file: RemoteFile, data_dir: Path) -> Path:
    """Where a downloaded file lies, and where the user may place it by hand."""
    return data_dir / entry.source / file.path


def locate(entry: Entry, file: RemoteFile, mirror: Path | None, data_dir: Path) -> Path | None:
    """The file in the mirror, else in the data directory, else None. Its content is not looked at."""
    candidates = [*(_mirror_paths(file, mirror) if mirror else ()), destination(entry, file, data_dir)]
    return next((path for path in candidates if path.is_file()), None)


def is_present(entry: Entry, mirror: Path | None, data_dir: Path) -> bool:
    """Whether every file of a data set is on this machine."""
    return all(locate(entry, file, mirror, data_dir) for file in entry.files)


def _mirror_paths(file: RemoteFile, mirror: Path) -> Iterator[Path]:
    """Where the mirror keeps the content of each address: its longest matching prefix becomes a folder."""
    prefixes = _mirror_prefixes(mirror / "MANIFEST.toml")
    for url in file.urls:
        matching = [prefix for prefix in prefixes if url.startswith(prefix)]
        if matching:
            longest = max(matching, key=len)
            yield mirror / (prefixes[longest] + url.removeprefix(longest))


@cache
def _mirror_prefixes(manifest: Path) -> dict[str, str]:
    try:
        tables = tomllib.loads(manifest.read_text(encoding="utf-8"))["prefix"]
        return {table["url"]: table["path"] for table in tables}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TsbenchError(
            f"{manifest} lists no [[prefix]] tables with url and path ({error}); "
            "correct it or leave the mirror out"
        ) from error


def verify(path: Path, file: RemoteFile) -> None:
    """Check the content of a file against the catalogue.

    Accepted are the catalogue's checksum, that of the same values with other line ends, and that with
    the ranges that hold no data masked; all three mean the same values.

    Raises:
        TsbenchError: The content is another; the message names both checksums.
    """
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise TsbenchError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if found in (file.sha256, file.sha256_crlf):
        return
    if file.sha256_masked and _masked_digest(path, file.masked_bytes) == file.sha256_masked:
        return
    raise TsbenchError(
        f"{path} has sha256 {found}, expected {file.sha256}{pin_origin(file)}; "
        "delete the file and get it again with `tsbench download`"
    )


def pin_origin(file: RemoteFile) -> str:
    """A reservation to print after a checksum that was not taken from the file itself, else nothing."""
    return "" if file.verified else " (as reported by public download scripts, not verified)"


def _masked_digest(path: Path, ranges: tuple[tuple[int, int], ...]) -> str:
    content = bytearray(path.read_bytes())
    for begin, end in ranges:
        width = len(content[begin:end])
        content[begin:end] = bytes(width)
    return hashlib.sha256(content).hexdigest()
