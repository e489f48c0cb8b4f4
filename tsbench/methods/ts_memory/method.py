"""TS-Memory as a method: teacher, distillation into PlugMem, fusion weight from the validation split."""

from collections.abc import Sequence

import numpy as np
import torch

from tsbench.backbones.base import Backbone
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import TsMemoryOptions
from tsbench.data.windows import gather_contexts
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster, fusion_curve, median_levels
from tsbench.methods.pool import sources_of
from tsbench.methods.task import Fitted, Source, Task
from tsbench.methods.ts_memory.distillation import PlugMemForecaster, train_plugmem, training_pairs
from tsbench.methods.ts_memory.losses import RECIPES, ablate
from tsbench.methods.ts_memory.teacher import Teacher
from tsbench.methods.ts_memory.teaching import load_or_build_teacher, teacher_diagnostics
from tsbench.metrics.quantile import crossing_rate


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train PlugMem for one task and choose the fusion weight on the validation split.

    Early stopping and the choice of α read the same validation windows (the former fewer of them); the
    test split is not opened.

    Where the task has sources, PlugMem is trained on them and under their backbone, and fused with
    `frozen.backbone`. Each source is standardised by its own train rows, has a teacher of its own that
    retrieves within it, and stops the training by its own validation split. Of the task itself α alone is
    chosen, on its validation split, and its train rows standardise it; nothing else of them is used.

    Raises:
        TsbenchError: A backbone forecasts no quantiles, or other ones than its source's, or has no encoder
            to retrieve with.

    Source:
        TS-Memory (arXiv 2602.11550), Section 4; transfer in Section 5.4, Tables 5 to 7, 14 and 15. α is
        chosen for each data set and backbone, as in appendix C.4. The paper pools data sets without saying
        how; teachers of their own and equal shares of the profile are ours.
    """
    options = task.spec.options or TsMemoryOptions()
    ablate(RECIPES[options.recipe], options.ablation)  # refuses combinations that do not exist
    levels = median_levels(frozen.backbone, "ts-memory")
    sources = sources_of(task, frozen)
    require_equal_levels(sources[0].frozen.backbone, frozen.backbone)
    teachers: list[Teacher | None] = [None for _ in sources]
    diagnostics: dict[str, float] = {}
    if options.ablation != "no-retrieval":
        built = [load_or_build_teacher(source.task, source.frozen, options) for source in sources]
        diagnostics |= _mean_diagnostics(sources, options, built)
        teachers = [*built]
    network, report = train_plugmem(sources, options, teachers)
    companion = PlugMemForecaster(network.eval(), levels, task.spec.precision)
    validation = task.windows("val", task.profile.max_val_values)
    task.progress(f"fusion weight: {len(validation.starts)} of {validation.total} validation windows")
    with task.stages("tune", len(validation.starts) * task.channels):
        curve = fusion_curve(companion, frozen, validation.starts, task.spec.horizon)
    alpha = curve.best(options.alpha_criterion)
    diagnostics |= {
        "train_pairs": float(sum(training_pairs(sources))),
        "steps_trained": float(report.steps),
        "best_step": float(report.best_step),
        "memory_crossing_val": _crossing(companion, frozen, task),
        "val_windows": float(len(validation.starts)),
        "val_windows_total": float(validation.total),
    }
    return Fitted(FusedForecaster(frozen.backbone, companion, alpha), diagnostics, curve)


def require_equal_levels(donor: Backbone, backbone: Backbone) -> None:
    """Check that a memory module trained for one backbone can be fused with another.

    Raises:
        TsbenchError: It forecasts other quantiles.
    """
    if donor.quantile_levels != backbone.quantile_levels:
        raise TsbenchError(
            f"a memory module from {donor.name} has other quantile levels than {backbone.name}; "
            "use another --plugmem-from"
        )


def _mean_diagnostics(
    sources: Sequence[Source], options: TsMemoryOptions, teachers: Sequence[Teacher]
) -> dict[str, float]:
    """Diagnostics of the teachers, mean over sources."""
    found = [
        teacher_diagnostics(source.task, source.frozen, options, teacher)
        for source, teacher in zip(sources, teachers, strict=True)
    ]
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}


def _crossing(companion: PlugMemForecaster, frozen: FrozenBackbone, task: Task) -> float:
    """Share of neighbouring levels that PlugMem leaves crossed on some validation windows of the task."""
    starts = task.windows("val", task.profile.max_stop_values).starts
    context = torch.from_numpy(gather_contexts(task.scaled, starts, frozen.lookback)).flatten(0, 1)
    return float(crossing_rate(companion.raw(context, task.spec.horizon)))
