"""The stability of F-LLM's roll-out as tables and as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsbench.report.cells import Cell, Table
from tsbench.report.figures.canvas import PAGE, legend_below, require_matplotlib, save, sheet, style
from tsbench.report.labels import MISSING, backbone_label, method_label, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tsbench.methods.f_llm_stability import Band, Diagnosis, Stability

_LOOPS = ("F-LLM without feedback", "#D55E00"), ("F-LLM", "#0072B2")
_ONE_STEP = "One-step open", "One-step closed"


def stability_tables(diagnosis: "Diagnosis") -> list[Table]:
    """Errors by roll-out step beside the bound, Jacobians, and slopes of the de-embedding, of one cell."""
    spec, stability = diagnosis.spec, diagnosis.stability
    setting = [
        f"{spec.dataset}, H = {spec.horizon}, L = {spec.lookback}",
        f"{method_label(spec)} on {backbone_label(spec)}",
        f"seed {spec.seed}",
        f"profile {spec.profile}",
        str(diagnosis.provenance["device"]),
    ]
    return [
        Table(
            title=" · ".join(["Stability", *setting]),
            columns=("Step", "Time steps", "Open", "Closed", "Closed - open", *_ONE_STEP, "Bound (closed)"),
            rows=_error_rows(diagnosis),
            notes=_error_notes(stability),
        ),
        Table(
            title=" · ".join(["Jacobians", *setting]),
            columns=("Method", "Step", "Contexts", "Spectral radius", "Gain"),
            rows=tuple(
                (Cell(name), Cell(str(step)), Cell(str(len(radius))), _range(radius), _range(gain))
                for (name, _), loop in zip(_LOOPS, (stability.open_loop, stability.closed_loop), strict=True)
                for step, radius, gain in zip(stability.steps, loop.radius, loop.gain, strict=True)
            ),
            notes=_jacobian_notes(diagnosis),
        ),
        Table(
            title=" · ".join(["De-embedding", *setting]),
            columns=("Penalty", "Largest slope", "Frobenius / sqrt(d)", "K_lip"),
            rows=tuple(
                (
                    Cell(slope.penalty),
                    Cell(spread([slope.spectral])),
                    Cell(spread([slope.probed])),
                    Cell(f"{stability.limit:g}"),
                )
                for slope in stability.slopes
            ),
            notes=_slope_notes(stability),
        ),
    ]


def draw_stability(diagnosis: "Diagnosis", path: Path) -> None:
    """Draw the errors by step beside the file of the diagnosis, as PNG and as PDF.

    Args:
        diagnosis: Of one cell.
        path: The diagnosis' file.

    Raises:
        TsbenchError: matplotlib is missing, or a file cannot be written.
    """
    require_matplotlib()
    with style():
        save(stability_figure(diagnosis), path.with_suffix(""))


def stability_figure(diagnosis: "Diagnosis") -> "Figure":
    """The errors by step with their bands, and the bound as far as it lies within the axis."""
    stability, spec = diagnosis.stability, diagnosis.spec
    errors = stability.open_loop.error, stability.closed_loop.error
    steps = np.arange(1, len(stability.bound) + 1)
    coverage = f"{stability.windows} of {stability.windows_total} test windows"
    title = f"{spec.dataset}, H = {spec.horizon}, L = {spec.lookback}, {spec.backbone}: error of the roll-out"
    figure = sheet(PAGE, 2.8, title, f"{coverage}; band: 95 % by moving-block bootstrap.")
    axes = figure.subplots()
    for (name, colour), error in zip(_LOOPS, errors, strict=True):
        axes.plot(steps, error.value, color=colour, marker="o", label=name)
        axes.fill_between(steps, error.low, error.high, color=colour, alpha=0.2, linewidth=0)
    top = 1.2 * float(max(np.fmax(error.value, error.high).max() for error in errors))
    if np.isfinite(stability.bound).all() and stability.bound.min() <= top:
        label = f"Theorem 4.1, rho = {spread([stability.rho])}"
        axes.plot(steps, stability.bound, color="black", linestyle="--", linewidth=1, label=label)
    axes.set_ylim(0, top)
    axes.set_xticks(steps)
    axes.set(xlabel="roll-out step", ylabel="RMSE, standardised")
    legend_below(figure, [axes])
    return figure


def _error_rows(diagnosis: "Diagnosis") -> tuple[tuple[Cell, ...], ...]:
    stability, spec = diagnosis.stability, diagnosis.spec
    patch = spec.f_llm.patch if spec.f_llm else spec.horizon
    opened, closed = stability.open_loop, stability.closed_loop
    return tuple(
        (
            Cell(str(place + 1)),
            Cell(f"{place * patch + 1}-{min((place + 1) * patch, spec.horizon)}"),
            _with_band(opened.error, place),
            _with_band(closed.error, place),
            _with_band(stability.difference, place, "+.4f"),
            Cell(spread([opened.one_step[place]])),
            Cell(spread([closed.one_step[place]])),
            Cell(spread([bound])),
        )
        for place, bound in enumerate(stability.bound)
    )


def _with_band(band: "Band", place: int, form: str | None = None) -> Cell:
    low, high = spread([band.low[place]], form), spread([band.high[place]], form)
    interval = MISSING if MISSING in (low, high) else f"{low}, {high}"
    return Cell(f"{spread([band.value[place]], form)} [{interval}]")


def _range(figures: NDArray[np.float64]) -> Cell:
    middle, low, high = (spread([float(f(figures))]) for f in (np.median, np.min, np.max))
    return Cell(f"{middle} [{low}, {high}]")


def _error_notes(stability: "Stability") -> tuple[str, ...]:
    measured = stability.windows * stability.channels
    share = 100 * measured / (stability.windows_total * stability.channels_total)
    blocks = stability.windows / stability.block
    contexts = stability.closed_loop.gain.shape[1]
    return (
        f"Coverage: {stability.windows} of {stability.windows_total} test windows, {stability.channels} of "
        f"{stability.channels_total} channels ({share:.3g} % of the rows).",
        "Open, closed: root mean squared error in standardised units of the plant without and with observer.",
        f"In brackets: 95 % by moving-block bootstrap over windows in time order, {blocks:.3g} blocks of "
        f"{stability.block} windows, beyond which windows share no target"
        + ("." if blocks >= 2 else "; with fewer than 2 there is no interval."),
        "One-step: the error had the plant been fed the truth up to that step.",
        f"Bound: Theorem 4.1 with rho = {spread([stability.rho])}, the largest gain of the closed loop at "
        f"{contexts} contexts; epsilon = {spread([stability.epsilon])}, its largest one-step error; e_0 = 0. "
        + (
            "rho < 1 there; elsewhere it may be larger."
            if stability.rho < 1
            else "rho >= 1: the theorem's premise fails, and its bound grows with every step."
        ),
        *(
            ["The observer did not help on the validation split: the closed loop is the open one."]
            if stability.observer_gain is None
            else []
        ),
    )


def _slope_notes(stability: "Stability") -> tuple[str, ...]:
    slopes = {(slope.spectral, slope.probed) for slope in stability.slopes}
    unused = len(stability.slopes) > 1 and len(slopes) == 1
    return (
        "Of the de-embedding W [P, d]: its largest singular value, and its root mean squared slope in random "
        "directions.",
        "Penalty none: the same plant, trained from the same seed without the penalty.",
        *(["Equal slopes: the penalty was never active, no slope it saw exceeded K_lip."] if unused else []),
        "The penalty limits the slope of the de-embedding alone, one factor of the Jacobian.",
    )


def _jacobian_notes(diagnosis: "Diagnosis") -> tuple[str, ...]:
    options, gain = diagnosis.spec.f_llm, diagnosis.stability.observer_gain
    found = [
        "Median [smallest, largest] over contexts. Spectral radius: of the context's Jacobian in companion "
        "form; gain: largest singular value of the Jacobian of one step.",
        "The context holds several patches of errors, so a gain below 1 does not make the radius smaller "
        "than 1.",
    ]
    if options is not None and options.context == "sliding":
        found.append(
            "Instance statistics of a sliding context pass a constant from the context to the forecast: 1 is "
            "always an eigenvalue, with and without observer; no such roll-out contracts in all directions."
        )
    if gain is not None:
        found.append(
            "F-LLM: the residuals that the observer sees are held, for past the lookback they are its own "
            f"estimates, not the errors of the theorem. Gain of the observer itself: {spread([gain])}."
        )
    if diagnosis.spec.precision != "fp32":
        found.append(f"As exact as the language model's precision, {diagnosis.spec.precision}.")
    return tuple(found)
