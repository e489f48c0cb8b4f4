"""What the tables of the papers look like: rows, columns, and the cells behind each place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from tsbench.bench.plan import Label, expand
from tsbench.bench.suite import Suite, load_suite, module_name, on_backbones
from tsbench.config import CellSpec, FLlmOptions, TsMemoryOptions
from tsbench.registry import unknown_name
from tsbench.report.labels import METHOD_NAMES
from tsbench.report.published import Published, published

AVERAGE = "avg"
AVERAGED = ("96", "192", "336", "720")
Dimension = Literal["dataset", "horizon", "method", "backbone", "block", "setting", "metric"]


@dataclass(frozen=True)
class Place:
    """A row of a published table at one horizon, in the names of `tsbench.report.published`."""

    dataset: str
    horizon: str
    method: str
    backbone: str
    variant: str


Point = tuple[Place, str]
"""A place and a metric: one figure."""


@dataclass(frozen=True)
class Layout:
    """How a paper arranges one of its tables.

    Attributes:
        paper: "f-llm" or "ts-memory".
        table: Its number there.
        rows: What the rows run over, the slowest first.
        columns: What the columns run over, the outermost first.
        change: Where the paper prints the relative change against Origin: in parentheses behind the score, in
            a row below the averages, or not at all.
        title: Of a table of timings; others have that of their suite.
    """

    paper: str
    table: int
    rows: tuple[Dimension, ...]
    columns: tuple[Dimension, ...]
    change: Literal["none", "cell", "row"] = "none"
    title: str = ""

    @property
    def name(self) -> str:
        """Such as "ts-memory/3"."""
        return f"{self.paper}/{self.table}"

    @property
    def timed(self) -> bool:
        """Whether it is a table of timings, which no suite runs."""
        return bool(self.title)

    @cached_property
    def figures(self) -> tuple[Published, ...]:
        """What the paper prints there, in print order."""
        return tuple(each for each in published() if (each.paper, each.table) == (self.paper, self.table))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Its scores or costs, in print order."""
        return tuple(metric for metric in self.decimals if not metric.endswith("_std"))

    @cached_property
    def horizons(self) -> tuple[str, ...]:
        """The horizons it prints, the average being one."""
        return tuple(dict.fromkeys(figure.horizon for figure in self.figures))

    @cached_property
    def decimals(self) -> dict[str, int]:
        """Most decimals that it prints of each metric."""
        found: dict[str, int] = {}
        for figure in self.figures:
            printed = -int(figure.value.as_tuple().exponent)
            found[figure.metric] = max(printed, found.get(figure.metric, 0))
        return found


_SLOW: tuple[Dimension, ...] = ("dataset",)
_FAST: tuple[Dimension, ...] = ("dataset", "horizon")
_METHODS: tuple[Dimension, ...] = ("method", "metric")
_BACKBONES: tuple[Dimension, ...] = ("backbone", *_METHODS)
_BLOCKS: tuple[Dimension, ...] = ("block", *_BACKBONES)
_PER_QUERY = "TS-Memory, Table {}: milliseconds per query"
_ALL = (
    Layout("ts-memory", 2, _SLOW, _BACKBONES, "cell"),
    Layout("ts-memory", 3, _SLOW, _METHODS, "cell"),
    Layout("ts-memory", 4, _SLOW, _METHODS, "cell", f"{_PER_QUERY.format(4)}, mean over horizons"),
    Layout("ts-memory", 5, _SLOW, _BACKBONES, "cell"),
    Layout("ts-memory", 6, _SLOW, _BLOCKS),
    Layout("ts-memory", 9, _FAST, _BACKBONES, "row"),
    Layout("ts-memory", 10, _FAST, _METHODS, "row"),
    Layout("ts-memory", 11, _FAST, _METHODS, "row", _PER_QUERY.format(11)),
    Layout("ts-memory", 12, _FAST, _METHODS, "row", "TS-Memory, Table 12: seconds per evaluation"),
    Layout("ts-memory", 13, _FAST, _BACKBONES, "row"),
    Layout("ts-memory", 14, _FAST, _BLOCKS, "row"),
    Layout("ts-memory", 15, ("setting", "horizon"), ("block", "dataset", "metric")),
    Layout("ts-memory", 16, ("setting", "horizon"), ("dataset", "metric")),
    Layout("f-llm", 1, _SLOW, _METHODS),
    Layout("f-llm", 2, ("setting", "horizon"), ("method",)),
    Layout("f-llm", 3, ("horizon", "method"), ("dataset", "metric")),
    Layout("f-llm", 4, ("backbone", "metric"), ("dataset", "horizon")),
    Layout("f-llm", 5, ("horizon",), ("dataset", "metric")),
    Layout("f-llm", 6, ("horizon", "method"), ("dataset", "metric")),
    Layout("f-llm", 8, _FAST, _METHODS),
)
LAYOUTS = {layout.name: layout for layout in _ALL}
"""The layouts by name."""


