"""Running cells on several workers at once: processes of this machine, or actors of a Ray cluster.

One thread of this process drives one worker. It takes a group of cells, sends them one by one, passes their
progress on, and starts a new worker when its own died: the cell in hand is tried again, finished cells are
in the results store and stay there.

A group is what must run in order on one worker: the cells of one method and seed on one backbone and data
set, longest horizon first, so that nothing that they train and share is trained twice. Different groups may
want the same base forecasts, embeddings or teacher; whoever comes second waits for the lock of the first and
reads its files.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tsbench.bench.records import Failure
from tsbench.bench.runner import describe
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec
from tsbench.data.dataset import Dataset
from tsbench.errors import TsbenchError
from tsbench.registry import RAY

if TYPE_CHECKING:
    from tsbench.bench.runner import Bench

ExecutorName = Literal["local", "ray"]
Act = Callable[["Bench", CellSpec], Any]
"""What is done with a cell, such as `run_cell`; a function of a module, so that workers can import it."""
BenchParts = tuple[ResultsStore, Path | None, dict[str, Dataset]]
"""Store, mirror and own data: what a worker makes its own `Bench` from."""

ATTEMPTS = 3
"""How often a cell is started whose worker dies."""
_INTERRUPT_S = 0.2


@dataclass(frozen=True)
class Workers:
    """Where cells run, if not one after the other in this process.

    Attributes:
        executor: "local": processes of this machine; "ray": actors of a Ray cluster.
        jobs: Workers at once.
        threads: CPU threads of each; None shares the processors equally, at least one each.
        device: "cpu", or "cuda": each worker then has a GPU of its own.
        address: Ray cluster to join, "host:port" or "auto"; None starts one on this machine.
    """

    executor: ExecutorName
    jobs: int
    threads: int | None = None
    device: str = "cpu"
    address: str | None = None


class WorkerDied(Exception):
    """A worker ended before its answer; the message continues "the worker ..."."""


class Worker(Protocol):
    """Something that runs cells outside of this process."""

    def run(self, act: Act, spec: CellSpec, progress: Callable[[str], None]) -> Any:
        """Act on a cell and return what `tsbench.bench.runner.attempt` does.

        Raises:
            WorkerDied: It ended before its answer.
        """

    def stop(self) -> None:
        """End it at once; a `run` in another thread raises `WorkerDied`."""


Pool = Callable[[Workers, BenchParts], AbstractContextManager[Callable[[int], Worker]]]
"""Makes a function from a place, 0 to jobs - 1, to a new worker."""


def plan_workers(
    executor: ExecutorName, jobs: int, threads: int | None, device: str, address: str | None
) -> Workers | None:
    """The workers that a user asks for; None for one local job, which runs in this process.

    Raises:
        TsbenchError: Options contradict each other, Ray is not installed, or there are too few GPUs.
    """
    if executor == "ray":
        if not RAY.installed:
            raise TsbenchError(f"--executor ray needs the package {RAY.package}; {RAY.install_command}")
        _check_device(jobs, device)
        return Workers(executor, jobs, threads, device, address)
    if address is not None:
        raise TsbenchError("--address names a Ray cluster; add --executor ray or leave it out")
    if jobs == 1:
        return None
    _check_device(jobs, device)
    if device == "cuda":
        _check_gpus(jobs)
    return Workers(executor, jobs, threads, device)


def _check_device(jobs: int, device: str) -> None:
    if device.startswith("cuda") and device != "cuda":
        raise TsbenchError(
            f"--jobs {jobs} gives each worker a GPU of its own, not {device}; use --device cuda"
        )


def _check_gpus(jobs: int) -> None:
    found = len(visible_gpus())
    if found < jobs:
        raise TsbenchError(f"--jobs {jobs} needs as many GPUs, but {found} can be seen; use --jobs {found}")


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def threads_per_worker(workers: Workers) -> int:
    """CPU threads of each worker on this machine: those asked for, or an equal share of the processors."""
    if workers.threads is not None:
        return workers.threads
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, processors // workers.jobs)


def thread_environment(threads: int) -> dict[str, str]:
    """Environment that holds the numerical libraries to so many threads; they read it when imported."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def groups(cells: Sequence[CellSpec]) -> list[list[int]]:
    """Places of the cells that one worker takes in order, most cells first.

    Cells stay together where they may train the same weights: on one data set, with one backbone and
    lookback, by one method and seed.
    """
    together: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, spec in enumerate(cells):
        trained_on = spec.train_dataset or spec.dataset
        backbone = (spec.backbone, spec.checkpoint, spec.lookback, spec.rollout)
        together[trained_on, *backbone, spec.method, spec.seed].append(place)
    return sorted(together.values(), key=len, reverse=True)


