"""Where tsbench keeps its files, and where a local mirror is."""

import os
from pathlib import Path

from platformdirs import user_cache_dir

from tsbench.errors import TsbenchError


def home() -> Path:
    """Directory of downloads and caches: TSBENCH_HOME, or the user's cache directory of the system."""
    return Path(os.environ.get("TSBENCH_HOME") or user_cache_dir("tsbench"))


def default_data_dir() -> Path:
    """Directory of downloaded source files."""
    return home() / "data"


def find_mirror(mirror: Path | None) -> Path | None:
    """The mirror to read source files from: `mirror`, else TSBENCH_MIRROR, else None.

    Raises:
        TsbenchError: It is named but is no mirror.
    """
    named = mirror or os.environ.get("TSBENCH_MIRROR")
    if not named:
        return None
    if not (Path(named) / "MANIFEST.toml").is_file():
        raise TsbenchError(
            f"{named} is not a mirror: it holds no MANIFEST.toml; "
            "correct --mirror or TSBENCH_MIRROR, or leave it out"
        )
    return Path(named)
