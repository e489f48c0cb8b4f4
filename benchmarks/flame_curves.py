"""Training and validation curve of pre-trained FLAME weights.

Usage: python benchmarks/flame_curves.py [--checkpoint DIR] [--out docs/figures/flame-pretraining.png]
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

SHIPPED = Path(str(files("tsbench.models.flame"))) / "weights" / "flame-small"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="those of the package unless given")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/flame-pretraining.png"))
    arguments = parser.parse_args()
    card = json.loads((arguments.checkpoint / "flame.json").read_text())["card"]
    steps, scores, losses = (
        [entry[name] for entry in card["validation"]] for name in ("step", "score", "train_loss")
    )
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    left.plot(steps, losses, color="tab:blue")
    left.set_title("training loss (likelihood + pinball)")
    right.plot(steps, scores, color="tab:orange")
    right.set_title("validation: pinball loss, generated windows")
    for axes in (left, right):
        axes.set_xlabel(f"step of {card['batch_size']} windows")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110)
    print(arguments.out)


if __name__ == "__main__":
    main()
