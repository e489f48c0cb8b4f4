import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.bench import executor
from tsbench.bench.executor import ATTEMPTS, WorkerDied, Workers, groups, plan_workers, threads_per_worker
from tsbench.bench.local_worker import LocalWorker
from tsbench.bench.records import Failure, Record
from tsbench.bench.runner import Bench, attempt, run_cells, with_baselines
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, FLlmOptions
from tsbench.errors import TsbenchError

KILLED = "was killed by SIGKILL"


def cell(**fields: Any) -> CellSpec:
    shared = {"method": "origin", "backbone": "toy", "dataset": "demo", "lookback": 48, "profile": "quick"}
    return CellSpec.model_validate(shared | fields)


class Fake:
    """A worker in this process; it dies at the horizons of `deaths`, so often at each."""

    def __init__(self, bench: Bench, deaths: dict[int, int]) -> None:
        self.bench, self.deaths = bench, deaths
        self.dead = False

    def run(self, act: Any, spec: CellSpec, progress: Callable[[str], None]) -> Any:
        assert not self.dead, "a dead worker was asked"
        if self.deaths.get(spec.horizon, 0):
            self.deaths[spec.horizon] -= 1
            self.dead = True
            raise WorkerDied(KILLED)
        self.bench.progress = progress
        return attempt(self.bench, spec, act)

    def stop(self) -> None:
        self.dead = True


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench with one fake worker at a time; `deaths` and `made` hang from it."""
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    toy.install(monkeypatch)
    return Bench(ResultsStore(tmp_path / "results"), workers=Workers("local", 1))


def employ(monkeypatch: pytest.MonkeyPatch, deaths: dict[int, int]) -> list[Fake]:
    """Put fakes in the place of local workers; returns those that were made."""
    made: list[Fake] = []

    @contextmanager
    def pool(workers: Workers, parts: executor.BenchParts) -> Iterator[Callable[[int], Fake]]:
        def start(place: int) -> Fake:
            made.append(Fake(Bench(*parts), deaths))
            return made[-1]

        yield start

    monkeypatch.setattr("tsbench.bench.local_worker.local_pool", pool)
    return made


def test_a_killed_cell_is_tried_again_and_finished_cells_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    bench.progress = lines.append
    made = employ(monkeypatch, {24: ATTEMPTS - 1})
    cells = [cell(horizon=36), cell(horizon=24), cell(horizon=12)]
    outcomes = run_cells(bench, cells)
    assert [outcome.spec for outcome in outcomes] == cells
    assert all(isinstance(outcome, Record) for outcome in outcomes)
    assert len(made) == ATTEMPTS
    assert all(worker.dead for worker in made)
    assert [line.partition(" of ")[0].rstrip("0123456789") for line in lines] == [
        "[1/3] demo H=36: origin on toy, seed 0 (worker 1)",
        "worker 1: evaluating on ",
        "[2/3] demo H=24: origin on toy, seed 0 (worker 1)",
        f"worker 1: {KILLED} (attempt ",
        f"worker 1: {KILLED} (attempt ",
        "worker 1: evaluating on ",
        "[3/3] demo H=12: origin on toy, seed 0 (worker 1)",
        "worker 1: evaluating on ",
    ]


def test_a_cell_that_always_kills_its_worker_is_recorded_as_failed_and_stops_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = employ(monkeypatch, {24: 10**6})
    first, failed, last = run_cells(bench, [cell(horizon=horizon) for horizon in (36, 24, 12)])
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert isinstance(failed, Failure)
    assert failed.error.startswith(f"the worker {KILLED} in {ATTEMPTS} attempts; ")
    assert bench.store.failures() == [failed]
    assert len(made) == ATTEMPTS + 1


def test_what_goes_wrong_outside_of_the_cells_ends_all_workers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ResultsStore, failure: Failure) -> None:
        raise TsbenchError("the disk is full")

    made = employ(monkeypatch, {24: 10**6})
    bench.workers = Workers("local", 3)
    monkeypatch.setattr(ResultsStore, "save_failure", full)
    with pytest.raises(TsbenchError, match="the disk is full"):
        run_cells(bench, with_baselines([cell(horizon=24), cell(horizon=12)]))
    assert all(worker.dead for worker in made)


SPECS = st.builds(
    cell,
    horizon=st.sampled_from([12, 24, 36]),
    seed=st.integers(0, 2),
    method=st.sampled_from(["origin", "raft"]),
    dataset=st.sampled_from(["demo", "ETTh1"]),
    backbone=st.sampled_from(["toy", "naive-last"]),
)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.lists(SPECS, unique=True))
def test_groups_hold_every_cell_once_in_order_and_the_large_ones_go_first(cells: list[CellSpec]) -> None:
    found = groups(cells)
    assert sorted(place for group in found for place in group) == list(range(len(cells)))
    assert all(group == sorted(group) for group in found)
    sizes = [len(group) for group in found]
    assert sizes == sorted(sizes, reverse=True)
    for group in found:  # only the horizon differs, so what they train is one another's
        assert len({cells[place].model_copy(update={"horizon": 1}) for place in group}) == 1
    assert len(found) == len({spec.model_copy(update={"horizon": 1}) for spec in cells})


def test_cells_that_share_trained_weights_stay_together() -> None:
    shared = {"method": "f-llm", "backbone": "smollm2", "train_dataset": "M4-Quarterly"}
    transfers = [
        cell(dataset=name, horizon=8, lookback=16, f_llm=FLlmOptions(form=form), **shared)
        for name in ("M3-Quarterly", "M3-Other")
        for form in ("open-loop", "closed-loop")
    ]
    assert groups(transfers) == [[0, 1, 2, 3]]
    assert groups([cell(horizon=24), cell(horizon=24, rollout="expand")]) == [[0], [1]]


def test_one_local_job_needs_no_worker() -> None:
    assert plan_workers("local", 1, None, "cpu", None) is None
    assert plan_workers("local", 2, 3, "cpu", None) == Workers("local", 2, 3)


def test_an_address_without_ray_is_refused() -> None:
    with pytest.raises(TsbenchError, match="--address names a Ray cluster; add --executor ray"):
        plan_workers("local", 2, None, "cpu", "auto")


def test_ray_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TsbenchError, match=r"needs the package ray; pip install 'tsbench\[ray\]'"):
        plan_workers("ray", 1, None, "cpu", None)


def test_local_workers_need_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert plan_workers("local", 2, None, "cuda", None) == Workers("local", 2, device="cuda")
    with pytest.raises(TsbenchError, match="--jobs 3 needs as many GPUs, but 2 can be seen; use --jobs 2"):
        plan_workers("local", 3, None, "cuda", None)
    with pytest.raises(TsbenchError, match="not cuda:1; use --device cuda"):
        plan_workers("local", 2, None, "cuda:1", None)


def test_workers_of_a_cluster_choose_no_gpu_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert plan_workers("ray", 2, None, "cuda", None) == Workers("ray", 2, device="cuda")
    with pytest.raises(TsbenchError, match="--jobs 2 gives each worker a GPU of its own, not cuda:1; use"):
        plan_workers("ray", 2, None, "cuda:1", None)


def test_workers_share_the_processors_or_take_the_threads_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert [threads_per_worker(Workers("local", jobs)) for jobs in (2, 3, 16)] == [4, 2, 1]
    assert threads_per_worker(Workers("local", 2, threads=6)) == 6


class OneLine:
    """Takes the place of a worker's process: it says one line and lives on."""

    def __init__(self, command: list[str], pass_fds: list[int], **rest: Any) -> None:
        self.pipe = Connection(os.dup(pass_fds[0]))
        self.pipe.send("a line")

    def wait(self) -> int:
        raise AssertionError("a live process is waited for")


def test_a_line_that_cannot_be_printed_is_not_taken_for_the_workers_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(line: str) -> None:
        raise BrokenPipeError(line)

    monkeypatch.setattr("subprocess.Popen", OneLine)
    worker = LocalWorker((ResultsStore(tmp_path), None, {}), {})
    with pytest.raises(BrokenPipeError, match="a line"):
        worker.run(attempt, cell(horizon=24), closed)
