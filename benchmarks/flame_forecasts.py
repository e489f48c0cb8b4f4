"""One picture of FLAME's probabilistic forecast per data set.

Usage: TSBENCH_MIRROR=DIR python benchmarks/flame_forecasts.py [--checkpoint DIR] [--out docs/figures]

The window is the middle one of the test split and the channel the last (the target of ETT and Weather), so
that nobody chose them for their looks. Shown: the last 192 of 512 context steps, the 336 steps that followed,
the median, the 80 % interval and five of 100 sampled paths, in standardised units.
"""

import argparse
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")
from matplotlib import pyplot

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.flame import FlameBackbone, load
from tsbench.data.splits import Scaler, split_borders
from tsbench.data.windows import gather_contexts, gather_targets, window_grid

DATASETS = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "Exchange")
LOOKBACK, HORIZON, SHOWN, PATHS = 512, 336, 192, 5


def draw(backbone: FlameBackbone, name: str, path: Path) -> None:
    """Forecast the middle test window of the last channel and save the picture."""
    dataset = tsbench.load_dataset(name)
    borders = split_borders(dataset.split, len(dataset.values))
    scaled = Scaler.fit(dataset.values[slice(*borders.train)]).transform(dataset.values)
    grid = window_grid(borders, "test", LOOKBACK, HORIZON)
    start = grid.starts[len(grid.starts) // 2 :][:1]
    context = torch.from_numpy(gather_contexts(scaled, start, LOOKBACK)[0, -1:])
    target = gather_targets(scaled, start, HORIZON)[0, -1]
    low, median, high = backbone.predict(context, HORIZON)[0, [0, 4, 8]].numpy()
    paths = backbone.sample(context, HORIZON, n=100)[0, :PATHS].numpy()
    past, future = range(-SHOWN, 0), range(HORIZON)
    figure, axes = pyplot.subplots(figsize=(9, 3), layout="constrained")
    axes.plot(past, context[0, -SHOWN:], color="black", linewidth=1, label="context")
    axes.plot(future, target, color="black", linewidth=1, alpha=0.6, linestyle="--", label="what happened")
    axes.fill_between(future, low, high, color="tab:blue", alpha=0.25, linewidth=0, label="80 % interval")
    axes.plot(future, paths.T, color="tab:blue", linewidth=0.5, alpha=0.5)
    axes.plot(future, median, color="tab:blue", linewidth=1.5, label="median; thin: sampled paths")
    origin = f"{dataset.timestamps[start[0]]}, step {dataset.freq}"
    axes.set_title(f"{name}, {dataset.channels[-1]}: {backbone.name} zero-shot, {origin}")
    axes.set_xlabel("steps from the forecast origin")
    axes.set_ylabel("standardised")
    axes.legend(loc="upper left", fontsize="small", ncols=2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="weights of flame-small; those of the package unless given")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    arguments = parser.parse_args()
    backbone = load(BackboneOptions("flame-small", arguments.checkpoint))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in DATASETS:
        path = arguments.out / f"flame-{name.lower()}.png"
        draw(backbone, name, path)
        print(path)


if __name__ == "__main__":
    main()
