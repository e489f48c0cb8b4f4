"""From the scores of an evaluation to the named metrics of a record; docs/protocol.md defines each."""

from typing import Any

import numpy as np

from tsbench.bench.evaluate import Evaluation
from tsbench.bench.records import FusionCurves
from tsbench.methods.task import Fitted, Task
from tsbench.metrics.fusion import FusionScores
from tsbench.metrics.samples import SampleScores
from tsbench.metrics.scaled import mean_defined, seasonal_error


def cell_metrics(task: Task, fitted: Fitted, evaluation: Evaluation) -> dict[str, float]:
    """Metrics of a cell by name: scores, the method's diagnostics, and the oracle's scores where it fuses."""
    spec, scores = task.spec, evaluation.scores
    in_sample = seasonal_error(task.scaled[slice(*task.borders.train)], task.dataset.season)
    scale = np.where(in_sample > 0, in_sample, np.nan)
    metrics = {
        "mse": scores.mse,
        "mae": scores.mae,
        "crps": scores.crps,
        "smape": scores.smape,
        "crps_unnormalised": scores.crps_unnormalised,
        "crps_per_window": scores.crps_per_window.mean,
        "crps_per_channel": scores.crps_per_channel.mean,
        "crps_sql": mean_defined(scores.pinball_by_channel / scale).mean,
        "nmae": scores.nmae,
        "nmae_per_window": scores.nmae_per_window.mean,
        "probts_nmae": scores.probts_nmae.mean,
        "probts_crps": scores.probts_crps.mean,
        "coverage_80": scores.coverage,
        "width_80": scores.width,
        "mean_abs_target": scores.mean_abs_target,
        **fitted.diagnostics,
    }
    if evaluation.curve is not None:
        best = evaluation.curve.best(spec.options.alpha_criterion if spec.options else "crps")
        place = list(evaluation.curve.alpha).index(best)
        metrics |= {"oracle_alpha": best} | {
            f"oracle_{name}": float(getattr(evaluation.curve, name)[place]) for name in ("mse", "mae", "crps")
        }
    return metrics


def sample_metrics(n: int, scores: SampleScores) -> dict[str, float]:
    """Further metrics of a cell that draws `n` paths."""
    return {
        "samples": n,
        "crps_samples": scores.crps,
        "crps_samples_fair": scores.crps_fair,
        "crps_samples_plain": scores.crps_plain,
        "coverage_80_samples": scores.coverage,
        "width_80_samples": scores.width,
    }


def fusion_curves(fitted: Fitted, evaluation: Evaluation) -> FusionCurves | None:
    """Scores against the fusion weight on both splits; None where nothing is fused."""
    if evaluation.curve is None or fitted.validation_curve is None:
        return None

    def arrays(curve: FusionScores) -> dict[str, Any]:
        return {"mse": curve.mse, "mae": curve.mae, "crps": curve.crps}

    return FusionCurves(evaluation.curve.alpha, arrays(fitted.validation_curve), arrays(evaluation.curve))
