from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES

MEMORY = ("--method", "ts-memory", *toy.CELL)
ROWS = ["Repeat last", "Seasonal naive", "Origin", "No-retrieval control", "TS-Memory"]


def only(records: list[Record]) -> Record:
    assert len(records) == 1
    return records[0]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> float:
        raise AssertionError("a finished training was repeated")

    monkeypatch.setattr("tsbench.training.loop._take_step", refuse)


def test_run_prints_the_table_to_stdout_and_its_progress_to_stderr(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    result = tsbench("run --horizon 24", *toy.CELL)
    assert result.exit_code == 0
    places = [result.stdout.index(f"│ {row}") for row in ROWS]
    assert places == sorted(places)
    assert "MSE" in result.stdout
    assert "Diagnostics" in result.stdout
    assert "41 of 777 windows" in result.stdout
    assert "│" not in result.stderr
    assert "[5/5] demo H=24: ts-memory (exclusion target) on toy, seed 0" in result.stderr.splitlines()
    assert "plugmem: step 4" in result.stderr
    assert "plugmem" not in result.stdout
    assert len(store.records()) == len(ROWS)


def test_the_second_run_finds_everything_done_and_prints_the_same_table(
    tsbench: toy.Cli, store: ResultsStore, request: pytest.FixtureRequest
) -> None:
    first = tsbench("run --horizon 24", *toy.CELL)
    written = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.parquet")}
    request.getfixturevalue("no_training")
    second = tsbench("run --horizon 24", *toy.CELL)
    assert second.exit_code == 0
    assert second.stderr.splitlines()[1::2] == ["already done"] * 5
    assert second.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*.parquet")} == written


def test_stages_chain_reuse_each_other_and_end_with_the_scores_of_one_run(
    tsbench: toy.Cli, store: ResultsStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = tsbench("build-teacher --horizon 24", *MEMORY)
    assert built.exit_code == 0
    assert "teacher: embedding" in built.stderr
    assert not store.records()
    assert "teacher: already built" in tsbench("build-teacher --horizon 24", *MEMORY).stderr

    trained = tsbench("train --horizon 24", *MEMORY)
    assert trained.exit_code == 0
    assert "teacher: already built" in trained.stderr
    assert "plugmem: step 4" in trained.stderr
    assert "fusion weight 0." in trained.stderr
    assert not store.records()

    with monkeypatch.context() as patch:
        patch.setattr("tsbench.training.loop._take_step", None)
        scored = tsbench("eval --horizon 24", *MEMORY)
    assert scored.exit_code == 0
    assert "teacher: already built" in scored.stderr
    assert "plugmem: step" not in scored.stderr
    staged = only(store.records())

    monkeypatch.setenv("TSBENCH_HOME", str(store.root.parent / "other-home"))
    assert tsbench("run --horizon 24 --results other", *MEMORY).exit_code == 0
    records = ResultsStore(store.root.parent / "other").records()
    whole = only([record for record in records if record.key == staged.key])
    assert whole.metrics == staged.metrics
    assert whole.alpha == staged.alpha


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_stage_alone_builds_what_it_needs(tsbench: toy.Cli, store: ResultsStore, command: str) -> None:
    result = tsbench(f"{command} --horizon 24", *MEMORY)
    assert result.exit_code == 0
    assert "teacher: embedding" in result.stderr
    assert "plugmem: step 4" in result.stderr
    assert len(store.records()) == (command == "eval")


def test_one_option_takes_several_values_and_the_longest_horizon_goes_first(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    result = tsbench("eval --method origin --horizon 12 24 --horizon 36", *toy.CELL)
    assert result.exit_code == 0
    started = [line for line in result.stderr.splitlines() if line.startswith("[")]
    assert [line.split("H=")[1].split(":")[0] for line in started] == ["36", "24", "12"]
    assert sorted(record.spec.horizon for record in store.records()) == [12, 24, 36]
    assert all(f"demo, H = {horizon}, L = 48" in result.stdout for horizon in (12, 24, 36))


def test_exclusions_and_ablations_multiply_and_share_one_control(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    result = tsbench("run --horizon 12 --exclusion self target --ablation none no-gate", *toy.CELL)
    assert result.exit_code == 0
    variants = sorted(
        (record.spec.options.teacher.exclusion, record.spec.options.ablation)
        for record in store.records()
        if record.spec.options
    )
    assert variants == [
        ("self", "no-gate"),
        ("self", "none"),
        ("target", "no-gate"),
        ("target", "no-retrieval"),
        ("target", "none"),
    ]


def test_several_seeds_share_a_row_with_their_spread(tsbench: toy.Cli) -> None:
    result = tsbench("eval --horizon 12 --seed 0 1", *MEMORY)
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if "│ TS-Memory" in line)
    assert "±" in row
    assert row.rstrip(" │").endswith("2")


def test_origin_is_one_cell_whatever_seed_and_precision(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsbench.bench.grid.preferred_precision", lambda device: "bf16")
    result = tsbench("run --method origin --horizon 24 --seed 3 4", *toy.CELL)
    assert result.exit_code == 0
    assert len(store.records()) == 3
    assert "[3/3]" in result.stderr


@pytest.mark.parametrize(("method", "label"), [("raft", "RAFT"), ("ts-rag", "TS-RAG")])
def test_online_retrieval_stands_beside_origin_and_is_one_cell_whatever_seed(
    tsbench: toy.Cli, store: ResultsStore, method: str, label: str
) -> None:
    result = tsbench(f"run --method {method} --horizon 24 --seed 3 4", *toy.CELL)
    assert result.exit_code == 0
    places = [result.stdout.index(f"│ {row}") for row in (*ROWS[:3], label)]
    assert places == sorted(places)
    assert f"[4/4] demo H=24: {method} on toy, seed 0" in result.stderr
    found = only([record for record in store.records() if record.spec.method == method])
    assert (found.spec.seed, found.spec.precision, found.spec.train_stride) == (0, "fp32", None)
    assert found.metrics["k"] in (5, 10, 20, 50)
    assert found.alpha is not None
    assert f"{found.alpha:.2f} (val)" in result.stdout
    again = tsbench(f"eval --method {method} --horizon 24 --train-stride 7", *toy.CELL)
    assert "already done" in again.stderr


def test_oracle_rows_are_marked_as_leakage(tsbench: toy.Cli, store: ResultsStore) -> None:
    result = tsbench("eval --horizon 24 --alpha-policy oracle", *MEMORY)
    assert result.exit_code == 0
    assert "†leak" in result.stdout
    record = only(store.records())
    assert record.alpha == record.metrics["oracle_alpha"]
    assert record.metrics["crps"] == pytest.approx(record.metrics["oracle_crps"], rel=1e-6)


def test_stride_and_drop_last_choose_the_test_windows(tsbench: toy.Cli, store: ResultsStore) -> None:
    line = "eval --method origin --horizon 24 --test-stride 5 --drop-last 32"
    assert tsbench(line, *toy.CELL).exit_code == 0
    record = only(store.records())
    assert (record.windows, record.windows_total, record.test_stride) == (128, 777, 5)


def test_samples_are_drawn_for_the_backbone_but_not_for_the_naive_rows(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    line = "run --method origin --horizon 24 --test-stride 50"
    result = tsbench(f"{line} --samples 20", *toy.CELL, "--backbone", "toy-paths")
    assert result.exit_code == 0
    assert result.stderr.count("drawing 20 paths per window and channel") == 1
    drawn = only([record for record in store.records() if record.spec.samples])
    assert drawn.spec.backbone == "toy-paths"
    assert drawn.metrics["samples"] == 20
    assert 0 < drawn.metrics["coverage_80_samples"] <= 1
    assert len(store.records()) == 3

    without = tsbench(line, *toy.CELL, "--backbone", "toy-paths")
    assert without.stderr.count("already done") == 2
    assert without.stdout == result.stdout  # the tables show the scores that both have


def test_threads_are_handed_to_pytorch(tsbench: toy.Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    assert tsbench("eval --method origin --horizon 24 --threads 3", *toy.CELL).exit_code == 0
    assert asked == [3]


def test_a_users_csv_runs_alone_or_beside_public_data(
    tsbench: toy.Cli, store: ResultsStore, sales: Path
) -> None:
    options = f"--backbone naive-last --profile quick --horizon 7 --lookback 28 --csv {sales} --freq 1D"
    assert tsbench(f"eval --method origin {options}").exit_code == 0
    record = only(store.records())
    assert (record.spec.dataset, record.windows_total) == ("csv-sales", 80 - 7 + 1)
    assert tsbench(f"eval --method origin {options} --dataset demo").exit_code == 0
    assert {record.spec.dataset for record in store.records()} == {"csv-sales", "demo"}


def test_another_split_of_the_same_csv_is_another_cell(
    tsbench: toy.Cli, store: ResultsStore, sales: Path
) -> None:
    line = f"eval --method origin --backbone naive-last --horizon 7 --lookback 28 --csv {sales} --freq 1D"
    for split in ("0.7,0.1,0.2", "0.6,0.2,0.2"):
        result = tsbench(f"{line} --split {split}")
        assert result.exit_code == 0
        assert "already done" not in result.stderr
    assert len({record.key for record in store.records()}) == 2


def test_a_failed_cell_is_recorded_shown_and_forgotten_once_it_succeeds(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: toy.Toy, context: torch.Tensor, horizon: int) -> torch.Tensor:
        raise RuntimeError("the toy\nis broken")

    with monkeypatch.context() as patch:
        patch.setattr(toy.Toy, "predict", fail)
        broken = tsbench("run --horizon 24", *toy.CELL)
    assert broken.exit_code == 1
    assert "Traceback" not in broken.output
    assert broken.stderr.splitlines()[-3:] == [
        f"failed: demo H=24: {cell} on toy, seed 0: the toy is broken"
        for cell in ("origin", "ts-memory (no-retrieval)", "ts-memory (exclusion target)")
    ]
    assert "Seasonal naive" in broken.stdout
    assert len(store.records()) == 2
    assert [failure.error for failure in store.failures()] == ["the toy\nis broken"] * 3
    assert "RuntimeError" in store.failures()[0].traceback
    shown = tsbench("report")
    assert shown.exit_code == 0
    assert "Failed cells" in shown.stdout
    assert shown.stdout.count("the toy is broken") == 3

    assert tsbench("run --horizon 24", *toy.CELL).exit_code == 0
    assert len(store.records()) == 5
    assert not store.failures()
    assert "Failed cells" not in tsbench("report").stdout


@pytest.mark.parametrize("command", ["build-teacher", "train"])
def test_a_failure_before_evaluation_is_recorded_too(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def fail(self: toy.Toy, context: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no embedding today")

    monkeypatch.setattr(toy.Toy, "embed", fail)
    result = tsbench(f"{command} --horizon 24 12", *MEMORY)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert [failure.spec.horizon for failure in store.failures()] in ([12, 24], [24, 12])


def test_a_damaged_record_fails_its_cell_alone_and_names_the_file(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    line = ("run --method origin --horizon 24", *toy.CELL)
    assert tsbench(*line).exit_code == 0
    (path,) = store.root.glob("records/demo/*-toy-*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    result = tsbench(*line)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert result.stderr.count("already done") == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        f"failed: demo H=24: origin on toy, seed 0: cannot read {path.relative_to(store.root.parent)}"
    )
    assert last.endswith("delete it and run again")
    path.unlink()
    assert tsbench(*line).exit_code == 0
    assert not store.failures()


def test_an_interrupted_run_exits_with_130_and_continues_where_it_stopped(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: toy.Toy, context: torch.Tensor, horizon: int) -> torch.Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(toy.Toy, "predict", interrupt)
        stopped = tsbench("run --method origin --horizon 24", *toy.CELL)
    assert stopped.exit_code == 130
    assert stopped.stderr.splitlines()[-1] == "interrupted; run the same command again to continue"
    assert "Traceback" not in stopped.output
    assert not store.failures()
    continued = tsbench("run --method origin --horizon 24", *toy.CELL)
    assert continued.exit_code == 0
    assert continued.stderr.count("already done") == 2
    assert len(store.records()) == 3


def test_interrupted_training_resumes_at_its_checkpoint(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsbench.training import loop

    take_step = loop._take_step
    with monkeypatch.context() as patch:

        def interrupt_third(*args: object) -> float:
            if args[-2] == 2:
                raise KeyboardInterrupt
            return take_step(*args)  # type: ignore[arg-type]

        patch.setattr(loop, "_take_step", interrupt_third)
        assert tsbench("eval --horizon 24", *MEMORY).exit_code == 130
    resumed = tsbench("eval --horizon 24", *MEMORY)
    assert resumed.exit_code == 0
    steps = [line for line in resumed.stderr.splitlines() if line.startswith("plugmem: step")]
    assert [line.split(",")[0] for line in steps] == ["plugmem: step 4"]
    monkeypatch.setenv("TSBENCH_HOME", str(store.root.parent / "other-home"))
    assert tsbench("eval --horizon 24 --results other", *MEMORY).exit_code == 0
    undisturbed = only(ResultsStore(store.root.parent / "other").records())
    assert only(store.records()).metrics == undisturbed.metrics


@pytest.mark.parametrize(("backbone", "option"), [("flame-small", ""), ("fracast", "--backbone fracast")])
def test_the_pipeline_runs_on_weights_that_come_in_a_package(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch, backbone: str, option: str
) -> None:
    if backbone == "fracast":
        pytest.importorskip("fracast")
    smaller = {"max_test_values": 1_000, "max_val_values": 500, "max_knowledge_rows": 64}
    monkeypatch.setitem(PROFILES, "quick", toy.PROFILE.model_copy(update=smaller))
    cell = f"{option} --dataset demo --profile quick --lookback 48 --horizon 24"
    result = tsbench(f"run {cell}")
    assert result.exit_code == 0
    assert all(f"│ {row}" in result.stdout for row in ROWS)
    records = store.records()
    memory = only([r for r in records if r.spec.options and r.spec.options.ablation == "none"])
    assert memory.spec.backbone == backbone
    assert memory.provenance.backbone_identity.startswith(f"{backbone}-")
    assert np.isfinite(list(memory.metrics.values())).all()
    assert "already done" in tsbench(f"eval {cell}").stderr


def test_one_train_stride_for_two_horizons_trains_on_the_same_origins(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    arguments = ("--horizon", "24", "48", "--train-stride", "240", *toy.CELL)
    assert tsbench("run --method ts-memory", *arguments).exit_code == 0
    strides = {record.spec.method: record.spec.train_stride for record in store.records()}
    assert strides == {"origin": None, "ts-memory": 240}
    result = tsbench("report --format markdown")
    assert "train stride 240" in result.output


def test_a_train_stride_off_the_grid_of_the_knowledge_base_is_refused(tsbench: toy.Cli) -> None:
    result = tsbench("run --method ts-memory --horizon 24 --train-stride 1", *toy.CELL)
    assert result.exit_code == 2
    assert "use a multiple of" in result.output


def test_a_supervised_baseline_is_a_row_of_its_own_name(tsbench: toy.Cli, store: ResultsStore) -> None:
    result = tsbench(
        "run --method supervised --dataset demo --profile quick --lookback 48 --horizon 24 --test-stride 20"
    )
    assert result.exit_code == 0
    assert "│ DLinear" in result.stdout
    assert "dlinear at 0.001, " in result.stderr
    assert sorted(record.spec.backbone for record in store.records()) == [
        "dlinear",
        "naive-last",
        "naive-seasonal",
    ]
