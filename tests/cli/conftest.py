import shlex
from pathlib import Path

import numpy as np
import pytest
import toy
from typer.testing import CliRunner, Result

from tsbench.bench.store import ResultsStore
from tsbench.cli import app, audit, bench, data, figures, latency, page, pretrain, report

# importing them registers the commands
assert audit and bench and data and figures and latency and page and pretrain and report

SUITE = """
title = "Two methods on built-in data"
datasets = ["demo", "ETTh1"]
horizons = [12, 24]
lookback = 48

[[rows]]
method = "origin"
backbones = ["toy"]

[[rows]]
method = "raft"
backbones = ["toy"]

[[absent]]
methods = ["lvicl"]
reason = "LVICL is not in tsbench"
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with its own TSBENCH_HOME, no mirror, and the toy backbone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    for name in ("TSBENCH_MIRROR", "TSBENCH_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    toy.install(monkeypatch)
    return tmp_path


@pytest.fixture
def tsbench() -> toy.Cli:
    """Run a command line; further arguments are appended as they are."""

    def invoke(line: str, *more: str) -> Result:
        return CliRunner().invoke(app, [*shlex.split(line), *more])

    return invoke


@pytest.fixture
def store(workplace: Path) -> ResultsStore:
    """What the commands leave in ./results."""
    return ResultsStore(workplace / "results")


@pytest.fixture
def sales(workplace: Path) -> Path:
    """A user's CSV of 400 days and two channels."""
    rows = [f"{day(index)},{10 + index % 7},{(index * 37) % 101 / 10}" for index in range(400)]
    path = workplace / "sales.csv"
    path.write_text("\n".join(["date,store,online", *rows]) + "\n")
    return path


@pytest.fixture
def own_suite(workplace: Path) -> Path:
    """A user's suite: two methods on the toy, and one that tsbench does not have."""
    path = workplace / "mine.toml"
    path.write_text(SUITE)
    return path


def day(index: int) -> str:
    return str(np.datetime64("2023-01-01") + index)
