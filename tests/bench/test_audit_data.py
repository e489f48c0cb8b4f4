from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tsbench.bench.audit import data as audits
from tsbench.bench.audit.data import audit_datasets, sentinels
from tsbench.bench.audit.findings import Audit, Finding
from tsbench.bench.audit.repeat_last import constant_spans, repeat_last
from tsbench.data.dataset import Dataset, SeriesCollection
from tsbench.data.splits import SplitRule
from tsbench.data.user_csv import read_any_csv
from tsbench.errors import TsbenchError

ROWS, H, L = 400, 4, 16


@pytest.fixture
def hourly() -> Dataset:
    """Two channels of noise, hourly: 240 train, 80 validation and 80 test rows."""
    values = np.random.default_rng(0).normal(size=(ROWS, 2)).cumsum(axis=0)
    stamps = np.datetime64("2024-01-01T00:00:00") + np.arange(ROWS) * np.timedelta64(3600, "s")
    return Dataset(
        "noise", values, stamps, ("a", "b"), "1h", 24, SplitRule("ratio", 0.6, 0.2, 0.2), (H,), "x"
    )


def audit(dataset: Dataset, files: dict[str, Path] | None = None) -> Audit:
    return audit_datasets([dataset], [], files or {})


def found(audit: Audit, check: str) -> list[Finding]:
    return [finding for finding in audit.findings if finding.check == check]


def brute_force(values: np.ndarray, scaled_by: slice, starts: range) -> tuple[float, float]:
    train = values[scaled_by]
    scaled = (values - train.mean(axis=0)) / train.std(axis=0)
    errors = np.array([scaled[start : start + H] - scaled[start - 1] for start in starts])
    return float((errors**2).mean()), float(np.abs(errors).mean())


def test_sound_data_have_no_findings_but_their_scores(hourly: Dataset) -> None:
    [scores] = audit(hourly).findings
    mse, mae = brute_force(hourly.values, slice(240), range(320, 397))
    assert scores.text == f"77 test windows, H = 4, L = 236: MSE {mse:.6f}, MAE {mae:.6f}."


def test_repeated_and_missing_times_are_found_with_the_windows_they_touch(hourly: Dataset) -> None:
    stamps = hourly.timestamps.copy()
    stamps[330] = stamps[329]
    stamps[350:] += np.timedelta64(5 * 3600, "s")
    repeated, missing = found(audit(replace(hourly, timestamps=stamps)), audits.TIMES)
    assert "row above: 1, the first is row 330 (2024-01-14 17:00:00)" in repeated.text
    # Row 330 after row 329's time: the next step is two hours, as if one time were missing.
    assert "missing times: 6, in gaps: 2, the first between rows 330 and 331" in missing.text
    touched = sum(start - 236 <= 330 < start + H for start in range(320, 397))
    assert f"{touched} of 77 test windows hold one" in repeated.text


def test_times_that_go_back_are_found(hourly: Dataset) -> None:
    stamps = hourly.timestamps.copy()
    stamps[[100, 101]] = stamps[[101, 100]]
    texts = [finding.text for finding in found(audit(replace(hourly, timestamps=stamps)), audits.TIMES)]
    assert any("go back behind the row above: 1, the first is row 101" in text for text in texts)


def test_codes_for_missing_values_are_found_and_mended(hourly: Dataset) -> None:
    values = hourly.values.copy()
    values[[50, 51, 360], 1] = -9999
    one, everything = found(audit(replace(hourly, values=values)), audits.SENTINELS)
    assert one.cell == "channel 1, b"
    assert "-9999 stands in 3 rows from 50 to 360, 2 of them train rows" in one.text
    mended = values.copy()
    mended[[50, 51], 1], mended[360, 1] = values[49, 1], values[359, 1]
    assert f"train deviation is {values[:240, 1].std():.6f}" in one.text
    assert f"in its place {mended[:240, 1].std():.6f}" in one.text
    mse, mae = brute_force(mended, slice(240), range(320, 397))
    assert f"repeat-last has MSE {mse:.6f}, MAE {mae:.6f}" in everything.text
    touched = sum(start - 236 <= 360 < start + H for start in range(320, 397))
    assert f"{touched} of 77 test windows hold one" in everything.text


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([1.0, 2.0, 3.0, -999.0], -999.0),
        ([1.0, 2.0, 3.0, 99999.0, 99999.0], 99999.0),
        ([1.0, 2.0, 3.0, 7.0], None),  # far, but not twice the range of the others
        ([0.0, 0.0, 0.0, 5.0], None),  # two values are no range
        ([1.0, 2.0, 3.0, -50.5], None),  # codes are whole numbers
    ],
)
def test_a_code_lies_far_off_all_other_values(values: list[float], code: float | None) -> None:
    assert sentinels(np.array(values)) == code