def find_layout(name: str) -> Layout:
    """The layout of a published table.

    Args:
        name: Such as "ts-memory/3", or "ts-memory-table3" as its suite is called.

    Raises:
        TsbenchError: There is none of that name.
    """
    short = name.replace("-table", "/")
    if short not in LAYOUTS:
        raise unknown_name("table", name, LAYOUTS)
    return LAYOUTS[short]


def place_of(figure: Published) -> Place:
    """Where a printed figure stands."""
    return Place(figure.dataset, figure.horizon, figure.method, figure.backbone, figure.variant)


def averaged(place: Place) -> tuple[Place, ...]:
    """The places at the four horizons that an average is of."""
    return tuple(replace(place, horizon=horizon) for horizon in AVERAGED)


def score_places(suite: Suite) -> dict[Place, tuple[CellSpec, ...] | str]:
    """What fills the places of a table of scores: cells, several being pooled, or why there are none.

    Averages are left out: they are made of the places of `averaged`.

    Args:
        suite: That of the table, on the paper's backbones or on others.
    """
    settings: dict[str, list[TsMemoryOptions | FLlmOptions]] = {
        "ts-memory": [TsMemoryOptions()],
        "f-llm": [FLlmOptions()],
    }
    cells: dict[Place, tuple[CellSpec, ...]] = {}
    for cell in expand(suite, seeds=(0,), settings=settings):
        for horizon in _named(cell.label.dataset, (cell.spec.horizon,)):
            place = _place(cell.label, horizon)
            cells[place] = (*cells.get(place, ()), cell.spec)
    absent = {
        _place(
            Label(method, row.backbone, row.variant, suite.printed_datasets.get(name, name)), horizon
        ): row.reason
        for row in suite.absent
        for method in row.methods
        for name in row.datasets or suite.datasets
        for horizon in _named(suite.printed_datasets.get(name, name), suite.horizons)
    }
    return {**absent, **{place: tuple(dict.fromkeys(specs)) for place, specs in cells.items()}}


def layout_suite(layout: Layout, backbones: Sequence[str]) -> Suite | None:
    """The cells of a table of scores, on other backbones if some are given; None for a table of timings."""
    if layout.timed:
        return None
    suite = load_suite(layout.name)
    return on_backbones(suite, backbones) if backbones else suite


def carries_modules(layout: Layout) -> bool:
    """Whether a table has memory modules on other backbones than they were trained on."""
    suite = layout_suite(layout, ())
    return suite is not None and any(row.plugmem_from is not None for row in suite.rows)


def timing_places(layout: Layout, backbones: Sequence[str]) -> list[Place]:
    """The places of a table of timings but its averages, on other backbones if some are given."""
    shown = (
        replace(place, backbone=backbone)
        for place in map(place_of, layout.figures)
        for backbone in backbones or (place.backbone,)
    )
    return list(
        dict.fromkeys(
            part for place in shown for part in (averaged(place) if place.horizon == AVERAGE else (place,))
        )
    )


def value_of(dimension: Dimension, point: Point) -> str:
    """Where a figure stands along a dimension."""
    return _VALUES[dimension](*point)


def print_order(
    layout: Layout, dimensions: Sequence[Dimension], found: Iterable[tuple[str, ...]]
) -> tuple[tuple[str, ...], ...]:
    """Values along some dimensions in the order of the paper, what it does not print at the end.

    Args:
        layout: The table.
        dimensions: The slowest first; below each of its values the order of the next may be another.
        found: Values along them, each once or more often.
    """
    first: dict[tuple[str, ...], int] = {}
    alone: list[dict[str, int]] = [{} for _ in dimensions]
    for place, figure in enumerate(layout.figures):
        point = place_of(figure), figure.metric
        values = tuple(value_of(dimension, point) for dimension in dimensions)
        for depth, value in enumerate(values):
            first.setdefault(values[: depth + 1], place)
            alone[depth].setdefault(value, place)

    unique = tuple(dict.fromkeys(found))
    last = len(layout.figures)
    for values in unique:
        for depth, value in enumerate(values):
            alone[depth].setdefault(value, last + len(alone[depth]))

    def order(values: tuple[str, ...]) -> list[int]:
        return [first.get(values[: depth + 1], alone[depth][value]) for depth, value in enumerate(values)]

    return tuple(sorted(unique, key=order))


