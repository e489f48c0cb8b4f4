import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import toy

from tsbench.data import catalog
from tsbench.data.catalog import Catalogue, RemoteFile

CONTENT = b"date,OT\n2016-07-01 00:00:00,1.5\n"


@pytest.fixture
def etth1(monkeypatch: pytest.MonkeyPatch) -> None:
    """ETTh1 as a file of one row, at an address where nobody answers."""
    real = catalog.catalogue()
    file = RemoteFile(
        path="ETTh1.csv",
        urls=("http://127.0.0.1:1/ETTh1.csv",),
        n_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    entry = real.entries["ETTh1"].model_copy(update={"files": (file,)})
    changed = Catalogue(entries=real.entries | {"ETTh1": entry}, groups=real.groups)
    monkeypatch.setattr(catalog, "catalogue", lambda: changed)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def small_mirror(workplace: Path, etth1: None) -> Path:
    mirror = workplace / "mirror"
    mirror.mkdir()
    (mirror / "MANIFEST.toml").write_text('[[prefix]]\nurl = "http://127.0.0.1:1/"\npath = "ETT/"\n')
    (mirror / "ETT").mkdir()
    (mirror / "ETT" / "ETTh1.csv").write_bytes(CONTENT)
    return mirror


def test_download_reads_a_mirror_where_it_lies_and_says_where(
    tsbench: toy.Cli, small_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = f"ETTh1: {small_mirror / 'ETT' / 'ETTh1.csv'}"
    given = tsbench(f"download etth1 --mirror {small_mirror}")
    assert given.exit_code == 0
    assert expected in given.stderr
    monkeypatch.setenv("TSBENCH_MIRROR", str(small_mirror))
    assert expected in tsbench("download ETTh1").stderr


def test_download_of_several_names_what_is_missing_and_fetches_the_rest(
    tsbench: toy.Cli, small_mirror: Path
) -> None:
    result = tsbench(f"download Weather ETTh1 --mirror {small_mirror}")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"the mirror {small_mirror} lacks weather/weather.csv of Weather" in errors[0]
    assert "ETTh1: " in result.stderr


def test_a_changed_byte_in_the_mirror_is_caught(tsbench: toy.Cli, small_mirror: Path) -> None:
    path = small_mirror / "ETT" / "ETTh1.csv"
    path.write_bytes(CONTENT.replace(b"1.5", b"1.6"))
    result = tsbench(f"download ETTh1 --mirror {small_mirror}")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert hashlib.sha256(CONTENT).hexdigest() in line
    assert hashlib.sha256(path.read_bytes()).hexdigest() in line
    assert "delete the file and get it again with `tsbench download`" in line


def test_without_a_connection_the_ways_out_are_named(tsbench: toy.Cli, etth1: None) -> None:
    result = tsbench("download ETTh1")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "--mirror" in line
    assert "place the file at" in line
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["download ETTh1", "list datasets", "run --dataset ETTh1"])
def test_a_mirror_that_is_none_is_refused(
    tsbench: toy.Cli, workplace: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("TSBENCH_MIRROR", str(workplace))
    result = tsbench(command)
    assert result.exit_code == 2
    assert result.stderr.count("error: ") == 1
    assert f"{workplace} is not a mirror" in result.stderr


def test_download_of_an_unknown_name_suggests_one(tsbench: toy.Cli) -> None:
    result = tsbench("download EETh1")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: unknown dataset 'EETh1'; did you mean ETTh1")
    assert len(result.stderr.splitlines()) == 1


def test_list_datasets_tells_what_is_here_and_how_to_get_the_rest(
    tsbench: toy.Cli, small_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSBENCH_MIRROR", str(small_mirror))
    result = tsbench("list datasets")
    assert result.exit_code == 0
    state = {line.split()[0]: line.rstrip() for line in result.stdout.splitlines() if line[1:2].strip()}
    assert state["demo"].endswith("ready")
    assert state["ETTh1"].endswith("ready")
    assert state["Weather"].endswith("tsbench download Weather")
    assert "414 series" in state["M4-Hourly"]
    assert all(name in state for name in catalog.catalogue().entries)


def test_list_backbones_tells_what_must_be_installed(
    tsbench: toy.Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chronos", None)
    lines = {line.split()[0]: line.rstrip() for line in tsbench("list backbones").stdout.splitlines()}
    assert lines["naive-last"].endswith("ready")
    assert lines["chronos-2"].endswith("missing; pip install 'tsbench[chronos]'")
    assert "chronos-bolt-base (chronos-bolt)" in lines["chronos-bolt-base"]


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("methods", ["origin", "ts-memory", "raft", "ts-rag", "f-llm", "flame", "lora", "supervised"]),
        ("profiles", ["quick", "standard", "paper"]),
    ],
)
def test_list_methods_and_profiles(tsbench: toy.Cli, what: str, shown: list[str]) -> None:
    result = tsbench(f"list {what}")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == shown


def test_version(tsbench: toy.Cli) -> None:
    result = tsbench("--version")
    assert (result.exit_code, result.stdout) == (0, f"tsbench {version('tsbench')}\n")


COMMANDS = ["build-teacher", "train", "eval", "run", "download", "list", "report"]


def test_help_names_every_command(tsbench: toy.Cli) -> None:
    for line in ("-h", "--help"):
        result = tsbench(line)
        assert result.exit_code == 0
        assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_with_an_example(tsbench: toy.Cli, command: str) -> None:
    result = tsbench(f"{command} -h")
    assert result.exit_code == 0
    assert f"tsbench {command}" in result.stdout.partition("Example")[2]
