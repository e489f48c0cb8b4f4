import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tsbench.data import plugins
from tsbench.data.plugins import load_plugins
from tsbench.errors import TsbenchError

GUIDE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)
    return str(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed the guide's package."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("extend")
    project = folder / "tsbench-drift"
    project.mkdir()
    (project / "pyproject.toml").write_text(block("toml"))
    (project / "tsbench_drift.py").write_text(block("python"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    target = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(project)], check=True
    )
    return target


def tsbench(site: Path, folder: Path, *words: str) -> str:
    paths = [str(site), os.environ["PYTHONPATH"]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TSBENCH_HOME": str(folder)}
    command = [sys.executable, "-m", "tsbench", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guides_package_runs_with_the_guides_command(site: Path, tmp_path: Path) -> None:
    command = next(line for line in block("sh").splitlines() if line.startswith("tsbench "))
    output = tsbench(site, tmp_path, *command.split()[1:], "--profile", "quick")
    rows = {row.split("│")[1].strip() for row in output.splitlines() if row.startswith("│")}
    assert {"Repeat last", "Seasonal naive", "Origin", "damped"} <= rows
    assert "waves, H = 24" in output


def test_the_guides_method_passes_the_canaries(site: Path, tmp_path: Path) -> None:
    assert "`tsbench audit --method damped --backbone drift`" in GUIDE
    output = tsbench(site, tmp_path, "audit", "--method", "damped", "--backbone", "drift")
    assert "Findings: none." in output


@pytest.mark.parametrize(
    ("kind", "name"), [("backbones", "drift"), ("methods", "damped"), ("datasets", "waves")]
)
def test_what_a_package_adds_is_listed_with_its_name(
    site: Path, tmp_path: Path, kind: str, name: str
) -> None:
    words = " ".join(tsbench(site, tmp_path, "list", kind).split())
    assert re.search(rf"\b{name} from package tsbench-drift", words)


class Point:
    """Stands for an entry point."""

    dist = None

    def __init__(self, name: str, made: object) -> None:
        self.name, self.made = name, made

    def load(self) -> object:
        if isinstance(self.made, Exception):
            raise self.made
        return lambda: self.made


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        ("ETTh1", None, "'ETTh1' of package unknown has a name that is taken; uninstall it"),
        ("etth1", None, "'etth1' of package unknown has a name that is taken; uninstall it"),
        ("mine", 3, "'mine' of package unknown is not a Dataset of that name; mend the package"),
        ("mine", ImportError("no numpy"), r"cannot be loaded \(no numpy\); mend the package"),
    ],
)
def test_a_package_that_does_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, made: object, message: str
) -> None:
    monkeypatch.setattr(plugins, "installed_points", lambda group: [Point(name, made)])
    with pytest.raises(TsbenchError, match=message):
        load_plugins([name])


def test_names_of_the_catalogue_pass() -> None:
    assert load_plugins(["ETTh1", "demo"]) == (["ETTh1", "demo"], {})
