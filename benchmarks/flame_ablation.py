"""FLAME's parts left out or replaced one at a time, at equal pre-training budget.

Usage: TSBENCH_MIRROR=DIR python benchmarks/flame_ablation.py --steps 400 --out build/ablation

Pre-trains each variant of flame-small from the same seed on the same windows (a finished one is kept, an
interrupted one continues), then scores it zero-shot on test windows of each data set and prints a Markdown
table: MSE / CRPS per data set, and the pinball loss on generated validation windows. `--only` does one
variant, so that two processes can share the work; the table needs all of them.
"""

import argparse
import json
from pathlib import Path

from tabulate import tabulate

import tsbench
from tsbench.cli.pretrain import FlameAblation, pretrain

DATASETS = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "Exchange")
HORIZON, TEST_STRIDE = 96, 16


def pretrained(variant: FlameAblation, steps: int, out: Path) -> Path:
    """Directory of a variant's weights."""
    directory = out / variant.value
    if not (directory / "flame.json").exists():
        pretrain(model="flame-small", out=directory, steps=steps, ablation=variant, eval_every=100)
    return directory


def row(directory: Path, out: Path) -> dict[str, str]:
    """Scores of a variant."""
    table = tsbench.run(
        "origin",
        backbone="flame-small",
        checkpoint=str(directory),
        dataset=DATASETS,
        horizon=HORIZON,
        test_stride=TEST_STRIDE,
        baselines=False,
        results=out / "results",
    ).set_index("dataset")
    card = json.loads((directory / "flame.json").read_text())["card"]
    validation = min(evaluation["score"] for evaluation in card["validation"])
    return {"variant": directory.name, "synthetic": f"{validation:.4f}"} | {
        name: f"{table.mse[name]:.3f} / {table.crps[name]:.3f}" for name in DATASETS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("build/ablation"))
    parser.add_argument("--only", nargs="*", type=FlameAblation, default=list(FlameAblation))
    arguments = parser.parse_args()
    rows = [
        row(pretrained(variant, arguments.steps, arguments.out), arguments.out) for variant in arguments.only
    ]
    print(f"{arguments.steps} steps; H = {HORIZON}, every {TEST_STRIDE}th test window, MSE / CRPS")
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