def run_parallel(bench: "Bench", workers: Workers, cells: Sequence[CellSpec], act: Act) -> list[Any]:
    """Act on cells, at most `workers.jobs` at once.

    A cell whose worker dies is started again on a new worker, at most `ATTEMPTS` times in all, then recorded
    as failed.

    Args:
        bench: Its store, mirror and own data go to the workers, its progress is called with their lines.
        workers: Where the cells run.
        cells: What is acted on.
        act: What is done with each.

    Returns:
        What `act` returned for each cell, or its `Failure`, in the order of `cells`.

    Raises:
        TsbenchError: The Ray cluster cannot be had, or a failure cannot be written down.
    """
    pool: Pool
    if workers.executor == "ray":
        from tsbench.bench.ray_worker import ray_pool as pool
    else:
        from tsbench.bench.local_worker import local_pool as pool
    with pool(workers, (bench.store, bench.mirror, bench.own_data)) as start:
        return _Dispatch(bench, cells, act, start).outcomes(workers.jobs)


class _Dispatch:
    """Cells on their way to workers; one thread per worker."""

    def __init__(
        self, bench: "Bench", cells: Sequence[CellSpec], act: Act, start: Callable[[int], Worker]
    ) -> None:
        self._bench, self._cells, self._act, self._start = bench, cells, act, start
        self._waiting = deque(groups(cells))
        self._alive: dict[int, Worker] = {}
        self._outcomes: dict[int, Any] = {}
        self._stopped = Event()
        self._one_line = Lock()

    def outcomes(self, jobs: int) -> list[Any]:
        """Run all cells; an interrupt ends all workers."""
        with ThreadPoolExecutor(jobs) as threads:
            places = [threads.submit(self._serve, place) for place in range(jobs)]
            try:
                _wait(places)
            finally:
                self._stopped.set()
                for worker in list(self._alive.values()):
                    worker.stop()
        for place in places:
            place.result()
        return [self._outcomes[number] for number in range(len(self._cells))]

    def _serve(self, place: int) -> None:
        """Take groups until none is left, then let the worker go: its processors may be waited for."""
        while group := self._next_group():
            for number in group:
                outcome = self._try(place, number)
                if self._stopped.is_set():
                    return
                self._outcomes[number] = outcome
        if place in self._alive:
            self._alive.pop(place).stop()

    def _next_group(self) -> list[int]:
        try:
            return self._waiting.popleft()
        except IndexError:
            return []

    def _try(self, place: int, number: int) -> Any:
        """The outcome of a cell; None where the run is stopped."""
        spec, name = self._cells[number], f"worker {place + 1}"
        self._say(f"[{number + 1}/{len(self._cells)}] {describe(spec)} ({name})")
        cause = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._worker(place).run(self._act, spec, lambda line: self._say(f"{name}: {line}"))
            except WorkerDied as death:
                self._alive.pop(place, None)
                if self._stopped.is_set():
                    return None
                cause = str(death)
                self._say(f"{name}: {cause} (attempt {attempt} of {ATTEMPTS})")
        failure = Failure(
            self._bench.key(spec),
            spec,
            f"the worker {cause} in {ATTEMPTS} attempts; if memory ran out, use fewer --jobs",
        )
        self._bench.store.save_failure(failure)
        return failure

    def _worker(self, place: int) -> Worker:
        if place not in self._alive:
            self._alive[place] = self._start(place)
            if self._stopped.is_set():  # by now it may have missed that all were stopped
                self._alive[place].stop()
        return self._alive[place]

    def _say(self, line: str) -> None:
        with self._one_line:
            self._bench.progress(line)


def _wait(places: Sequence[Future[None]]) -> None:
    """Wait until all have ended or one has failed, awake now and then.

    Polars lets the system restart what an interrupt breaks off, so Ctrl-C never ends a wait without limit.
    """
    failed = False
    while not failed:
        ended, running = wait(places, _INTERRUPT_S, FIRST_EXCEPTION)
        failed = any(place.exception() for place in ended)
        if not running:
            return
