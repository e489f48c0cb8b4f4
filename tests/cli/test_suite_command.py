from pathlib import Path

import pytest
import torch
import toy

from tsbench.bench.store import ResultsStore
from tsbench.bench.suite import shipped_suites

ROWS = ["Repeat last", "Seasonal naive", "Origin (toy)", "RAFT (toy)"]


@pytest.fixture
def mine(workplace: Path, own_suite: Path) -> str:
    """Arguments that run a suite of the user's, with a mirror that holds nothing."""
    mirror = workplace / "mirror"
    mirror.mkdir()
    (mirror / "MANIFEST.toml").write_text('[[prefix]]\nurl = "https://huggingface.co/"\npath = "hf/"\n')
    return f"--suite {own_suite} --profile quick --mirror {mirror}"


def said(stderr: str) -> list[str]:
    """What is said of the suite as a whole."""
    return [line for line in stderr.splitlines() if line.startswith("mine: ") or " missing: " in line]


def test_a_suite_runs_what_it_can_says_what_is_missing_and_is_finished_the_second_time(
    tsbench: toy.Cli, store: ResultsStore, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tsbench(f"run {mine}")
    assert first.exit_code == 0
    lines = said(first.stderr)
    assert lines[0] == "mine: 12 cells: 0 done before, 4 to run, 8 missing"
    assert lines[1].startswith("4 missing: the mirror ")
    assert "lacks ETTh1.csv of ETTh1" in lines[1]
    assert lines[2:] == [
        "4 missing: LVICL is not in tsbench",
        "mine: 0 done before, 4 run now, 0 failed, 8 missing",
    ]
    assert first.stdout.count("demo") == 6  # MSE, MAE and CRPS at two horizons
    places = [first.stdout.index(row) for row in ROWS]
    assert places == sorted(places)
    assert len(store.records()) == 2 * len(ROWS)

    monkeypatch.setattr("tsbench.bench.runner.Bench.task", None)
    second = tsbench(f"run {mine}")
    assert second.exit_code == 0
    assert said(second.stderr)[-1] == "mine: 4 done before, 0 run now, 0 failed, 8 missing"
    assert second.stderr.count("already done") == 2 * len(ROWS)
    assert second.stdout == first.stdout


def test_eval_leaves_the_naive_rows_out(tsbench: toy.Cli, store: ResultsStore, mine: str) -> None:
    assert tsbench(f"eval {mine} --only demo").exit_code == 0
    assert {record.spec.backbone for record in store.records()} == {"toy"}


def test_only_some_data_sets_are_run(tsbench: toy.Cli, mine: str) -> None:
    result = tsbench(f"eval {mine} --only etth1")
    assert result.exit_code == 0
    assert said(result.stderr)[0] == "mine: 6 cells: 0 done before, 0 to run, 6 missing"
    refused = tsbench(f"eval {mine} --only demo Weather")
    assert refused.exit_code == 2
    assert refused.stderr == "error: suite mine has no cells on Weather; choose from demo, ETTh1\n"


def test_another_backbone_and_seed_go_with_a_suite(tsbench: toy.Cli, store: ResultsStore, mine: str) -> None:
    line = f"eval {mine} --only demo --backbone toy-paths --seed 3 --test-stride 50"
    assert tsbench(line).exit_code == 0
    records = store.records()
    assert sorted(record.spec.method for record in records) == ["origin", "origin", "raft", "raft"]
    assert {(record.spec.backbone, record.test_stride) for record in records} == {("toy-paths", 50)}


def test_a_failed_cell_is_recorded_and_the_rest_goes_on(
    tsbench: toy.Cli, store: ResultsStore, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("no shape is similar")

    monkeypatch.setattr("tsbench.methods.retrieval_fusion.fit_raft", fail)
    result = tsbench(f"eval {mine} --only demo")
    assert result.exit_code == 1
    assert "mine: 0 done before, 2 run now, 2 failed, 2 missing" in said(result.stderr)
    assert result.stderr.splitlines()[-1] == "failed: demo H=12: raft on toy, seed 0: no shape is similar"
    assert len(store.records()) == len(store.failures()) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "run --suite ts-memory/3 --method raft --horizon 96",
            "--suite names its cells itself; leave out --method, --horizon, or --suite",
        ),
        (
            "run --suite ts-memory/3 --csv sales.csv --freq 1D",
            "--suite names its cells itself; leave out --csv, --freq, or --suite",
        ),
        (
            "train --suite ts-memory/3",
            "--suite goes with `tsbench run`, `tsbench eval` or `tsbench plan`, not train; leave it out",
        ),
        (
            "run --only ETTh1",
            "--only goes with --suite; without it name the data sets with --dataset",
        ),
        (
            "run --suite ts-memory/3 --only ETTh9",
            "unknown dataset 'ETTh9'; did you mean ETTh1, ETTh2?",
        ),
        (
            "run --suite f-llm/8 --checkpoint here",
            "--checkpoint holds the weights of one backbone, but suite f-llm-table8 has llama-2-7b, gpt2; "
            "choose one with --backbone, or leave it out",
        ),
    ],
)
def test_what_contradicts_a_suite_is_one_line(
    tsbench: toy.Cli, store: ResultsStore, line: str, message: str
) -> None:
    result = tsbench(line)
    assert result.exit_code == 2
    assert result.stderr == f"error: {message}\n"
    assert not store.root.exists()


def test_suites_are_listed_with_what_is_done_and_what_could_run(
    tsbench: toy.Cli, monkeypatch: pytest.MonkeyPatch, own_suite: Path
) -> None:
    listed = {"mine": own_suite, "f-llm-table8": shipped_suites()["f-llm-table8"]}
    monkeypatch.setattr("tsbench.bench.suite.shipped_suites", lambda: listed)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    done = tsbench("eval --method origin --backbone toy --dataset demo --horizon 24 --lookback 48")
    assert done.exit_code == 0
    result = tsbench("list suites")
    assert result.exit_code == 0
    heading, own, table8 = result.stdout.splitlines()
    assert heading.split()[-5:] == ["cells", "in", "results/", "ready", "here"]
    assert "Two methods on built-in data" in own
    assert own.split()[-3:] == ["12", "1", "4"]
    assert table8.split()[-3:] == ["336", "0", "0"]
