"""Workers that are processes of this machine: `python -m tsbench.bench.local_worker`, joined by a pipe."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from tsbench.bench.executor import (
    Act,
    BenchParts,
    WorkerDied,
    Workers,
    thread_environment,
    threads_per_worker,
    visible_gpus,
)
from tsbench.bench.runner import Bench, attempt
from tsbench.config import CellSpec


@contextmanager
def local_pool(workers: Workers, parts: BenchParts) -> Iterator[Callable[[int], "LocalWorker"]]:
    """Start processes with pinned threads, on GPUs one each. The GPU part is untested."""
    threads = thread_environment(threads_per_worker(workers))
    gpus = visible_gpus() if workers.device == "cuda" else []

    def start(place: int) -> LocalWorker:
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[place]} if gpus else {}
        return LocalWorker(parts, threads | gpu)

    yield start


class LocalWorker:
    """A process that runs cells.

    It is a program of its own rather than a fork or a child of `multiprocessing`: its environment is set
    before it imports anything, the caller's script needs no `__main__` guard, and Ctrl-C at the terminal
    reaches the caller alone.

    Args:
        parts: What its `Bench` is made from.
        environment: Variables set over this process's own.
    """

    def __init__(self, parts: BenchParts, environment: dict[str, str]) -> None:
        self._parts: BenchParts | None = parts
        self._pipe, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tsbench.bench.local_worker", str(theirs.fileno())],
            env=os.environ | environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a library prints is no result
            process_group=0,
        )
        theirs.close()

    def run(self, act: Act, spec: CellSpec, progress: Callable[[str], None]) -> Any:
        """Act on a cell; see `tsbench.bench.executor.Worker`."""
        with self._joined():
            if self._parts is not None:
                self._pipe.send(self._parts)
                self._parts = None
            self._pipe.send((act, spec))
        while isinstance(message := self._receive(), str):
            progress(message)
        return message

    def stop(self) -> None:
        """Kill the process: whatever it writes is complete or absent."""
        self._process.kill()
        self._process.wait()

    def _receive(self) -> Any:
        with self._joined():
            return self._pipe.recv()

    @contextmanager
    def _joined(self) -> Iterator[None]:
        """Use of the pipe, which breaks when the process ends."""
        try:
            yield
        except (EOFError, OSError):
            raise WorkerDied(_cause(self._process.wait())) from None


def _cause(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"


def serve(pipe: Connection) -> None:
    """Run the cells that come through a pipe, one after the other, until it is closed."""
    store, mirror, own_data = pipe.recv()
    bench = Bench(store, mirror, own_data, pipe.send)
    asked: SimpleQueue[tuple[Act, CellSpec]] = SimpleQueue()
    Thread(target=_listen, args=(pipe, asked), daemon=True).start()
    while True:
        act, spec = asked.get()
        pipe.send(attempt(bench, spec, act))


def _listen(pipe: Connection, asked: "SimpleQueue[tuple[Act, CellSpec]]") -> None:
    """Pass cells on; when the other end is gone, even by a kill, nobody waits for the cell in hand."""
    try:
        while True:
            asked.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
