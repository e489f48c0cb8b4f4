import hashlib
from pathlib import Path

import numpy as np
import pytest

from tsbench.data import load
from tsbench.data.catalog import CollectionEntry, Entry, LongEntry, RemoteFile, find
from tsbench.data.load import load_collection, load_dataset
from tsbench.errors import TsbenchError


def place(home: Path, name: str, contents: dict[str, str], **fields: object) -> Entry:
    """Put files into the data directory, and an entry of the catalogue's kind with their checksums."""
    files = []
    for path, text in contents.items():
        target = home / "data" / "S" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        files.append(RemoteFile(path=path, urls=(), sha256=sha256))
    return find(name).model_copy(update={"source": "S", "files": tuple(files), **fields})


@pytest.fixture
def long_entry(home: Path, monkeypatch: pytest.MonkeyPatch) -> LongEntry:
    text = "date,a,b\n2024-01-01 00:00:00,1,2\n2024-01-01 01:00:00,3,4\n"
    entry = place(home, "ETTh1", {"a.csv": text}, rows=2, channels=2)
    monkeypatch.setattr(load, "find", lambda _: entry)
    assert isinstance(entry, LongEntry)
    return entry


def test_a_placed_file_is_loaded_and_needed_only_once(home: Path, long_entry: LongEntry) -> None:
    for _ in range(2):
        dataset = load_dataset("x")
        assert dataset.values.tolist() == [[1, 2], [3, 4]]
        assert dataset.timestamps[1] == np.datetime64("2024-01-01T01:00:00")
        assert dataset.channels == ("a", "b")
        assert (dataset.name, dataset.freq, dataset.season) == ("ETTh1", "1h", 24)
        assert dataset.split == long_entry.split
        assert dataset.horizons == long_entry.horizons
        assert dataset.sha256 == long_entry.files[0].sha256
        assert not dataset.values.flags.writeable
        (home / "data" / "S" / "a.csv").unlink(missing_ok=True)


def test_when_the_placed_file_is_another_then_it_is_refused(home: Path, long_entry: LongEntry) -> None:
    (home / "data" / "S" / "a.csv").write_text("date,a,b\n2024-01-01 00:00:00,1,2\n")
    with pytest.raises(TsbenchError, match=f"has sha256 .*, expected {long_entry.files[0].sha256}"):
        load_dataset("x")


def test_when_shape_and_catalogue_disagree_then_it_is_refused(
    long_entry: LongEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "find", lambda _: long_entry.model_copy(update={"rows": 3}))
    with pytest.raises(
        TsbenchError, match=r"ETTh1 holds 2 rows x 2 channels, which is not what datasets\.toml"
    ):
        load_dataset("x")


def test_an_m4_collection_is_loaded_from_its_two_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "Train/t.csv": '"V1","V2","V3"\n"Y1","1","2.5"\n"Y2","3",\n',
        "Test/t.csv": '"V1","V2"\n"Y1","4"\n"Y2","5"\n',
    }
    entry = place(home, "M4-Yearly", contents, horizon=1, series=2)
    assert isinstance(entry, CollectionEntry)
    monkeypatch.setattr(load, "find", lambda _: entry)
    for _ in range(2):
        collection = load_collection("x")
        assert [series.tolist() for series in collection.train] == [[1, 2.5], [3]]
        assert collection.test.tolist() == [[4], [5]]
        assert collection.ids == ("Y1", "Y2")
        assert (collection.name, collection.freq, collection.season) == ("M4-Yearly", "YE", 1)
        assert collection.sha256 not in {file.sha256 for file in entry.files}
    monkeypatch.setattr(load, "find", lambda _: entry.model_copy(update={"series": 3}))
    with pytest.raises(TsbenchError, match="holds 2 series with 1 test values"):
        load_collection("x")


def test_when_the_kind_is_wrong_then_the_message_names_a_right_one() -> None:
    with pytest.raises(TsbenchError, match="M4-Hourly is a collection of short series; choose a long"):
        load_dataset("M4-Hourly")
    with pytest.raises(TsbenchError, match="ETTh1 is one long data set; choose a collection"):
        load_collection("ETTh1")
    with pytest.raises(TsbenchError, match="unknown dataset 'ETTh9'"):
        load_dataset("ETTh9")
