"""Writing files so that a kill leaves the old file or the new one, never a half."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from tsbench.errors import TsbenchError


@contextmanager
def atomic_write(path: Path, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success fsync it and rename it over `path`.

    Args:
        path: Final file; its parent directories are created.
        mode: "wb" or "w" (UTF-8, line feeds kept as written).

    Raises:
        TsbenchError: The directory cannot be written.
    """
    encoding, newline = (None, None) if mode == "wb" else ("utf-8", "\n")
    with atomic_path(path) as temporary, temporary.open(mode, encoding=encoding, newline=newline) as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give the name of an empty temporary file beside `path` to write to, as `atomic_write` does.

    Raises:
        TsbenchError: The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise TsbenchError(f"cannot write {path}: {error.strerror}; choose a writable directory") from error
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
