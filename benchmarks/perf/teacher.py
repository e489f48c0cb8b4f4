"""What does it take to build TS-Memory's teacher for every train window, beside a plain implementation?

Usage: python benchmarks/perf/teacher.py [--dataset ETTh1] [--windows N ...] [--width 256] [--rounds 3]

Both parts build the whole teacher at H = 96 from L = 512 with embeddings at hand, one query per train window
and channel (ETTh1: 56,231), 20 neighbours of 50 candidates, and write it to disk. Each runs as a process of
its own, one after the other in turn; time and peak memory are those of the whole process, imports included.
Embeddings are normal random numbers of the stated width: how long an exact search takes does not depend on
them. The answers of both are compared.

"tsbench" is `build_teacher`. "plain" is written from the paper's equations the way research code often is:
an exact faiss index per channel and a Python loop over its queries. It is not the authors' code.

Several numbers of windows show how the time grows: the search compares every window of a channel with every
other one, all else is linear.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from processes import finish, measure, medians
from tabulate import tabulate

from tsbench.config import TeacherOptions

LOOKBACK, HORIZON = 512, 96
LEVELS = tuple(step / 10 for step in range(1, 10))
Embeddings = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", default="ETTh1", help="'demo' needs no data")
    parser.add_argument("--windows", type=int, nargs="+", default=[sys.maxsize], help="first train windows")
    parser.add_argument("--width", type=int, default=256, help="of the embeddings")
    parser.add_argument("--exclusion", default="target", choices=("self", "target", "window"))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each part; the median counts")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        PARTS[asked.part](asked.dataset, asked.folder, TeacherOptions(exclusion=asked.exclusion))
        return
    for count in asked.windows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            windows, channels = prepare(asked.dataset, folder, count, asked.width)
            options = ["--dataset", asked.dataset, "--folder", folder, "--exclusion", asked.exclusion]
            runs = [
                (part, measure(__file__, part, options)) for _ in range(asked.rounds) for part in asked.only
            ]
            costs = {part: [cost for each, cost in runs if each == part] for part in asked.only}
            print(f"\n{asked.dataset}: {windows:,} windows x {channels} channels, width {asked.width}\n")
            print(tabulate(medians(costs), ("", "seconds", "peak MiB", "ratio"), tablefmt="github"))
            if len(asked.only) == len(PARTS):
                print(f"\n{agreement(folder, TeacherOptions().alignment_tail)}")


def prepare(dataset: str, folder: Path, count: int, width: int) -> tuple[int, int]:
    """Write the standardised data, the windows and the embeddings that both parts read."""
    from tsbench.data.load import load_dataset
    from tsbench.data.splits import Scaler, split_borders
    from tsbench.data.windows import window_grid

    data = load_dataset(dataset, None)
    borders = split_borders(data.split, len(data.values))
    scaled = Scaler.fit(data.values[slice(*borders.train)]).transform(data.values)
    starts = window_grid(borders, "train", LOOKBACK, HORIZON).starts[:count]
    shape = (len(starts), scaled.shape[1], width)
    np.save(folder / "scaled.npy", scaled)
    np.save(folder / "starts.npy", starts)
    np.save(folder / "embeddings.npy", np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return shape[:2]


def ours(dataset: str, folder: Path, options: TeacherOptions) -> None:
    from tsbench.methods.ts_memory.retrieval import KnowledgeBase
    from tsbench.methods.ts_memory.teacher import build_teacher

    scaled, starts, embeddings = (
        np.load(folder / f"{name}.npy") for name in ("scaled", "starts", "embeddings")
    )
    base = KnowledgeBase(scaled, starts, embeddings, LOOKBACK, HORIZON)
    teacher = build_teacher(base, starts, embeddings, LEVELS, options, queries_are_train=True)
    teacher.save(folder / "teacher.safetensors")
    finish()


def plain(dataset: str, folder: Path, options: TeacherOptions) -> None:
    """One query after the other."""
    import faiss

    scaled, starts, embeddings = (
        np.load(folder / f"{name}.npy") for name in ("scaled", "starts", "embeddings")
    )
    zone = {"self": 1, "target": HORIZON, "window": LOOKBACK + HORIZON}[options.exclusion]
    windows, channels = embeddings.shape[:2]
    answers = np.empty((windows, channels, len(LEVELS), HORIZON), np.float32)
    neighbours = np.empty((windows, channels, options.neighbours), np.int64)
    for channel in range(channels):
        series = scaled[:, channel]
        vectors = np.ascontiguousarray(embeddings[:, channel])
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        squared, found = index.search(vectors, min(windows, options.pool + 2 * zone - 1))
        pools = []
        for query, start in enumerate(starts):
            far = np.abs(starts[found[query]] - start) >= zone
            pools.append((found[query][far][: options.pool], squared[query][far][: options.pool]))
        sample = np.linspace(0, windows - 1, 256).astype(int)
        scale = np.median(np.sqrt(np.concatenate([pools[query][1] for query in sample])))
        for query, start in enumerate(starts):
            context = series[start - LOOKBACK : start]
            ranked = []
            for place, distance in zip(*pools[query], strict=True):
                known = starts[place]
                candidate = series[known - LOOKBACK : known]
                tail = options.alignment_tail
                shift = context[-tail:].mean() - candidate[-tail:].mean()
                gap = np.abs(context - candidate - shift).sum()
                ranked.append((gap, np.sqrt(distance), series[known : known + HORIZON] + shift, known))
            ranked = sorted(ranked, key=lambda each: each[0])[: options.neighbours]
            neighbours[query, channel] = [each[3] for each in ranked]
            scores = np.exp(-np.array([each[1] for each in ranked]) / (options.temperature * scale))
            weights = scores / scores.sum()
            futures = np.stack([each[2] for each in ranked])
            order = futures.argsort(axis=0)
            reached = weights[order].cumsum(axis=0)
            ordered = np.take_along_axis(futures, order, axis=0)
            for row, level in enumerate(LEVELS):
                first = (reached >= level - 1e-9).argmax(axis=0)
                answers[query, channel, row] = ordered[first, np.arange(HORIZON)]
    np.save(folder / "plain.npy", answers)
    np.save(folder / "neighbours.npy", neighbours)
    finish()


def agreement(folder: Path, tail: int) -> str:
    """How far the quantiles of both parts lie apart, and why."""
    from tsbench.methods.ts_memory.teacher import Teacher

    teacher, plain = Teacher.load(folder / "teacher.safetensors"), np.load(folder / "plain.npy")
    apart = np.abs(teacher.quantiles - plain)
    differ = np.argwhere(apart >= 1e-4)
    same = (np.sort(teacher.neighbours) == np.sort(np.load(folder / "neighbours.npy"))).all(axis=-1)
    decided = same[differ[:, 0], differ[:, 1]]  # by a rounding, not by another neighbour
    scaled, missed = np.load(folder / "scaled.npy").astype(np.float64), [0.0]
    for query, channel, level, step in differ[decided]:
        known, series = teacher.neighbours[query, channel], scaled[:, channel]
        own = series[teacher.query_starts[query] + np.arange(-tail, 0)].mean()
        futures = series[known + step] + own - series[known[:, None] + np.arange(-tail, 0)].mean(axis=1)
        lower = min(teacher.quantiles[query, channel, level, step], plain[query, channel, level, step])
        weight = teacher.weights[query, channel].astype(np.float64)[futures <= lower + 1e-5].sum()
        missed.append(abs(weight - LEVELS[level]))
    agreed = 100 * (1 - len(differ) / apart.size)
    return (
        f"Quantiles: {agreed:.5f} % of {apart.size:,} agree to 1e-4, largest difference {apart.max():.2g}.\n"
        f"{np.count_nonzero(~same)} of {same.size:,} queries have another neighbour. Of the {len(differ)} "
        f"quantiles that differ, {np.count_nonzero(~decided)} are theirs; at the {np.count_nonzero(decided)} "
        f"others the weights up to a neighbour miss the level by {max(missed):.1g} at most."
    )


PARTS = {"tsbench": ours, "plain": plain}

if __name__ == "__main__":
    main()
