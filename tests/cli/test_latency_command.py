"""`tsbench latency` from the command line, and what `tsbench report` makes of it."""

import csv
from io import StringIO

import pytest
import toy

from tsbench.bench.latency_records import load_measurements
from tsbench.bench.store import ResultsStore

SMALL = "latency --backbone flame-small --dataset demo --lookback 48 --horizon 12 --repeats 2 --warm-up 1"


def test_it_times_methods_prints_tables_and_stores_every_reading(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    line = f"{SMALL} --method origin raft ts-memory --batch 1 3 --plugmem tiny --threads 1"
    result = tsbench(line, "--end-to-end", "--test-stride", "100")
    assert result.exit_code == 0, result.output
    for shown in ("Milliseconds per query", "Seconds per evaluation", "RAFT", "TS-Memory", "Retrieval share"):
        assert shown in result.stdout
    measured = load_measurements(store.root)
    assert sorted(each.spec.batch or 0 for each in measured) == [0, 1, 3]
    assert {tuple(each.costs) for each in measured} == {("origin", "raft", "ts-memory")}
    assert {len(cost.totals) for each in measured if each.spec.batch for cost in each.costs.values()} == {2}
    reported = tsbench("report --latency --format csv")
    assert reported.exit_code == 0, reported.output
    rows = list(csv.DictReader(StringIO(reported.stdout)))
    assert len(rows) == 9
    assert all(row["device"].startswith("cpu") for row in rows)


def test_a_cold_start_loads_and_forecasts_in_a_process_of_its_own(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    result = tsbench(f"{SMALL} --method origin --batch 1 --threads 1 --cold-start")
    assert result.exit_code == 0, result.output
    (measured,) = load_measurements(store.root)
    start = measured.costs["origin"].cold_start
    assert start is not None
    assert min(start.load_s, start.prepare_s, start.first_forecast_s) > 0
    assert start.peak_rss_mb > 50
    assert start.peak_device_mb is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--method origin ts-memry", "unknown method 'ts-memry'; did you mean ts-memory?"),
        ("--method f-llm", "`tsbench latency` times origin, raft, ts-rag, lora, ts-memory"),
        ("--backbone fracst", "unknown backbone 'fracst'"),
        ("--backbone toy --random-init", "--random-init knows the shapes of"),
        ("--dataset ETTh3", "unknown dataset 'ETTh3'; did you mean ETTh1, ETTh2?"),
        ("--horizon 0", "horizon is 0"),
    ],
)
def test_a_mistake_is_one_line(tsbench: toy.Cli, more: str, said: str) -> None:
    result = tsbench(f"latency --dataset demo {more}")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["run", "eval", "train"])
def test_random_weights_are_for_timing_alone(tsbench: toy.Cli, command: str) -> None:
    result = tsbench(f"{command} --backbone flame-base --random-init --dataset demo")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_a_report_without_timings_says_how_to_get_them(tsbench: toy.Cli) -> None:
    result = tsbench("report --latency")
    assert result.exit_code == 2
    assert "run `tsbench latency` first" in result.stderr


def test_a_report_of_timings_takes_no_scores_options(tsbench: toy.Cli) -> None:
    result = tsbench("report --latency --summary mse")
    assert result.exit_code == 2
    assert "--latency goes with --format and --output alone" in result.stderr
