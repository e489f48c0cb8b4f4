"""RAFT and TS-RAG as baselines of TS-Memory: retrieval at forecast time, fused with the frozen backbone.

Nothing is trained. Train windows similar to the context are looked up at each forecast, the weighted
quantiles of their futures are Q_ret, and the forecast is (1 - β) Q_b + β Q_ret. The number of neighbours, β
and RAFT's temperature are those of the lowest pooled CRPS on validation windows.

Source:
    TS-Memory (arXiv 2602.11550), Appendix C.4, which keeps of RAFT (Han et al. 2025) and TS-RAG
    (arXiv 2503.07649) the retrieval alone, without their learned layers. Ours are the candidates, and that
    TS-RAG aligns the level of futures and sets the temperature as TS-Memory's teacher does.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import TeacherOptions
from tsbench.data.windows import WindowGrid, gather_contexts, gather_targets
from tsbench.methods.fusion import FusedForecaster, median_levels
from tsbench.methods.online_retrieval import OnlineMemory, RetrievalForecaster, granular_keys
from tsbench.methods.task import Fitted, Task
from tsbench.methods.ts_memory.retrieval import ChannelIndex, KnowledgeBase, Metric, exclusion_zone
from tsbench.methods.ts_memory.teacher import Teacher
from tsbench.methods.ts_memory.teaching import knowledge_base, quality_beside_backbone, train_windows
from tsbench.metrics.fusion import FusionCurve, FusionScores

NEIGHBOURS = (5, 10, 20, 50)
"""Numbers of neighbours k to choose from."""

RAFT_TEMPERATURES = (0.05, 0.1, 0.2, 0.5)
"""Softmax temperatures over RAFT's similarity to choose from; its authors use 0.1."""


