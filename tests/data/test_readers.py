import csv
from pathlib import Path

import numpy as np
import pytest
from short_series import write_m4, write_workbook

from tsbench.data.readers import read_long_csv, read_m3, read_m4
from tsbench.errors import TsbenchError


def write(path: Path, text: str, newline: str = "\n") -> Path:
    path.write_bytes(text.replace("\n", newline).encode())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last_newline", ["\n", ""])
def test_line_ends_do_not_matter(tmp_path: Path, newline: str, last_newline: str) -> None:
    text = f"date,a,OT\n2016-07-01 00:00:00,5,-1.5\n2016-07-01 01:00:00,6,2e-3{last_newline}"
    table = read_long_csv(write(tmp_path / "a.csv", text, newline))
    np.testing.assert_array_equal(table.values, [[5, -1.5], [6, 0.002]])
    assert table.values.dtype == np.float64
    assert table.channels == ("a", "OT")
    assert table.timestamps.dtype == np.dtype("datetime64[s]")
    assert table.timestamps.tolist() == np.array(["2016-07-01T00", "2016-07-01T01"], "M8[s]").tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1990/1/1 0:00", "1990-01-01T00:00:00"),
        ("2010/10/10 13:05", "2010-10-10T13:05:00"),
        ("2010/10/10 13:05:07", "2010-10-10T13:05:07"),
        ("2024/1/31", "2024-01-31T00:00:00"),
        ("2024-01-31", "2024-01-31T00:00:00"),
        ("2024-01-31T10:00Z", "2024-01-31T10:00:00"),
        ("2024-01-31T10:00+02:00", "2024-01-31T08:00:00"),
    ],
)
def test_times_are_iso_or_year_month_day(tmp_path: Path, text: str, expected: str) -> None:
    table = read_long_csv(write(tmp_path / "a.csv", f"date,0\n{text},1\n"))
    assert table.timestamps[0] == np.datetime64(expected)


def test_rows_are_kept_as_they_are(tmp_path: Path) -> None:
    text = (
        "date,SWDR (W/m\ufffd),SWDR (W/m\ufffd)\n2020-05-12 06:00:00,1,-9999\n2020-05-12 06:00:00,1,-9999\n"
        "2020-05-12 05:00:00,2,0\n"
    )
    table = read_long_csv(write(tmp_path / "a.csv", text))
    assert table.values.tolist() == [[1, -9999], [1, -9999], [2, 0]]
    assert table.channels == ("SWDR (W/m\ufffd)",) * 2
    assert np.diff(table.timestamps).astype(int).tolist() == [0, -3600]


