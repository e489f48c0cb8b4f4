"""Figures that papers print, to stand beside ours: never measured here, never best."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from math import nan

from tsbench.config import CellSpec
from tsbench.report.labels import is_leak

_METHODS = {"origin": "Origin", "ts-memory": "TS-Memory"}
_VARIANTS = {"": "", "plugmem-from=chronos-bolt-base": ", PlugMem from chronos-bolt-base"}
_LOOKBACK = 512


@dataclass(frozen=True)
class Published:
    """One printed figure.

    Attributes:
        paper: "f-llm" (arXiv 2602.12756) or "ts-memory" (arXiv 2602.11550).
        table: Number of its table there. A figure printed in several tables is there once for each, with
            the value of that table.
        dataset: As in the catalogue; of M3 and M4 the frequency is part of the name.
        horizon: Forecast steps, or "avg" over 96, 192, 336 and 720; of M3 and M4 the frequency.
        method: Such as "origin".
        backbone: Frozen model below the method; empty for none, or where the paper does not name it.
        variant: What differs from the method as proposed, as key=value;key=value. Of "origin", block=... is
            the half of the table it was printed in.
        metric: "mse", "mae", "crps", "smape", "mse_std", "mae_std", or a cost: retrieval_, forward_ and
            total_ in ms per query or in s per run, and retrieval_fraction.
        value: With the digits printed; retrieval_fraction is the printed percentage / 100.
    """

    paper: str
    table: int
    dataset: str
    horizon: str
    method: str
    backbone: str
    variant: str
    metric: str
    value: Decimal


@cache
def published() -> tuple[Published, ...]:
    """Every figure of the two papers' tables, in print order."""
    text = (files("tsbench.report") / "reference" / "results.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            line["paper"],
            int(line["table"]),
            line["dataset"],
            line["horizon"],
            line["method"],
            line["backbone"],
            line["variant"],
            line["metric"],
            Decimal(line["value"]),
        )
        for line in csv.DictReader(text.splitlines())
    )


@dataclass(frozen=True)
class PublishedRow:
    """MSE and MAE of one method on one backbone, as one table of the TS-Memory paper prints them."""

    table: int
    method: str
    backbone: str
    variant: str
    mse: Decimal
    mae: Decimal

    @property
    def source(self) -> str:
        """Paper and table."""
        return f"TS-Memory Table {self.table}"

    @property
    def label(self) -> str:
        """Name of the row, which says that it is published and where."""
        return f"{_METHODS[self.method]}{_VARIANTS[self.variant]} (published, {self.source})"

    def figures(self) -> dict[str, str | float]:
        """The row for programs; `published` tells it from measured ones."""
        return {
            "label": self.label,
            "mse": float(self.mse),
            "mae": float(self.mae),
            "method": self.method,
            "variant": self.variant,
            "backbone": self.backbone,
            "published": self.source,
        }

    def deviations(self, metrics: dict[str, float]) -> dict[str, float]:
        """Percent by which a measured MSE and MAE differ from those printed; NaN where one is missing."""
        return {
            f"{score}_vs_published_percent": 100 * (metrics.get(score, nan) / float(printed) - 1)
            for score, printed in (("mse", self.mse), ("mae", self.mae))
        }


def published_rows(dataset: str, horizon: int, lookback: int) -> list[PublishedRow]:
    """What the TS-Memory paper prints of Origin and TS-Memory for a setting of ours.

    On every backbone, with the memory module distilled on that backbone or, of the smaller ChronosBolts, on
    ChronosBolt-Base (Table 13); its variations of module size, source backbone and training set are left
    out. Tables that print the same two figures make one row, under the first of them; where they differ,
    each has a row of its own. The F-LLM paper has neither method, and another lookback.

    Args:
        dataset: Name in the catalogue.
        horizon: Forecast steps.
        lookback: Context steps; the paper's are 512.

    Returns:
        Origin before TS-Memory, then by backbone and table; empty where nothing is printed.
    """
    if lookback != _LOOKBACK:
        return []
    scores: dict[tuple[int, str, str, str], dict[str, Decimal]] = defaultdict(dict)
    for figure in published():
        wanted = (figure.paper, figure.dataset, figure.horizon) == ("ts-memory", dataset, str(horizon))
        if wanted and figure.method in _METHODS:
            scores[figure.table, figure.method, figure.backbone, figure.variant][figure.metric] = figure.value
    found: dict[tuple[object, ...], PublishedRow] = {}
    for (table, method, backbone, printed), values in scores.items():
        variant = "" if printed.startswith("block=") else printed
        if variant in _VARIANTS and "mse" in values:
            row = PublishedRow(table, method, backbone, variant, values["mse"], values["mae"])
            found.setdefault((method, backbone, variant, row.mse, row.mae), row)
    return sorted(found.values(), key=lambda row: (row.method, row.backbone, row.table))


def published_smape(dataset: str) -> dict[str, Decimal]:
    """SMAPE that the F-LLM paper prints of zero-shot transfer to a collection, by method; empty for none.

    Its M4 "Others" pools Weekly, Daily and Hourly, so it belongs to none of them.

    Args:
        dataset: Name in the catalogue, such as "M3-Monthly".
    """
    printed = {"M3-Other": "M3-Others"}.get(dataset, dataset)
    return {
        f"{figure.method} ({figure.backbone})" if figure.backbone else figure.method: figure.value
        for figure in published()
        if figure.metric == "smape" and figure.dataset == printed
    }


def counterpart(spec: CellSpec, rows: list[PublishedRow]) -> PublishedRow | None:
    """The published row that a cell of the same setting repeats; of several prints the first.

    Method and backbone are the same, with the registered weights and, as in the paper, medians fed back.
    An ablation, a control or a leaking row has none, nor has what was trained on another data set.
    """
    options = spec.options
    as_proposed = (options is None or options.ablation == "none") and not is_leak(spec)
    transferred = spec.checkpoint is not None or spec.train_dataset is not None
    if not as_proposed or transferred or spec.rollout != "median":
        return None
    wanted = spec.method, spec.backbone, f"plugmem-from={spec.plugmem_from}" if spec.plugmem_from else ""
    return next((row for row in rows if (row.method, row.backbone, row.variant) == wanted), None)
