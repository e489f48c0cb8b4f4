import json
from pathlib import Path

import pytest
import toy

from tsbench.bench.store import ResultsStore

CELL = "--method ts-memory --backbone toy --dataset demo --profile quick --lookback 48 --horizon 24"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_plan_says_what_each_row_of_the_run_takes_and_leaves_nothing(
    tsbench: toy.Cli, workplace: Path
) -> None:
    result = tsbench(f"plan {CELL}")
    assert result.exit_code == 0, result.output
    for row in (
        "origin on naive-last",
        "ts-memory (no-retrieval) on toy",
        "ts-memory (exclusion target) on toy",
    ):
        assert row in result.stdout
    assert "Cells to run" in result.stdout
    assert "Time of one worker" in result.stdout
    assert "measuring: train ts-memory toy" in result.stderr
    assert files(workplace) == []
    assert not (workplace / "results").exists()


def test_the_rows_are_those_of_the_run_and_a_finished_run_costs_nothing(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    before = json.loads(tsbench(f"plan {CELL} --format json").stdout)
    assert tsbench(f"run {CELL}").exit_code == 0
    specs = [record.spec for record in store.records()]
    assert sorted((row["method"], row["backbone"]) for row in before) == sorted(
        (spec.method, spec.backbone) for spec in specs
    )
    assert all(row["seconds"] > 0 and not row["done"] for row in before)
    assert [row["steps"] for row in before] == [0, 0, 0, 4, 4]
    finished = tsbench(f"plan {CELL}")
    assert finished.exit_code == 0
    assert "Nothing to compute." in finished.stdout
    assert "Time of one worker" not in finished.stdout
    after = json.loads(tsbench(f"plan {CELL} --format json").stdout)
    assert all(row["done"] and row["seconds"] == 0 for row in after)


def test_a_suite_is_planned_with_what_is_missing_and_why(
    tsbench: toy.Cli, workplace: Path, own_suite: Path
) -> None:
    result = tsbench(f"plan --suite {own_suite} --only demo --profile quick")
    assert result.exit_code == 0, result.output
    assert "2 missing: LVICL is not in tsbench" in result.stdout
    lines = [line for line in result.stdout.splitlines() if "raft on toy" in line]
    assert len(lines) == 2
    assert files(workplace) == [own_suite]


def test_forecasts_of_a_longer_horizon_serve_the_shorter(tsbench: toy.Cli) -> None:
    line = "--method origin --backbone toy --dataset demo --profile quick --lookback 48 --horizon 24 12"
    rows = json.loads(tsbench(f"plan {line} --test-stride 7 --format json").stdout)
    missing = {(row["backbone"], row["horizon"]): row["forecasts_missing"] for row in rows}
    assert missing["toy", 24] > 0
    assert missing["toy", 12] < missing["toy", 24]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plan --dataset ETTh3", "unknown dataset 'ETTh3'"),
        (f"plan {CELL} --backbone nope", "unknown backbone 'nope'"),
        ("plan --suite nope", "nope"),
        ("plan --suite ts-memory/3 --horizon 96", "--suite names its cells itself; leave out --horizon"),
        (f"run {CELL} --format json", "--format goes with `tsbench plan`, not with run; leave it out"),
    ],
)
def test_bad_input_is_one_line(tsbench: toy.Cli, workplace: Path, line: str, message: str) -> None:
    result = tsbench(line)
    assert result.exit_code == 2
    (said,) = result.stderr.splitlines()
    assert said.startswith("error: ")
    assert message in said
    assert files(workplace) == []
