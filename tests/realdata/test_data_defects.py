"""The defects that are known of the public data, found by the audit alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tsbench.bench.audit.data import audit_datasets
from tsbench.bench.audit.findings import Audit
from tsbench.data.catalog import find
from tsbench.data.load import load_collection, load_dataset
from tsbench.data.local import locate
from tsbench.data.paths import default_data_dir

pytestmark = pytest.mark.realdata

DEFECTS = [
    ("Weather", "times", "row above: 1, the first is row 19044 (2020-05-12 06:00:00)"),
    ("Weather", "times", "missing times: 9, in gaps: 1, the first between rows 21513 and 21514"),
    ("Weather", "channel 11, wv", "-9999 stands in 1 rows from 7245 to 7245, 1 of them train rows"),
    ("Weather", "channel 11, wv", "deviation is 52.099413, with the value before in its place 1.667"),
    ("Weather", "channel 18, max. PAR", "-9999 stands in 30 rows from 17345 to 30023"),
    (
        "Weather",
        "channel 18, max. PAR",
        "deviation is 643.352692, with the value before in its place 573.4486",
    ),
    ("Weather", "channel 20, OT", "-9999 stands in 50 rows from 7244 to 31773"),
    ("Weather", "channel 20, OT", "deviation is 383.957098, with the value before in its place 18.196"),
    ("Weather", "all channels", "81 values are codes; 0 of 10444 test windows hold one."),
    ("Weather", "all channels", "repeat-last has MSE 0.326577"),
    ("Weather", "repeat-last", "10444 test windows, H = 96, L = 512: MSE 0.259133, MAE 0.254220"),
    ("Weather", "channel 14, rain", "3341 of 10444 test contexts and 9163 of"),
    ("Weather", "channel 15, raining", "1893 of 10444 test contexts and 5596 of"),
    ("Weather", "channel names", "channels 16, 17, 18 have lost a character"),
    ("Weather: file", "weather.csv", "lines end with CR LF."),
    ("Exchange: file", "exchange_rate.csv", "lines end with CR LF and the last line has no end."),
    ("ILI: file", "national_illness.csv", "lines end with CR LF."),
    ("Exchange", "times", "weekdays, Sundays included; a season of 7"),
    ("ETTm2", "channel 1, HULL", "187 of 11425 test contexts and 0 of"),
    ("ETTm2", "channel 2, MUFL", "0 of 11425 test contexts and 3589 of"),
    ("ETTm2", "channel 4, LUFL", "0 of 11425 test contexts and 999 of"),
    ("ETTm2", "channel 5, LULL", "0 of 11425 test contexts and 5551 of"),
    ("ETTh2", "channel 2, MUFL", "0 of 2785 test contexts and 514 of"),
    ("ETTh1", "rows", "3020 of 17420 rows lie after the test split"),
    ("ETTm1", "rows", "12080 of 69680 rows lie after the test split"),
    ("M3-Monthly: 1428 series, H = 18", "N2786", "the first -1200 at position 84, in the test part"),
]


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Iterator[Audit]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        names = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "Exchange", "ILI")
        files = {}
        for name in names:
            entry = find(name)
            path = locate(entry, entry.files[0], mirror, default_data_dir())
            assert path is not None
            files[name] = path
        yield audit_datasets(
            [load_dataset(name, mirror) for name in names],
            [load_collection(name, mirror) for name in ("M3-Monthly", "M4-Hourly", "M4-Weekly")],
            files,
        )


@pytest.mark.parametrize(("group", "cell", "text"), DEFECTS)
def test_a_known_defect_is_found(audit: Audit, group: str, cell: str, text: str) -> None:
    texts = [f.text for f in audit.findings if f.group == group and f.cell.startswith(cell)]
    assert any(text in found for found in texts), texts


def test_faults_are_found_nowhere_else(audit: Audit) -> None:
    faulty = {finding.group.partition(":")[0] for finding in audit.findings if finding.severity == "fault"}
    assert faulty == {"Weather", "ETTm2", "M3-Monthly"}
