"""The teacher of a task: its knowledge base of train windows, asked once about the training queries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import PROTOCOL_VERSION, TsMemoryOptions, digest
from tsbench.data.windows import WindowGrid, gather_targets, window_grid
from tsbench.errors import TsbenchError
from tsbench.methods.task import Task
from tsbench.methods.ts_memory.retrieval import KnowledgeBase
from tsbench.methods.ts_memory.teacher import (
    Teacher,
    TeacherQuality,
    build_teacher,
    teacher_quality,
    write_card,
)


@dataclass(frozen=True, eq=False)
class TrainWindows:
    """The train windows of a task: those that can be retrieved, and those that are trained on.

    Attributes:
        known: Windows of the knowledge base.
        queries: Every n-th of them, the training queries.
    """

    known: WindowGrid
    queries: WindowGrid


def train_windows(task: Task) -> TrainWindows:
    """Train windows within the bounds of the profile, or at the cell's own stride.

    Raises:
        TsbenchError: That stride leaves the knowledge base's grid.
    """
    spec, profile = task.spec, task.profile

    def grid(stride: int) -> WindowGrid:
        return window_grid(task.borders, "train", spec.lookback, spec.horizon, stride)

    rows = grid(1).total * task.channels
    known_stride = -(-rows // profile.max_knowledge_rows)
    pairs = min(profile.max_train_pairs, profile.max_train_values // spec.horizon)
    stride = spec.train_stride or known_stride * max(1, -(-rows // (known_stride * pairs)))
    if stride % known_stride:
        raise TsbenchError(
            f"--train-stride {stride} is not on the knowledge base's grid; use a multiple of {known_stride}"
        )
    return TrainWindows(grid(known_stride), grid(stride))


def load_or_build_teacher(task: Task, frozen: FrozenBackbone, options: TsMemoryOptions) -> Teacher:
    """The teacher's answers to the training queries, from disk where they were computed before."""
    windows = train_windows(task)
    path = teacher_path(task, frozen, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "lock"):
        return _load_or_build(task, frozen, options, windows, path)


def teacher_path(task: Task, frozen: FrozenBackbone, options: TsMemoryOptions) -> Path:
    """Where the teacher of a task is kept, named after all its answers depend on."""
    content = teacher_content(task, frozen, options, train_windows(task))
    return task.artifacts / "teachers" / digest(content)[:32] / "teacher.safetensors"


def _load_or_build(
    task: Task,
    frozen: FrozenBackbone,
    options: TsMemoryOptions,
    windows: TrainWindows,
    path: Path,
) -> Teacher:
    if path.exists():
        task.progress("teacher: already built")
        return Teacher.load(path)
    rows = f"{task.channels} channels of {task.dataset.name}"
    task.progress(f"teacher: embedding {len(windows.known.starts)} train windows x {rows}")
    base = knowledge_base(task, frozen, windows.known)
    members = np.searchsorted(windows.known.starts, windows.queries.starts)
    task.progress(f"teacher: retrieving for {len(windows.queries.starts)} queries x {rows}")
    with task.stages("teacher", len(members) * task.channels):
        teacher = build_teacher(
            base,
            windows.queries.starts,
            base.embeddings[members],
            frozen.backbone.quantile_levels,
            options.teacher,
            queries_are_train=True,
            on_gpu=task.spec.device.startswith("cuda"),
        )
        # The card goes first: the teacher's file says that all is there.
        write_card(path.with_suffix(".json"), teacher_content(task, frozen, options, windows))
        teacher.save(path)
    return teacher


def knowledge_base(task: Task, frozen: FrozenBackbone, grid: WindowGrid) -> KnowledgeBase:
    """Embed train windows."""
    return KnowledgeBase(
        task.scaled, grid.starts, frozen.embeddings(grid.starts), grid.lookback, grid.horizon
    )


def quality_beside_backbone(task: Task, frozen: FrozenBackbone, teacher: Teacher) -> TeacherQuality:
    """The teacher's error beside the backbone's, on the queries it was asked about."""
    median = frozen.backbone.quantile_levels.index(0.5)
    horizon = task.spec.horizon
    base = np.concatenate(
        [chunk[:, :, median].numpy() for _, chunk in frozen.forecasts(teacher.query_starts, horizon)]
    )
    targets = gather_targets(task.scaled, teacher.query_starts, horizon)
    return teacher_quality(teacher, base, targets, median)


def teacher_diagnostics(
    task: Task, frozen: FrozenBackbone, options: TsMemoryOptions, teacher: Teacher
) -> dict[str, float]:
    """The teacher's error beside the backbone's, on training queries and on validation queries."""
    windows = train_windows(task)
    validation = task.windows("val", task.profile.max_stop_values)
    base = knowledge_base(task, frozen, windows.known)
    with task.stages("teacher", len(validation.starts) * task.channels):
        asked = build_teacher(
            base,
            validation.starts,
            frozen.embeddings(validation.starts),
            frozen.backbone.quantile_levels,
            options.teacher,
            queries_are_train=False,
            on_gpu=task.spec.device.startswith("cuda"),
        )
    on_train = quality_beside_backbone(task, frozen, teacher)
    on_val = quality_beside_backbone(task, frozen, asked)
    return {
        f"{name}_{split}": getattr(quality, name)
        for split, quality in (("train", on_train), ("val", on_val))
        for name in ("teacher_mae", "base_mae", "gate_open", "confidence_mean")
    }


def teacher_content(
    task: Task, frozen: FrozenBackbone, options: TsMemoryOptions, windows: TrainWindows
) -> dict[str, object]:
    """Everything a teacher's answers depend on."""
    return {
        "protocol": PROTOCOL_VERSION,
        "data_sha256": task.dataset.sha256,
        "borders": [task.borders.train, task.borders.val, task.borders.test],
        "backbone": frozen.backbone.identity,
        "lookback": task.spec.lookback,
        "horizon": task.spec.horizon,
        "known_stride": windows.known.stride,
        "query_stride": windows.queries.stride,
        "teacher": options.teacher.model_dump(),
    }
