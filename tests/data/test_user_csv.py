from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsbench.data.splits import SplitRule
from tsbench.data.user_csv import default_season, read_user_csv
from tsbench.errors import TsbenchError

SPLIT = SplitRule("ratio", 0.7, 0.1, 0.2)


def write(path: Path, freq: str = "1h", rows: int = 100) -> Path:
    times = pd.date_range("2024-01-31", periods=rows, freq=freq)
    pd.DataFrame({"when": times, "load": np.arange(rows), "wind": np.arange(rows) / 4}).to_csv(
        path, index=False
    )
    return path


def test_a_users_file_becomes_a_dataset(tmp_path: Path) -> None:
    dataset = read_user_csv(write(tmp_path / "site.csv", "15min", 2000), "15min", SPLIT)
    assert dataset.name == "csv-site"
    assert dataset.values.shape == (2000, 2)
    assert not dataset.values.flags.writeable
    assert dataset.values[9].tolist() == [9, 2.25]
    assert dataset.timestamps[1] - dataset.timestamps[0] == np.timedelta64(900, "s")
    assert dataset.channels == ("load", "wind")
    assert (dataset.freq, dataset.season, dataset.split) == ("15min", 96, SPLIT)
    assert dataset.horizons == (96, 192)  # 200 validation rows


def test_a_changed_value_changes_the_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "site.csv")
    before = read_user_csv(path, "1h", SPLIT).sha256
    path.write_text(path.read_text().replace(",50,", ",51,"))
    assert read_user_csv(path, "1h", SPLIT).sha256 != before


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("1h", 24),
        ("h", 24),
        ("15min", 96),
        ("10min", 144),
        ("30min", 48),
        ("7h", 1),
        ("1D", 7),
        ("B", 5),
        ("7D", 52),
        ("W", 52),
        ("ME", 12),
        ("MS", 12),
        ("QE", 4),
        ("YE", 1),
        ("3D", 1),
    ],
)
def test_the_season_follows_from_the_frequency(freq: str, season: int) -> None:
    assert default_season(freq) == season


@pytest.mark.parametrize("freq", ["1h", "1D", "B", "W", "MS", "ME", "QE", "YE"])
def test_rows_at_their_frequency_are_accepted(tmp_path: Path, freq: str) -> None:
    dataset = read_user_csv(write(tmp_path / "a.csv", freq), freq, SPLIT)
    assert dataset.season == default_season(freq)


@pytest.mark.parametrize("freq", ["hourly", "", "-1h", "0h"])
def test_when_the_frequency_is_unknown_then_examples_are_given(tmp_path: Path, freq: str) -> None:
    for call in (lambda: default_season(freq), lambda: read_user_csv(tmp_path / "a.csv", freq, SPLIT)):
        with pytest.raises(TsbenchError, match=f"frequency '{freq}'.*15min"):
            call()


def test_when_the_frequency_is_not_that_of_the_rows_then_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match=r"rows are 0 days 00:15:00 apart.*'1h'; correct --freq"):
        read_user_csv(write(tmp_path / "a.csv", "15min"), "1h", SPLIT)


def test_a_gap_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:40] + lines[50:]))
    assert len(read_user_csv(path, "1h", SPLIT).values) == 90


def swap(lines: list[str]) -> list[str]:
    return [*lines[:5], lines[6], lines[5], *lines[7:]]


def repeat(lines: list[str]) -> list[str]:
    return [*lines[:6], *lines[5:]]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (swap, r"line 7: the time 2024-01-31T04:00:00 lies before the one of the line above; sort"),
        (repeat, r"line 7: the time 2024-01-31T04:00:00 repeats the one of the line above"),
        (lambda lines: lines[:4], "3 rows do not suffice"),
        (lambda lines: lines[:1], "has no rows"),
        (lambda lines: ["t,a,a", *lines[1:]], "several columns named 'a'"),
        (lambda lines: [*lines[:3], "2024-01-31 02:00:00,,1"], "line 4, column 'load': the value is missing"),
    ],
)
def test_when_the_rows_are_wrong_then_the_message_says_where(
    tmp_path: Path, change: object, cause: str
) -> None:
    path = write(tmp_path / "a.csv")
    assert callable(change)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(TsbenchError, match=cause):
        read_user_csv(path, "1h", SPLIT)


def test_when_the_file_is_missing_then_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match=r"none\.csv: No such file"):
        read_user_csv(tmp_path / "none.csv", "1h", SPLIT)
