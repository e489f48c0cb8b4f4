"""Fetching the public files of a data set, with checksum, resume and fall-back addresses."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from filelock import FileLock

from tsbench.data.catalog import Entry, RemoteFile
from tsbench.data.local import destination, locate, pin_origin, verify
from tsbench.data.paths import find_mirror
from tsbench.errors import TsbenchError

# Called with the file's path, the bytes present so far and the bytes in all (None: not known).
Progress = Callable[[str, int, int | None], None]

MAX_BYTES = 2**30  # bound where the catalogue knows no size; the largest file is about 0.5 GB
_CHUNK_BYTES = 2**16
_TIMEOUT_SECONDS = (10, 60)  # to connect, between two reads
_ATTEMPTS = 5  # per address, as long as each brings new bytes


def download(
    entry: Entry,
    mirror: Path | None,
    data_dir: Path,
    progress: Progress | None = None,
) -> list[Path]:
    """Make the files of a data set available and check them.

    A file of the mirror is read where it lies: what is parsed from it is cached, so a copy would only
    cost disk. With a mirror nothing is fetched over the network.

    Args:
        entry: Data set.
        mirror: Local mirror; None stands for TSBENCH_MIRROR, and where that is unset for none.
        data_dir: Directory for downloaded files; one the user placed there counts as downloaded.
        progress: Told how each download proceeds.

    Returns:
        Paths in the order of `entry.files`.

    Raises:
        TsbenchError: A file is missing from the mirror, cannot be fetched, or has the wrong content.
    """
    mirror = find_mirror(mirror)
    paths = []
    for file in entry.files:
        path = locate(entry, file, mirror, data_dir)
        if path is None:
            path = destination(entry, file, data_dir)
            if mirror:
                raise TsbenchError(
                    f"the mirror {mirror} lacks {file.path} of {entry.name}; "
                    f"leave the mirror out to download it, or place the file at {path}"
                )
            _fetch(file, path, progress or (lambda *_: None))
        verify(path, file)
        paths.append(path)
    return paths


def _fetch(file: RemoteFile, path: Path, progress: Progress) -> None:
    """Download to `path` from the first address that gives the right content."""
    pooch.get_logger().setLevel("WARNING")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                _try_addresses(file, path, progress)
    except OSError as error:
        raise TsbenchError(
            f"cannot write {path}: {error.strerror or error}; "
            "free some space or set TSBENCH_HOME to another directory"
        ) from error


def _try_addresses(file: RemoteFile, path: Path, progress: Progress) -> None:
    part = path.with_name(path.name + ".part")

    def resume(url: str, output_file: str, _: object) -> None:
        _complete_part(url, part, file, progress)
        part.replace(output_file)

    failures = []
    for url in file.urls:
        try:
            pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, downloader=resume)
            return
        except requests.RequestException as error:
            failures.append(f"{urlsplit(url).netloc}: {_reason(error)}")
        except ValueError as error:  # pooch: wrong checksum; it has deleted the download
            found = str(error).partition("but got ")[2].split(".")[0]
            failures.append(
                f"{urlsplit(url).netloc}: sha256 is {found}, expected {file.sha256}{pin_origin(file)}"
            )
    raise TsbenchError(
        f"cannot download {path.name} ({'; '.join(failures)}); try again, or use a local mirror "
        f"(--mirror DIR or TSBENCH_MIRROR=DIR), or place the file at {path}"
    )


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


def _complete_part(url: str, part: Path, file: RemoteFile, progress: Progress) -> None:
    """Fetch until the `.part` file is whole; a connection that breaks off is resumed while it progresses."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = _size(part)
        if before == file.n_bytes:
            return
        try:
            _request_rest(url, part, file, progress)
            return
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if attempt == _ATTEMPTS or _size(part) <= before:
                raise


def _request_rest(url: str, part: Path, file: RemoteFile, progress: Progress) -> None:
    """One request for what the `.part` file lacks, or for all of it if the server knows no ranges."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # at least as long as the file, so no beginning of it
            return _request_rest(url, part, file, progress)
        answer.raise_for_status()
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        limit = file.n_bytes or MAX_BYTES
        with part.open("ab" if have else "wb") as output:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                have += len(chunk)
                if have > limit:
                    output.truncate(0)
                    raise requests.RequestException(f"sends more than the expected {limit} bytes")
                output.write(chunk)
                progress(file.path, have, file.n_bytes or total)
    if total is not None and have < total:
        raise requests.exceptions.ChunkedEncodingError("the connection broke off")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
