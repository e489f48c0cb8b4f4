"""Time of one retrieval against the number of stored windows, beside PlugMem's forward pass.

Usage: OMP_NUM_THREADS=1 python benchmarks/perf/retrieval_scaling.py [--max-size 1000000] [--csv FILE]
       [--json results/latency/retrieval-scaling.json]

Per size and dimension: faiss's exact search (flat), an inverted file (at most 4 sqrt(N) lists, 16 probed) and
a graph (HNSW, 32 links, 64 visited); RAFT's exact correlation search of 512-step contexts, with the making of
the query's key; PlugMem (base, H = 96), which searches nothing. One query at a time, 20 neighbours. faiss is
given vectors ready-made: the pass of an encoder is in no figure. Recall is against the exact search. Building
is training and adding; RAFT's includes the making of keys. Vectors have 16 degrees of freedom and noise,
contexts are random walks. A million vectors of 896 values take 3.6 GB and their graph is slow to build: the
default stops before. The JSON file is a list with an object per reading, its keys the fields of `Reading`;
`tsbench figures retrieval-scaling` draws those named results/latency/retrieval-scaling*.json.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from tsbench.bench.provenance import device_name
from tsbench.bench.store import write
from tsbench.methods.online_retrieval import granular_keys
from tsbench.models.plugmem import PlugMem, PlugMemConfig

LOOKBACK, HORIZON, NEIGHBOURS = 512, 96, 20
QUERIES, WARM_UP = 100, 10
FREEDOM, NOISE = 16, 0.1
SMALLEST, CHUNK = 1_000, 10_000
_POINTS_PER_LIST = 39  # faiss warns below
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """Search times of one index: milliseconds per query, recall of the exact neighbours, seconds to build.

    Of what searches nothing the recall is None.
    """

    size: int
    dimension: int
    method: str
    p50_ms: float
    p90_ms: float
    recall: float | None
    build_s: float
    device: str
    threads: int


def embeddings(size: int, dimension: int, seed: int = 0) -> Iterator[Vectors]:
    """Vectors in chunks, the first of a larger number being those of a smaller one."""
    basis = np.random.default_rng(0).normal(size=(FREEDOM, dimension))
    for first in range(0, size, CHUNK):
        rows = min(CHUNK, size - first)
        factors = np.random.default_rng((1, seed, first)).normal(size=(rows, FREEDOM))
        noise = np.random.default_rng((3, seed, first)).normal(size=(rows, dimension))
        yield (factors @ basis + NOISE * noise).astype(np.float32)


def contexts(size: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """Random walks [rows, L] in chunks."""
    for first in range(0, size, CHUNK):
        generator = np.random.default_rng((2, seed, first))
        steps = generator.normal(size=(min(CHUNK, size - first), LOOKBACK))
        yield torch.from_numpy(steps.cumsum(axis=1).astype(np.float32))


def times(act: Callable[[int], NDArray[np.int64] | None]) -> tuple[list[float], list[set[int]]]:
    """Milliseconds and answers of each query, after a warm-up with others."""
    for number in range(WARM_UP):
        act(QUERIES + number)
    spent, found = [], []
    for number in range(QUERIES):
        started = time.perf_counter_ns()
        answer = act(number)
        spent.append((time.perf_counter_ns() - started) / 1e6)
        found.append(set() if answer is None else set(answer.tolist()))
    return spent, found


def indices(size: int, dimension: int) -> dict[str, faiss.Index]:
    """The exact index first."""
    lists = min(round(4 * math.sqrt(size)), size // _POINTS_PER_LIST)
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimension), dimension, lists)
    inverted.nprobe = 16
    graph = faiss.IndexHNSWFlat(dimension, 32)
    graph.hnsw.efSearch = 64
    return {"flat, exact": faiss.IndexFlatL2(dimension), "inverted file": inverted, "graph (HNSW)": graph}


def scaling(sizes: list[int], dimensions: list[int], threads: int) -> Iterator[Reading]:
    """Readings of every size: indices of each dimension, RAFT, PlugMem."""
    device = device_name("cpu")

    def reading(
        size: int, dimension: int, method: str, spent: list[float], recall: float | None, build_s: float
    ) -> Reading:
        p50, p90 = np.percentile(spent, [50, 90])
        return Reading(size, dimension, method, float(p50), float(p90), recall, build_s, device, threads)

    plugmem = PlugMem(PlugMemConfig.preset("base", LOOKBACK, HORIZON)).eval()
    walks = next(contexts(QUERIES + WARM_UP, seed=1))
    for size in sizes:
        for dimension in dimensions:
            asked = next(embeddings(QUERIES + WARM_UP, dimension, seed=1))
            exact: list[set[int]] = []
            for name, index in indices(size, dimension).items():
                build_s = 0.0
                if not index.is_trained:
                    sample = np.concatenate(list(embeddings(min(size, 64 * index.nlist), dimension)))
                    build_s += _seconds(index.train, sample)
                for chunk in embeddings(size, dimension):
                    build_s += _seconds(index.add, chunk)
                spent, found = times(partial(_search, index, asked))
                exact = exact or found
                recall = float(np.mean([len(a & b) for a, b in zip(found, exact, strict=True)]) / NEIGHBOURS)
                yield reading(size, dimension, name, spent, recall, build_s)
        yield _raft(size, walks, reading)
        with torch.inference_mode():
            spent, _ = times(lambda number: _forward(plugmem, walks[number : number + 1]))
        yield reading(size, 0, "PlugMem forward", spent, None, 0.0)


def _seconds(act: Callable[[Any], None], what: Any) -> float:
    started = time.perf_counter()
    act(what)
    return time.perf_counter() - started


def _search(index: faiss.Index, asked: Vectors, number: int) -> NDArray[np.int64]:
    neighbours: NDArray[np.int64] = index.search(asked[number : number + 1], NEIGHBOURS)[1]
    return neighbours[0]


def _forward(plugmem: PlugMem, context: torch.Tensor) -> None:
    plugmem(context, HORIZON)


def _raft(size: int, walks: torch.Tensor, reading: Callable[..., Reading]) -> Reading:
    index = faiss.IndexFlatIP(granular_keys(walks[:1]).shape[1])

    def add(chunk: torch.Tensor) -> None:
        index.add(granular_keys(chunk).numpy())

    build_s = sum(_seconds(add, chunk) for chunk in contexts(size))
    spent, _ = times(
        lambda number: index.search(granular_keys(walks[number : number + 1]).numpy(), NEIGHBOURS)[1][0]
    )
    return reading(size, index.d, "RAFT, exact", spent, 1.0, build_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--max-size", type=int, default=100_000, help="largest number of stored windows")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[64, 768], help="of the embeddings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file to write the readings to")
    parser.add_argument("--json", type=Path, help="likewise, for `tsbench figures`")
    arguments = parser.parse_args()
    if arguments.max_size < SMALLEST:
        parser.error(f"--max-size is at least {SMALLEST}")
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    sizes = [size for power in range(7) if (size := SMALLEST * 10**power) <= arguments.max_size]
    readings = list(scaling(sizes, arguments.dimensions, arguments.threads))
    print(f"{device_name('cpu')}, {arguments.threads} threads, {QUERIES} queries one at a time\n")
    headers = ("windows", "dimension", "method", "p50, ms", "p90, ms", f"recall@{NEIGHBOURS}", "build, s")
    rows = [
        (
            f"{each.size:,}",
            each.dimension or "–",
            each.method,
            f"{each.p50_ms:.3f}",
            f"{each.p90_ms:.3f}",
            "–" if each.recall is None else f"{each.recall:.3f}",
            f"{each.build_s:.1f}" if each.build_s else "–",
        )
        for each in readings
    ]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(readings[0])))
            writer.writeheader()
            writer.writerows(asdict(each) for each in readings)
    if arguments.json:
        write(arguments.json, json.dumps([asdict(each) for each in readings], indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
