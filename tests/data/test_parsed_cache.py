import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tsbench.data import cache
from tsbench.data.cache import Parsed, load_or_parse
from tsbench.errors import TsbenchError

PARSED = Parsed(
    {"values": np.arange(12.0).reshape(6, 2), "timestamps": np.arange(6).astype("datetime64[s]")}, ("a", "ü")
)


class Parser:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Parsed:
        self.calls += 1
        return PARSED


def assert_is_parsed(loaded: Parsed) -> None:
    assert loaded.labels == PARSED.labels
    for name, array in PARSED.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
        assert loaded.arrays[name].dtype == array.dtype
        assert isinstance(loaded.arrays[name], np.memmap)
        assert not loaded.arrays[name].flags.writeable


def folder_in(home: Path) -> Path:
    (folder,) = (path for path in (home / "parsed").iterdir() if path.is_dir())
    return folder


def test_a_source_is_parsed_once(home: Path) -> None:
    parser = Parser()
    for _ in range(3):
        assert_is_parsed(load_or_parse("A", "1" * 64, parser))
    assert parser.calls == 1
    assert folder_in(home).name.startswith("A-")


def test_another_source_or_reader_version_is_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser()
    load_or_parse("A", "1" * 64, parser)
    load_or_parse("A", "2" * 64, parser)
    monkeypatch.setattr(cache, "READER_VERSION", 2)
    load_or_parse("A", "1" * 64, parser)
    assert parser.calls == 3


@pytest.mark.parametrize(
    ("name", "begin", "end", "replacement"),
    [
        ("values.npy", -3, None, b"\x01\x02\x03"),  # a flipped value, same size
        ("values.npy", -8, None, b""),  # cut short
        ("values.npy", 0, None, b""),
        ("values.npy", 0, 6, b"broken"),
        ("timestamps.npy", -8, -7, b"\x07"),
        ("meta.json", 0, None, b""),
        ("meta.json", 0, None, b"[]"),
        ("meta.json", 0, None, b"{}"),
        ("meta.json", -10, None, b"\xff"),
    ],
)
def test_when_a_stored_file_is_damaged_then_it_is_parsed_again(
    home: Path, name: str, begin: int, end: int | None, replacement: bytes
) -> None:
    parser = Parser()
    load_or_parse("A", "1" * 64, parser)
    path = folder_in(home) / name
    content = bytearray(path.read_bytes())
    content[begin:end] = replacement
    path.write_bytes(content)
    assert_is_parsed(load_or_parse("A", "1" * 64, parser))
    assert_is_parsed(load_or_parse("A", "1" * 64, parser))
    assert parser.calls == 2


@pytest.mark.parametrize("name", ["values.npy", "meta.json"])
def test_when_a_stored_file_is_gone_then_it_is_parsed_again(home: Path, name: str) -> None:
    parser = Parser()
    load_or_parse("A", "1" * 64, parser)
    (folder_in(home) / name).unlink()
    assert_is_parsed(load_or_parse("A", "1" * 64, parser))


def test_when_parsing_fails_then_nothing_is_stored() -> None:
    def fail() -> Parsed:
        raise TsbenchError("no such file")

    with pytest.raises(TsbenchError, match="no such file"):
        load_or_parse("A", "1" * 64, fail)
    assert_is_parsed(load_or_parse("A", "1" * 64, Parser()))


def test_when_home_cannot_be_written_then_the_remedy_is_named(home: Path) -> None:
    home.write_text("a file, no directory")
    with pytest.raises(TsbenchError, match="set TSBENCH_HOME"):
        load_or_parse("A", "1" * 64, Parser())


def test_two_processes_parse_once(home: Path, tmp_path: Path) -> None:
    code = f"""
import numpy as np
from pathlib import Path
from tsbench.data.cache import Parsed, load_or_parse
def parse():
    with Path({str(tmp_path / "calls")!r}).open("a") as calls:
        calls.write("x")
    return Parsed({{"values": np.ones((1000, 100))}}, ("a",))
assert load_or_parse("A", "1", parse).arrays["values"].sum() == 100_000
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert (tmp_path / "calls").read_text() == "x"
