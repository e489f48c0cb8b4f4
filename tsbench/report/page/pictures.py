"""The figures as they stand in the page: small PNG images with a text that says what is seen."""

from base64 import b64encode
from dataclasses import dataclass
from functools import singledispatch
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tsbench.errors import TsbenchError
from tsbench.report.figures.canvas import require_matplotlib, style
from tsbench.report.figures.catalog import FIGURES, StabilityPicture
from tsbench.report.figures.changes import Capacity, Changes
from tsbench.report.figures.costs import AccuracyLatency, RetrievalScaling
from tsbench.report.figures.errors import Calibration, StepErrors
from tsbench.report.figures.ranks import Ranks
from tsbench.report.figures.settings import Results
from tsbench.report.figures.weights import WeightPicture
from tsbench.report.labels import ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI, _COLOURS = 130, 64


@dataclass(frozen=True)
class Shown:
    """A figure in the page.

    Attributes:
        kind: Name in FIGURES.
        title: What it shows.
        alt: What is seen.
        png: The image as a data URI.
        width: Pixels; likewise `height`.
        height: See `width`.
    """

    kind: str
    title: str
    alt: str
    png: str
    width: int
    height: int


def pictures(results: Results) -> tuple[list[Shown], list[str]]:
    """Draw what the stored results allow, but the sample forecasts, which the page's browser shows.

    Returns:
        The figures, and a line for each that is not there with the reason.

    Raises:
        TsbenchError: A file is damaged.
    """
    try:
        require_matplotlib()
    except TsbenchError as missing:
        return [], [f"Not drawn: {missing}."]
    shown, absent = [], []
    for name, kind in FIGURES.items():
        if name == "forecasts":
            continue
        prepared = kind.prepare(results)
        if not prepared:
            absent.append(f"{name}: no data for it; run `{kind.command}`")
        for picture in prepared:
            with style():
                png, width, height = _png(kind.draw(picture))
            shown.append(Shown(name, _title(picture), description(picture), png, width, height))
    return shown, absent


def _png(figure: "Figure") -> tuple[str, int, int]:
    """An image of few colours as a data URI, with its size; the same figure gives the same bytes."""
    from PIL import Image

    buffer, small = BytesIO(), BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    with Image.open(buffer) as image:
        size = image.size
        image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return f"data:image/png;base64,{b64encode(small.getvalue()).decode()}", *size


def _title(picture: Any) -> str:
    if isinstance(picture, StabilityPicture):
        spec = picture.diagnosis.spec
        return f"{spec.dataset}, H = {spec.horizon}, {spec.backbone}: error along F-LLM's roll-out"
    return str(picture.title)


@singledispatch
def description(picture: object) -> str:
    """Say what is seen in a picture, from its data."""
    raise TypeError(f"no description of {type(picture).__name__}")


@description.register
def _(picture: WeightPicture) -> str:
    found = [
        f"H = {horizon}, {curve.label}: validation chose {ALPHA} = {curve.alpha[curve.chosen]:.2f}, which "
        f"changes the test MSE by {curve.test[curve.chosen]:+.1f} %; lowest on test at "
        f"{curve.alpha[curve.best]:.2f} with {curve.test[curve.best]:+.1f} %"
        for horizon, curves in picture.panels
        for curve in curves
    ]
    return _sentence("MSE against the fusion weight", found)


@description.register
def _(picture: Changes) -> str:
    found = [
        f"{change.label} {', '.join(f'{value:+.1f} % at {horizon}' for horizon, value in each)}"
        for change in picture.changes
        for each in [sorted(change.percent.items())]
    ]
    return _sentence("Change of MSE against the backbone alone by horizon", found)


@description.register
def _(picture: Capacity) -> str:
    found = [
        f"{label} {', '.join(f'{value:+.1f} % with {size}' for size, value in line.items())}"
        for label, line in picture.lines.items()
    ]
    return _sentence("Change of MSE by size of PlugMem", found)


@description.register
def _(picture: StepErrors) -> str:
    found = [
        f"{line.label} {line.mse[0]:.3f} at the first and {line.mse[-1]:.3f} at the last step"
        for line in picture.lines
    ]
    return _sentence(f"MSE by horizon step, 1 to {len(picture.lines[0].mse)}", found)


@description.register
def _(picture: Calibration) -> str:
    found = [
        f"{line.label} holds {100 * line.covered[-1]:.0f} % of the targets in its "
        f"{100 * line.nominal[-1]:.0f} % interval"
        for line in picture.lines
    ]
    return _sentence("Coverage of the central intervals", found)


@description.register
def _(picture: AccuracyLatency) -> str:
    found = [
        f"H = {horizon}, {point.label} on {point.backbone} {point.mse:.3f} at {point.median_ms:.1f} ms"
        for horizon, points in picture.panels
        for point in points
    ]
    return _sentence("MSE against milliseconds of a single query", found)


@description.register
def _(picture: RetrievalScaling) -> str:
    found = [
        f"{label} {line[few]:.3g} ms for {few:,} and {line[many]:.3g} ms for {many:,}"
        for label, line in picture.lines.items()
        for few, many in [(min(line), max(line))]
    ]
    return _sentence("Milliseconds of one retrieval by number of stored windows", found)


@description.register
def _(picture: Ranks) -> str:
    ranking = picture.ranking
    found = [f"{name} {rank:.2f}" for name, rank in zip(ranking.names, ranking.ranks, strict=True)]
    return _sentence(f"Average ranks over {ranking.data_sets} data sets, 1 is best", found)


@description.register
def _(picture: StabilityPicture) -> str:
    stability = picture.diagnosis.stability
    found = [
        f"{name} {loop.error.value[-1]:.3g}"
        for name, loop in (("open loop", stability.open_loop), ("closed loop", stability.closed_loop))
    ]
    text = _sentence(f"Error at the last of {len(stability.bound)} roll-out steps", found)
    return f"{text} The largest gain of the closed loop is {stability.rho:.2f}."


def _sentence(subject: str, found: list[str]) -> str:
    return f"{subject}: {'; '.join(found)}."