def fit_raft(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Retrieve by shape: w = softmax(similarity / T), see `granular_keys`; needs no encoder.

    Futures are taken relative to the last value of their own context and put on the query's last value.

    Raises:
        TsbenchError: The backbone has no median forecast.
    """
    median_levels(frozen.backbone, "raft")
    return _fit(task, frozen, raft_memory(task, frozen), "raft", RAFT_TEMPERATURES)


def fit_ts_rag(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Retrieve by the backbone's frozen embedding: w = softmax(-distance / τ), τ as in `TeacherOptions`.

    Raises:
        TsbenchError: The backbone has no median forecast, or no encoder.
    """
    median_levels(frozen.backbone, "ts-rag")
    return _fit(task, frozen, ts_rag_memory(task, frozen), "ts-rag", (TeacherOptions().temperature,))


def raft_memory(task: Task, frozen: FrozenBackbone) -> OnlineMemory:
    """The train windows with RAFT's keys."""
    known = train_windows(task).known
    task.progress(f"raft: {len(known.starts)} train windows x {task.channels} channels")
    base = KnowledgeBase(task.scaled, known.starts, _shapes(frozen, known), known.lookback, known.horizon)
    return OnlineMemory(
        base, _indices(task, base, "cosine"), granular_keys, tail=1, scales=(1.0,) * task.channels
    )


def ts_rag_memory(task: Task, frozen: FrozenBackbone) -> OnlineMemory:
    """The train windows with the backbone's embeddings.

    Raises:
        TsbenchError: The backbone has no encoder.
    """
    options = TeacherOptions()
    known = train_windows(task).known
    task.progress(f"ts-rag: embedding {len(known.starts)} train windows x {task.channels} channels")
    base = knowledge_base(task, frozen, known)
    indices = _indices(task, base, "euclidean")
    zone = exclusion_zone(options, base.lookback, base.horizon)
    return OnlineMemory(
        base,
        indices,
        frozen.backbone.embed,
        options.alignment_tail,
        scales=tuple(index.distance_scale(options, zone) for index in indices),
    )


def _fit(
    task: Task, frozen: FrozenBackbone, memory: OnlineMemory, name: str, temperatures: Sequence[float]
) -> Fitted:
    """Choose neighbours, temperature and fusion weight by the pooled CRPS on validation windows."""
    validation = task.windows("val", task.profile.max_val_values)
    memory.base.require_past(validation.starts)
    settings = candidates(memory, frozen.backbone.quantile_levels, name, temperatures)
    task.progress(
        f"{name}: {len(settings)} settings on {len(validation.starts)} of {validation.total} "
        "validation windows"
    )
    with task.stages("tune", len(validation.starts) * task.channels):
        curves = validation_curves(settings, frozen, validation)
    companion, curve = min(zip(settings, curves, strict=True), key=lambda scored: float(scored[1].crps.min()))
    beta = curve.best("crps")
    task.progress(f"{name}: k {companion.k}, temperature {companion.temperature:g}, fusion weight {beta:g}")
    stop = task.windows("val", task.profile.max_stop_values)
    quality = quality_beside_backbone(task, frozen, _answers(companion, frozen, stop.starts))
    diagnostics = {
        "k": float(companion.k),
        "temperature": companion.temperature,
        "known_windows": float(len(memory.base.starts)),
        "val_windows": float(len(validation.starts)),
        "val_windows_total": float(validation.total),
        **{f"{figure}_val": value for figure, value in vars(quality).items()},
    }
    return Fitted(FusedForecaster(frozen.backbone, companion, beta, "retrieval"), diagnostics, curve)


def candidates(
    memory: OnlineMemory, levels: tuple[float, ...], name: str, temperatures: Sequence[float]
) -> list[RetrievalForecaster]:
    """The settings that are tried: every number of neighbours at every temperature."""
    counts = sorted({min(k, len(memory.base.starts)) for k in NEIGHBOURS})
    return [
        RetrievalForecaster(memory, levels, k, temperature, name)
        for k in counts
        for temperature in temperatures
    ]


def validation_curves(
    settings: Sequence[RetrievalForecaster], frozen: FrozenBackbone, grid: WindowGrid
) -> list[FusionScores]:
    """Scores of every setting against the fusion weight; one search serves them all."""
    memory, most = settings[0].memory, max(setting.k for setting in settings)
    curves = [FusionCurve(frozen.backbone.quantile_levels) for _ in settings]
    for part, base in frozen.forecasts(grid.starts, grid.horizon):
        target = torch.from_numpy(gather_targets(frozen.scaled, grid.starts[part], grid.horizon))
        found = memory.search(_contexts(frozen, grid.starts[part]), most)
        for setting, curve in zip(settings, curves, strict=True):
            curve.update(base, torch.from_numpy(setting.quantiles(setting.weigh(found))), target)
    return [curve.result() for curve in curves]


def _answers(forecaster: RetrievalForecaster, frozen: FrozenBackbone, starts: NDArray[np.int64]) -> Teacher:
    """What is retrieved for windows, in the form of TS-Memory's teacher."""

    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        for part in frozen.chunks(len(starts)):
            found = forecaster.retrieve(_contexts(frozen, starts[part]))
            neighbours = np.stack([each.starts for each in found.neighbours], axis=1)
            yield neighbours, np.stack(found.weights, axis=1), forecaster.quantiles(found)

    neighbours, weights, quantiles = (np.concatenate(column) for column in zip(*parts(), strict=True))
    return Teacher(starts, neighbours, weights, weights.max(axis=2), quantiles)


def _indices(task: Task, base: KnowledgeBase, metric: Metric) -> tuple[ChannelIndex, ...]:
    on_gpu = task.spec.device.startswith("cuda")
    return tuple(ChannelIndex(base, channel, on_gpu, metric) for channel in range(task.channels))


def _shapes(frozen: FrozenBackbone, grid: WindowGrid) -> NDArray[np.float32]:
    """RAFT's keys [N, C, D] of windows."""
    channels = frozen.scaled.shape[1]
    return np.concatenate(
        [
            keys.reshape(-1, channels, keys.shape[1])
            for part in frozen.chunks(len(grid.starts))
            for keys in [granular_keys(_contexts(frozen, grid.starts[part])).numpy()]
        ]
    )


def _contexts(frozen: FrozenBackbone, starts: NDArray[np.int64]) -> torch.Tensor:
    """Contexts [w * C, L] of windows, channel by channel within each."""
    return torch.from_numpy(gather_contexts(frozen.scaled, starts, frozen.lookback)).flatten(0, 1)