def heading(dimension: Dimension, value: str) -> str:
    """What a row or column is called."""
    if dimension == "horizon":
        return "Avg" if value == AVERAGE else value
    if dimension == "block" and value not in _HEADINGS and value.endswith("-plugmem"):
        return f"{value.removesuffix('-plugmem')}-PlugMem"
    return _HEADINGS.get(value, value)


def _block(place: Place, metric: str) -> str:
    """The half of a table: by source of the memory module, or by what is trained."""
    options = _options(place)
    donor = options.get("plugmem-from")
    return options.get("block") or (module_name(donor) if donor else place.method)


def _setting(place: Place, metric: str) -> str:
    """What was trained on, or how large the memory module is."""
    options = _options(place)
    if "source" in options:
        return f"{options['source']} → {place.dataset.partition('-')[0]}"
    return options.get("setting") or (f"plugmem-{options['plugmem']}" if "plugmem" in options else "origin")


def _options(place: Place) -> dict[str, str]:
    return dict(part.split("=", 1) for part in place.variant.split(";") if part)


_VALUES: dict[Dimension, Callable[[Place, str], str]] = {
    "dataset": lambda place, metric: place.dataset,
    "horizon": lambda place, metric: place.horizon,
    "method": lambda place, metric: place.method,
    "backbone": lambda place, metric: place.backbone,
    "block": _block,
    "setting": _setting,
    "metric": lambda place, metric: metric,
}
DIMENSION_NAMES: dict[Dimension, str] = {
    "dataset": "Data set",
    "horizon": "H",
    "method": "Method",
    "backbone": "Backbone",
    "block": "Module",
    "setting": "Setting",
    "metric": "Score",
}
_HEADINGS = {
    **METHOD_NAMES,
    "f-llm": "F-LLM",
    "f-llm-no-feedback": "F-LLM w/o feedback",
    "f-llm-no-llm": "F-LLM w/o LLM",
    "frozen-llm": "Frozen LLM",
    "frozen-llm-lora": "+ LoRA",
    "autotimes": "AutoTimes",
    "lvicl": "LVICL",
    "time-llm": "Time-LLM",
    "fpt": "FPT",
    "unitime": "UniTime",
    "itransformer": "iTransformer",
    "dlinear": "DLinear",
    "patchtst": "PatchTST",
    "timesnet": "TimesNet",
    "timemixer++": "TimeMixer++",
    "simpletm": "SimpleTM",
    "nsformer": "NSformer",
    "fedformer": "FEDformer",
    "informer": "Informer",
    "reformer": "Reformer",
    "chronos-bolt-base": "ChronosBolt Base",
    "chronos-bolt-small": "ChronosBolt Small",
    "chronos-bolt-mini": "ChronosBolt Mini",
    "chronos-bolt-tiny": "ChronosBolt Tiny",
    "chronos-2": "Chronos2",
    "sundial-base": "Sundial",
    "timesfm": "TimesFM",
    "gpt2": "GPT-2",
    "opt-6.7b": "OPT-6.7B",
    "llama-2-7b": "LLaMA",
    "chronos-2-plugmem": "Chronos2-PlugMem",
    "sundial-plugmem": "Sundial-PlugMem",
    "cross-domain": "Cross-domain",
    "distribution-shift": "Distribution shift",
    "multi-domain": "Multi-domain",
    "in-domain": "In-domain",
    "plugmem-small": "PlugMem small",
    "plugmem-base": "PlugMem base",
    "plugmem-large": "PlugMem large",
    "mse": "MSE",
    "mae": "MAE",
    "crps": "CRPS",
    "smape": "SMAPE",
    "retrieval_ms": "Retr",
    "forward_ms": "Fwd",
    "total_ms": "Total",
    "retrieval_s": "Retr",
    "forward_s": "Fwd",
    "total_s": "Total",
    "retrieval_fraction": "Frac",
}


def _place(label: Label, horizon: str) -> Place:
    return Place(label.dataset, horizon, label.method, label.backbone, label.variant)


def _named(dataset: str, horizons: Sequence[int]) -> tuple[str, ...]:
    """Horizons as printed: that of a collection is its frequency."""
    competition, _, frequency = dataset.partition("-")
    return (frequency,) if competition in ("M3", "M4") and frequency else tuple(map(str, horizons))
