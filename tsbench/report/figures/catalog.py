"""Every figure: how its data are prepared, how it is drawn, and which command makes what it needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tsbench.bench.diagnoses import Diagnosis
from tsbench.bench.store import ResultsStore, file_name
from tsbench.errors import TsbenchError
from tsbench.registry import unknown_name
from tsbench.report.figures.canvas import require_matplotlib, save, style
from tsbench.report.figures.changes import (
    draw_capacity,
    draw_changes,
    prepare_ablation,
    prepare_capacity,
    prepare_domain_shift,
)
from tsbench.report.figures.costs import (
    draw_accuracy_latency,
    draw_retrieval_scaling,
    prepare_accuracy_latency,
    prepare_retrieval_scaling,
)
from tsbench.report.figures.errors import draw_calibration, draw_steps, prepare_calibration, prepare_steps
from tsbench.report.figures.forecasts import draw_forecasts, prepare_forecasts
from tsbench.report.figures.ranks import draw_ranks, prepare_ranks
from tsbench.report.figures.settings import Results
from tsbench.report.figures.weights import draw_weights, prepare_weights
from tsbench.report.select import select
from tsbench.report.stability import stability_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(Protocol):
    """The data of one picture."""

    @property
    def name(self) -> str:
        """File name without ending."""


Data = TypeVar("Data", bound=Picture)


@dataclass(frozen=True)
class Kind(Generic[Data]):
    """A kind of figure.

    Attributes:
        prepare: From stored results to the data of its pictures; none where nothing is stored for them.
        draw: From the data of a picture to the picture.
        command: What makes the data it needs.
    """

    prepare: Callable[[Results], list[Data]]
    draw: Callable[[Data], "Figure"]
    command: str


@dataclass(frozen=True, eq=False)
class StabilityPicture:
    """A stored diagnosis of F-LLM's roll-out."""

    name: str
    diagnosis: "Diagnosis"


def prepare_stability(results: Results) -> list[StabilityPicture]:
    """A picture per stored diagnosis."""
    return [
        StabilityPicture(
            file_name(
                f"stability-{each.spec.dataset}-{each.spec.horizon}-{each.spec.backbone}-{each.key[:6]}"
            ),
            each,
        )
        for each in results.diagnoses
    ]


_RUN = "tsbench run --method ts-memory"
FIGURES: dict[str, Kind[Any]] = {
    "forecasts": Kind(prepare_forecasts, draw_forecasts, _RUN),
    "alpha": Kind(prepare_weights, draw_weights, _RUN),
    "ablation": Kind(prepare_ablation, draw_changes, f"{_RUN} --ablation no-gate"),
    "capacity": Kind(prepare_capacity, draw_capacity, f"{_RUN} --plugmem small"),
    "domain-shift": Kind(prepare_domain_shift, draw_changes, f"{_RUN} --train-dataset ETTh2"),
    "steps": Kind(prepare_steps, draw_steps, _RUN),
    "calibration": Kind(prepare_calibration, draw_calibration, _RUN),
    "accuracy-latency": Kind(prepare_accuracy_latency, draw_accuracy_latency, "tsbench latency"),
    "retrieval-scaling": Kind(
        prepare_retrieval_scaling,
        draw_retrieval_scaling,
        "python benchmarks/perf/retrieval_scaling.py --json results/latency/retrieval-scaling.json",
    ),
    "ranks": Kind(prepare_ranks, draw_ranks, f"{_RUN} --dataset ETTh1 ETTh2"),
    "stability": Kind(
        prepare_stability,
        lambda picture: stability_figure(picture.diagnosis),
        "tsbench eval --method f-llm --diagnose stability",
    ),
}
"""By name, in the order they are drawn."""


def draw_figures(
    results: Path,
    output: Path,
    names: Iterable[str] = (),
    expression: str = "",
    diagnoses: "Iterable[Diagnosis]" = (),
) -> tuple[list[Path], list[str]]:
    """Draw what the stored results allow, each picture as PNG and as PDF.

    Args:
        results: Folder of the results.
        output: Folder of the pictures; a picture of the same name is replaced.
        names: Figures; all unless given.
        expression: Which cells, see `select`.
        diagnoses: Of F-LLM's stability, all that are stored.

    Returns:
        The files, and a line for each figure that has no data with the command that makes them.

    Raises:
        TsbenchError: matplotlib is missing, a figure is unknown, nothing is selected, or a file is damaged or
            cannot be written.
    """
    require_matplotlib()
    wanted = list(dict.fromkeys(names)) or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            raise unknown_name("figure", name, FIGURES)
    records = ResultsStore(results).records()
    chosen = select(records, expression)
    if records and not chosen:
        raise TsbenchError(f"none of {len(records)} results matches '{expression}'; see them all without it")
    source = Results(results, tuple(chosen), tuple(select(diagnoses, expression)))
    written, missing = [], []
    for name in wanted:
        kind = FIGURES[name]
        pictures = kind.prepare(source)
        if not pictures:
            missing.append(f"{name}: no data for it; run `{kind.command}`")
        for picture in pictures:
            with style():
                written += save(kind.draw(picture), output / picture.name)
    return written, missing