def test_constant_contexts_are_counted_as_by_a_loop(hourly: Dataset) -> None:
    values = hourly.values.copy()
    values[80:330, 0] = 3.0
    dataset = replace(hourly, values=values)
    plain = repeat_last(dataset, values, H, L)
    counted = constant_spans(values, plain.grid.starts - L, L)
    loop = [
        [np.ptp(values[start - L : start, channel]) == 0 for channel in (0, 1)] for start in range(320, 397)
    ]
    np.testing.assert_array_equal(counted, loop)
    assert counted[:, 0].sum() == 11
    texts = [finding.text for finding in found(audit(dataset), audits.CONSTANT)]
    assert any(text.startswith("11 of 77 test contexts and") for text in texts)  # of the L that is left: 236


def test_touched_windows_are_counted_as_by_a_loop(hourly: Dataset) -> None:
    plain = repeat_last(hourly, hourly.values, H, L)
    rows = np.array([10, 305, 340, 399])
    loop = [any(start - L <= row < start + H for row in rows) for start in range(320, 397)]
    np.testing.assert_array_equal(plain.touched(rows), loop)


def test_names_and_unused_rows_are_found(hourly: Dataset) -> None:
    split = SplitRule("rows", 200, 80, 80)
    dataset = replace(hourly, channels=("t\N{REPLACEMENT CHARACTER}", "b"), split=split)
    assert "channels 0 have lost a character" in found(audit(dataset), audits.NAMES)[0].text
    assert found(audit(dataset), audits.UNUSED)[0].text.startswith("40 of 400 rows")


def test_a_value_of_the_wrong_sign_in_a_series_is_found() -> None:
    series = tuple(np.arange(1.0, 41.0) for _ in range(3))
    test = np.full((3, 4), 50.0)
    test[1, 2] = -1200
    collection = SeriesCollection("M", series, test, ("A", "B", "C"), "1D", 1, 4, "x")
    [finding] = audit_datasets([], [collection], {}).findings
    assert finding.cell == "B"
    assert "the first -1200 at position 43, in the test part" in finding.text


def test_a_users_file_with_faulty_times_is_read_and_its_ends_of_line_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    days = [np.datetime64("2023-01-01") + index for index in range(400)]
    days[7] = days[6]
    rows = [f"{day},{10 + index % 7},{(index * 37) % 101 / 10}" for index, day in enumerate(days)]
    path.write_bytes("\r\n".join(["date,store,online", *rows]).encode())
    dataset = read_any_csv(path, "1D", SplitRule("ratio", 0.7, 0.1, 0.2))
    result = audit(dataset, {dataset.name: path})
    assert "row above: 1, the first is row 7 (2023-01-07 00:00:00)" in found(result, audits.TIMES)[0].text
    [ends] = found(result, audits.FILE)
    assert ends.text == "lines end with CR LF and the last line has no end."


def test_a_data_set_without_horizons_is_scored_at_the_longest_that_fits(hourly: Dataset) -> None:
    [scores] = audit(replace(hourly, horizons=())).findings
    assert scores.text.startswith("1 test windows, H = 80, L = 160: ")


def test_a_horizon_that_does_not_fit_is_bad_input(hourly: Dataset) -> None:
    with pytest.raises(TsbenchError, match="longer than"):
        audit_datasets([hourly], [], {}, horizon=100)
