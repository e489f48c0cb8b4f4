"""What a finished cell leaves behind: its scores with their birth certificate."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tsbench.config import PROTOCOL_VERSION, CellSpec


@dataclass(frozen=True)
class Provenance:
    """Where, when and from what a record was made.

    Attributes:
        data_sha256: Checksum of the data set's source.
        backbone_identity: Name, weights hash and roll-out kind of the backbone.
        code_version: tsbench's version, with the git commit where the code runs from a clone.
        versions: Versions of the packages that can move a score.
        device: Device name, such as the processor's model.
        threads: CPU threads PyTorch used.
        created: UTC time the cell finished, ISO 8601.
        wall_s: Seconds the cell took, with what it reused not counted.
        peak_rss_mb: Peak resident memory of the process in MiB.
        protocol: Version of the evaluation protocol it was made under.
    """

    data_sha256: str
    backbone_identity: str
    code_version: str
    versions: dict[str, str]
    device: str
    threads: int
    created: str
    wall_s: float
    peak_rss_mb: float
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Errors of each test window, means over channels and steps, for paired tests between methods.

    Attributes:
        start: [W] int64, first target row of each window.
        mse: [W] float32.
        mae: [W] float32.
        pinball: [W] float32, mean of 2 rho over levels; its mean over windows divided by that of
            `abs_target` is the pooled CRPS.
        abs_target: [W] float32, mean of |y|.
    """

    start: NDArray[np.int64]
    mse: NDArray[np.float32]
    mae: NDArray[np.float32]
    pinball: NDArray[np.float32]
    abs_target: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FusionCurves:
    """Scores against the fusion weight: `val` chose it, `test` is only for the oracle and for figures.

    Attributes:
        alpha: [21] grid.
        val: "mse", "mae", "crps" to [21].
        test: Likewise on the test windows.
    """

    alpha: NDArray[np.float64]
    val: dict[str, NDArray[np.float64]]
    test: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class SampleForecasts:
    """A few test forecasts to look at, in standardised units rounded to 1/512.

    Attributes:
        start: [W'] int64, first target row of each window.
        time: [W'] datetime64[s] of that row, as the data set has it.
        channels: C' names.
        context: [W', C', K] float32, the last steps before the target.
        target: [W', C', H] float32.
        forecast: [W', C', Q, H] float32; Q = 1 for point-only forecasts.
    """

    start: NDArray[np.int64]
    time: NDArray[np.datetime64]
    channels: tuple[str, ...]
    context: NDArray[np.float32]
    target: NDArray[np.float32]
    forecast: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Details:
    """What figures need beyond the scores, from the windows of the record.

    Errors are means over windows and channels, in standardised units; the weighted quantile loss of a step
    is pinball / abs_target.

    Attributes:
        mse: [H] float32, by horizon step.
        mae: [H] float32.
        pinball: [H] float32, mean of 2 rho over levels; NaN for point-only forecasts.
        abs_target: [H] float32, mean of |y|.
        levels: [Q] float64, quantile levels; empty for point-only forecasts.
        below: [Q] float64, share of targets at or below each quantile; `levels` when calibrated.
        samples: A few forecasts.
    """

    mse: NDArray[np.float32]
    mae: NDArray[np.float32]
    pinball: NDArray[np.float32]
    abs_target: NDArray[np.float32]
    levels: NDArray[np.float64]
    below: NDArray[np.float64]
    samples: SampleForecasts


@dataclass(frozen=True, eq=False)
class Record:
    """One finished cell.

    Attributes:
        key: Content hash of the spec, the data and the protocol; the file name.
        spec: What was asked for.
        metrics: Score name to value: mse, mae, crps, smape, nmae, coverage_80, width_80, variants, and the
            method's diagnostics (teacher_mae_train, gate_open_train, oracle_mse, ...). Of a collection (M3,
            M4) smape, mase and owa.
        windows: Test windows scored; of a collection, series.
        windows_total: Test windows at stride 1, none dropped; of a collection, all series.
        test_stride: Steps between scored windows, or series.
        levels: Quantile levels scored; empty for point-only forecasts.
        alpha: Fusion weight used; None where nothing is fused.
        provenance: Where the figures come from.
        costs: `seconds_<stage>` and `rows_<stage>` (windows x channels) of what the cell computed itself, see
            `tsbench.stages.StageName`; empty in older records.
        window_scores: Per-window errors; None when read without them.
        curves: Scores against α; None where nothing is fused.
        details: Errors by step, calibration and sample forecasts; None when read without them, of a
            collection, and of records made before there were any.
    """

    key: str
    spec: CellSpec
    metrics: dict[str, float]
    windows: int
    windows_total: int
    test_stride: int
    levels: tuple[float, ...]
    alpha: float | None
    provenance: Provenance
    costs: dict[str, float] = field(default_factory=dict)
    window_scores: WindowScores | None = None
    curves: FusionCurves | None = None
    details: Details | None = None


@dataclass(frozen=True)
class Failure:
    """A cell that ended in an error; shown as such, never imputed.

    Attributes:
        key: As of the record it would have become.
        spec: What was asked for.
        error: The readable message.
        traceback: Python's traceback; empty for bad input.
    """

    key: str
    spec: CellSpec
    error: str
    traceback: str = field(default="", repr=False)
