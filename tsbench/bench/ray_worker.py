"""Workers that are actors of a Ray cluster."""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from queue import SimpleQueue
from textwrap import shorten
from typing import Any

from tsbench.bench.executor import (
    Act,
    BenchParts,
    WorkerDied,
    Workers,
    thread_environment,
    threads_per_worker,
)
from tsbench.bench.runner import Bench, attempt
from tsbench.config import CellSpec
from tsbench.errors import TsbenchError

_CONNECT_S = 5.0


@contextmanager
def ray_pool(workers: Workers, parts: BenchParts) -> Iterator[Callable[[int], "RayWorker"]]:
    """Join or start a cluster and start actors in it, on GPUs one each. The GPU part is untested.

    Actors run in this process's working directory with its TSBENCH_ variables, so directory and results must
    be on file systems that all nodes share. TSBENCH_HOME should be local to each node: the forecast cache is
    memory-mapped, and not safe to write from several nodes at once.

    Raises:
        TsbenchError: The cluster cannot be joined, or has not what a worker needs.
    """
    import ray

    _connect(workers)
    try:
        threads = _threads(workers)
        gpus = 1 if workers.device.startswith("cuda") else 0
        if gpus and not ray.cluster_resources().get("GPU"):
            raise TsbenchError("the Ray cluster has no GPU; use --device cpu")
        variables = {name: value for name, value in os.environ.items() if name.startswith("TSBENCH_")}
        actor = ray.remote(CellActor).options(
            num_cpus=threads,
            num_gpus=gpus,
            runtime_env={"env_vars": thread_environment(threads) | variables},
        )
        shared = ray.put(parts)
        with redirect_stdout(sys.stderr):  # where Ray says that an actor died; tables go to standard output
            yield lambda place: RayWorker(actor.remote(str(Path.cwd()), shared))
    finally:
        ray.shutdown()


def _connect(workers: Workers) -> None:
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if workers.address is None:
        processors = workers.jobs * threads_per_worker(workers)
        settings |= {"address": "local", "num_cpus": processors, "include_dashboard": False}
    else:
        _check_reachable(workers.address)
        settings |= {"address": workers.address}
    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises no narrower class where a node is too slow to start
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        if workers.address is None:
            raise TsbenchError(f"cannot start Ray on this machine ({cause}); use --executor local") from error
        raise _cannot_join(workers.address, cause) from error


def _check_reachable(address: str) -> None:
    """Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise TsbenchError(f"--address {address} is no Ray cluster; use host:port of its head node, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _cannot_join(address, str(error)) from error


def _cannot_join(address: str, cause: str) -> TsbenchError:
    return TsbenchError(
        f"cannot join the Ray cluster at {address} ({cause}); start it with `ray start --head`, and set "
        "RAY_AUTH_MODE=token if it asks for a token"
    )


def _threads(workers: Workers) -> int:
    """CPU threads of each worker: those asked for, or an equal share that fits on every node."""
    import ray

    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    processors = [count for count in nodes if count]
    if workers.threads is not None and workers.threads > max(processors, default=0):
        raise TsbenchError(
            f"--threads {workers.threads} is more than any node of the Ray cluster has; "
            f"use at most {max(processors, default=0)}"
        )
    return workers.threads or max(1, min([sum(processors) // workers.jobs, *processors]))


class CellActor:
    """What runs on the cluster.

    Args:
        directory: Working directory.
        parts: What its `Bench` is made from.
    """

    def __init__(self, directory: str, parts: BenchParts) -> None:
        os.chdir(directory)
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._bench = Bench(*parts, progress=self._lines.put)

    def run(self, act: Act, spec: CellSpec) -> Iterator[Any]:
        """Yield progress lines as they come, then the outcome of the cell."""
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(attempt, self._bench, spec, act)
            outcome.add_done_callback(lambda done: self._lines.put(None))
            while (line := self._lines.get()) is not None:  # Ray's generators cannot delegate
                yield line
            yield outcome.result()


class RayWorker:
    """Drives one actor.

    Args:
        actor: Handle of a `CellActor`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def run(self, act: Act, spec: CellSpec, progress: Callable[[str], None]) -> Any:
        """Act on a cell; see `tsbench.bench.executor.Worker`."""
        import ray

        message = None
        try:
            for reference in self._actor.run.options(num_returns="streaming").remote(act, spec):
                message = ray.get(reference)
                if isinstance(message, str):
                    progress(message)
        except ray.exceptions.RayTaskError as error:  # the actor lives; its failures are written down there
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise WorkerDied(f"died ({shorten(str(error).splitlines()[-1], 250)})") from error
        return message

    def stop(self) -> None:
        """Kill the actor: whatever it writes is complete or absent."""
        import ray

        ray.kill(self._actor)