def test_a_wide_file_shaped_like_traffic_is_read_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((50, 862))
    with (tmp_path / "traffic.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["date", *range(861), "OT"])
        for hour, row in enumerate(values):
            writer.writerow([f"2016-07-{1 + hour // 24:02} {hour % 24:02}:00:00", *row.tolist()])
    table = read_long_csv(tmp_path / "traffic.csv")
    np.testing.assert_array_equal(table.values, values)
    assert table.channels[-2:] == ("860", "OT")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "has no value columns"),
        ("date\n2020-01-01\n", "has no value columns"),
        ("date;a\n2020-01-01;1\n", "has no value columns"),
        ("date,a\n2020-01-01,1\n2020-01-02,\n", "line 3, column 'a': the value is missing; interpolate"),
        ("date,a,b\n2020-01-01,1,NaN\n", "line 2, column 'b': the value is missing"),
        ("date,a,b\n2020-01-01,1,1\n2020-01-02,1\n", "line 3, column 'b': the value is missing"),
        ("date,a,b\n2020-01-01,1\n", "not a CSV of 3 columns; .* 3 cells on every line"),
        ("date,a\n2020-01-01,1\n2020-01-02,x1\n", "line 3, column 'a': 'x1' is not a finite number"),
        ('date,a\n2020-01-01,"1,5"\n', "line 2, column 'a': '1,5' is not a finite number"),
        ("date,a\n2020-01-01,inf\n", "line 2, column 'a': 'inf' is not a finite number"),
        ("date,a\n2020-01-01,1,2,3\n", "not a CSV of 2 columns"),
        ("date,a\n2020-01-01,1\nsoon,2\n", "line 3: 'soon' is not a time like the rest"),
        ("date,a\n31.12.2020,1\n", "line 2: '31.12.2020' is not a time"),
        ("date,a\n,1\n", "line 2: '' is not a time"),
        ("a,b\n1,2\n", "line 2: '1' is not a time"),
        ("date,a\n", "has no rows"),
    ],
)
def test_when_a_csv_is_wrong_then_the_message_says_where(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(TsbenchError, match=cause) as info:
        read_long_csv(write(tmp_path / "a.csv", text))
    assert "\n" not in str(info.value)


def test_when_a_csv_is_missing_or_not_utf8_then_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match="No such file or directory; check the path"):
        read_long_csv(tmp_path / "none.csv")
    for text in ("date,T (°C)\n2020-01-01,1\n", "date,a\n2020-01-01,1 °C\n"):
        (tmp_path / "latin.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(TsbenchError, match="UTF-8"):
            read_long_csv(tmp_path / "latin.csv")


M3_HEADER: list[str | float] = ["Series", "N", "NF", "Category", "Starting Year", "", 1, 2, 3, 4, 5]
M3_ROWS: list[list[str | float]] = [
    ["N   1", 4, 2, "MICRO       ", 1975, 1, 940.66, 10, 20, -1200, ""],
    ["N1402", 5, 2, "OTHER       ", 0, 0, 1, 2, 3, 4, 5],
]


def test_m3_lengths_count_the_test_values(tmp_path: Path) -> None:
    table = read_m3(write_workbook(tmp_path / "a.xlsx", "M3Year", [M3_HEADER, *M3_ROWS]), "M3Year", 2)
    assert table.ids == ("N1", "N1402")
    assert [series.tolist() for series in table.train] == [[940.66, 10], [1, 2, 3]]
    assert table.test.tolist() == [[20, -1200], [4, 5]]


@pytest.mark.parametrize(
    ("sheet", "horizon", "length", "cause"),
    [
        ("M3Month", 2, 4, ": M3Month"),
        ("M3Year", 3, 4, "other lengths"),
        ("M3Year", 2, 3, "other lengths"),
        ("M3Year", 2, 5, "could not convert string to float: ''"),
        ("M3Year", 2, 6, "could not convert"),
    ],
)
def test_when_the_m3_workbook_is_another_then_it_is_refused(
    tmp_path: Path, sheet: str, horizon: int, length: int, cause: str
) -> None:
    rows = [M3_HEADER, [M3_ROWS[0][0], length, *M3_ROWS[0][2:]], M3_ROWS[1]]
    path = write_workbook(tmp_path / "a.xlsx", "M3Year", rows)
    with pytest.raises(TsbenchError, match=f"cannot read sheet {sheet} of .*{cause}.*; get the published"):
        read_m3(path, sheet, horizon)


def test_when_the_m3_file_is_no_workbook_then_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TsbenchError, match="cannot read sheet M3Year"):
        read_m3(write(tmp_path / "M3C.xls", "no workbook"), "M3Year", 6)


@pytest.mark.parametrize(
    ("prefix", "lengths", "horizon"), [("Y", [13, 835, 31], 6), ("D", [93, 9919, 1006], 14), ("H", [700], 48)]
)
def test_m4_series_lose_their_padding_and_nothing_else(
    tmp_path: Path, prefix: str, lengths: list[int], horizon: int
) -> None:
    generator = np.random.default_rng(0)
    # The first values look like integers, as in the published files, later ones do not.
    train = {
        f"{prefix}{i + 1}": [5.0, *generator.integers(1, 99999, length - 1) / 100]
        for i, length in enumerate(lengths)
    }
    test = {name: list(generator.integers(1, 9999, horizon) / 10) for name in train}
    table = read_m4(write_m4(tmp_path / "train.csv", train), write_m4(tmp_path / "test.csv", test), horizon)
    assert table.ids == tuple(train)
    assert [series.tolist() for series in table.train] == list(train.values())
    assert table.test.tolist() == list(test.values())


@pytest.mark.parametrize(
    ("train", "test", "cause"),
    [
        ('"V1","V2"\n"Y1","1"\n', '"V1","V2"\n"Y2","1"\n', "hold different series"),
        ('"V1","V2"\n"Y1","1"\n', '"V1","V2"\n"Y1","1","2"\n', r"holds \[2\] values a series instead of 1"),
        ('"V1","V2"\n"Y1","1",,"3"\n', '"V1","V2"\n"Y1","1"\n', r"train\.csv, line 2: .*without gaps"),
        ('"V1","V2"\n"Y1","x"\n', '"V1","V2"\n"Y1","1"\n', "line 2: could not convert"),
    ],
)
def test_when_m4_files_are_wrong_then_the_message_says_how(
    tmp_path: Path, train: str, test: str, cause: str
) -> None:
    with pytest.raises(TsbenchError, match=cause):
        read_m4(write(tmp_path / "train.csv", train), write(tmp_path / "test.csv", test), 1)
