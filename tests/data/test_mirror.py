import hashlib
from pathlib import Path

import pytest

from tsbench.data.catalog import LongEntry, RemoteFile, find
from tsbench.data.download import download
from tsbench.data.local import is_present, verify
from tsbench.data.paths import find_mirror, home
from tsbench.errors import TsbenchError

MANIFEST = """
[[prefix]]
url = "https://example.org/"
path = "wide/"

[[prefix]]
url = "https://example.org/data/"
path = "narrow/"
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry_with(file: RemoteFile) -> LongEntry:
    entry = find("ETTh1")
    assert isinstance(entry, LongEntry)
    return entry.model_copy(update={"source": "S", "files": (file,)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mirror" / "narrow").mkdir(parents=True)
    (tmp_path / "mirror" / "MANIFEST.toml").write_text(MANIFEST)
    return tmp_path / "mirror"


FILE = RemoteFile(
    path="a.csv",
    urls=("https://elsewhere.org/a.csv", "https://example.org/data/a.csv"),
    sha256=sha256(b"a\nb\n"),
    sha256_crlf=sha256(b"a\r\nb\r\n"),
)


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\r\nb\r\n"])
def test_a_mirrored_file_is_read_in_place_under_its_longest_prefix(
    folder: Path, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "narrow" / "a.csv").write_bytes(content)
    assert download(entry_with(FILE), folder, tmp_path) == [folder / "narrow" / "a.csv"]
    monkeypatch.setenv("TSBENCH_MIRROR", str(folder))
    assert download(entry_with(FILE), None, tmp_path) == [folder / "narrow" / "a.csv"]


def test_when_the_mirror_lacks_a_file_then_one_placed_by_hand_serves(folder: Path, tmp_path: Path) -> None:
    entry = entry_with(FILE)
    assert not is_present(entry, folder, tmp_path)
    with pytest.raises(
        TsbenchError, match=r"lacks a\.csv of ETTh1; leave the mirror out .* place the file at"
    ):
        download(entry, folder, tmp_path)
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.csv").write_bytes(b"a\nb\n")
    assert is_present(entry, folder, tmp_path)
    assert download(entry, folder, tmp_path) == [tmp_path / "S" / "a.csv"]


def test_when_the_content_is_wrong_then_both_checksums_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "narrow" / "a.csv").write_bytes(b"other")
    with pytest.raises(TsbenchError, match=f"has sha256 {sha256(b'other')}, expected {FILE.sha256}; delete"):
        download(entry_with(FILE), folder, tmp_path)
    reported = FILE.model_copy(update={"verified": False})
    with pytest.raises(TsbenchError, match="as reported by public download scripts, not verified"):
        download(entry_with(reported), folder, tmp_path)


def test_masked_bytes_may_differ_and_no_others(tmp_path: Path) -> None:
    file = FILE.model_copy(
        update={
            "sha256_masked": sha256(b"0\0\0\x003\0"),
            "masked_bytes": ((1, 4), (5, 6)),
            "sha256": sha256(b"0abc3d"),
        }
    )
    path = tmp_path / "a"
    for content in (b"0abc3d", b"0xyz3w"):
        path.write_bytes(content)
        verify(path, file)
    for content in (b"1xyz3w", b"0xyz3ww", b"0"):
        path.write_bytes(content)
        with pytest.raises(TsbenchError, match="has sha256"):
            verify(path, file)


def test_when_the_named_mirror_is_none_then_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match=r"is not a mirror: it holds no MANIFEST\.toml"):
        find_mirror(tmp_path / "nowhere")
    (tmp_path / "MANIFEST.toml").write_text("absent = []")
    with pytest.raises(TsbenchError, match=r"lists no \[\[prefix\]\] tables"):
        download(entry_with(FILE), tmp_path, tmp_path)


def test_home_is_the_variable_or_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("TSBENCH_HOME")
    assert home().name == "tsbench"
    assert find_mirror(None) is None
