"""Canaries: a method is fitted and asked again with the future replaced, and nothing may change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tsbench.backbones.base import Forecaster
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.bench.audit.findings import Audit, Ledger, Severity
from tsbench.bench.audit.teachers import audit_teachers
from tsbench.bench.checks import check
from tsbench.bench.evaluate import forecast_grid
from tsbench.bench.grid import default_backbone
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.choices import Exclusion
from tsbench.config import PROFILES, CellSpec, FLlmOptions, Profile, TeacherOptions, TsMemoryOptions
from tsbench.data.dataset import Dataset
from tsbench.data.demo import array_sha256
from tsbench.data.splits import SplitRule
from tsbench.data.windows import WindowGrid, gather_contexts
from tsbench.errors import TsbenchError
from tsbench.methods.task import Fitted, Task, make_task
from tsbench.methods.ts_memory.retrieval import KnowledgeBase
from tsbench.methods.ts_memory.teaching import load_or_build_teacher
from tsbench.registry import find, load

SCALING = "scaling does not see rows after the train split"
FIT = "fitting does not see test rows"
TEACHER = "the teacher does not see rows after the train split"
CORPUS = "retrieved windows lie in the train rows"
FORECAST = "a forecast does not see rows from its origin on"
BATCH = "a forecast does not see other windows of its batch"

LOOKBACK, HORIZON = 96, 24
_TRAIN, _VAL, _TEST = 1_200, 400, 400
_CHANNELS = 3
_ORIGINS = 4
_BATCH_WINDOWS = 8
_CACHE_BYTES = 10**9
_SAME = 1e-5  # of the forecasts' size, for sums in another order

PROFILE: Profile = PROFILES["quick"].model_copy(
    update={
        "max_test_values": 4_000,
        "max_val_values": 2_000,
        "max_stop_values": 600,
        "max_knowledge_rows": 400,
        "max_train_pairs": 50,
        "max_train_values": 6_000,
        "batch_size": 16,
        "max_steps": 4,
        "max_epochs": 1,
        "eval_every": 2,
    }
)
"""So little of the protocol that a fit takes seconds; what a method sees does not depend on it."""


def audit_method(
    spec: CellSpec, dataset: Dataset, folder: Path, progress: Callable[[str], None] = lambda line: None
) -> Audit:
    """Fit a method on a stretch of a data set and on copies with another future, and compare.

    Replaced are all rows after the train split (for scaling and teacher), after the validation split (for
    the fit: forecasts, diagnostics, curve and stored weights must be equal bit for bit) and from a forecast's
    origin on. What a method does with rows that it may see is not judged.

    Args:
        spec: The cell, see `canary_spec`.
        dataset: What `spec` names; a stretch of it is used, see `cut`.
        folder: For what the fits store; empty.
        progress: Called with one line at each stage.

    Raises:
        TsbenchError: The cell cannot run, or the data set is too short.
    """
    stretch = cut(dataset)
    bench = Bench(ResultsStore(folder), own_data={stretch.name: stretch}, progress=progress)
    spec = spec.model_copy(update={"dataset": stretch.name})
    check(bench, [spec])
    ledger = Ledger()
    trials = Trials(bench, spec, stretch)
    group = f"{spec.method} on {spec.backbone}"
    plain = trials.fit("plain", stretch)
    _check_scaling(trials, plain.task, group, ledger)
    _check_fit(trials, plain, group, ledger)
    if spec.options is not None and spec.options.ablation != "no-retrieval":
        _check_teacher(trials, plain, group, ledger)
    _check_corpus(plain, group, ledger)
    _check_forecasts(plain, group, ledger)
    _check_batch(plain, group, ledger)
    audit_teachers(plain.task.artifacts, ledger)
    return ledger.audit()


def canary_spec(
    method: str,
    backbone: str | None,
    dataset: str,
    *,
    checkpoint: str | None = None,
    exclusion: Exclusion = "target",
    layers: int | None = None,
    device: str = "cpu",
) -> CellSpec:
    """The cell that canaries run: small horizon and lookback, the method's default settings.

    Args:
        method: Name or alias of a method.
        backbone: Name or alias of a backbone; None takes that of `tsbench run`.
        dataset: Name of a long data set.
        checkpoint: Weights that replace the registered ones.
        exclusion: Rule of TS-Memory's teacher.
        layers: Blocks of a language model.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        TsbenchError: A name is unknown.
    """
    method = find("method", method).name
    teacher = TeacherOptions(exclusion=exclusion)
    return CellSpec(
        method=method,
        backbone=find("backbone", backbone or default_backbone(method)).name,
        dataset=dataset,
        horizon=HORIZON,
        lookback=LOOKBACK,
        profile="quick",
        checkpoint=checkpoint,
        options=TsMemoryOptions(teacher=teacher, plugmem="tiny") if method == "ts-memory" else None,
        f_llm=FLlmOptions(patch=HORIZON, layers=layers) if method == "f-llm" else None,
        device=device,
    )


def cut(dataset: Dataset) -> Dataset:
    """2,000 rows of at most three channels around the end of the train split, divided anew.

    Raises:
        TsbenchError: The data set is shorter.
    """
    rows = _TRAIN + _VAL + _TEST
    if len(dataset.values) < rows:
        raise TsbenchError(
            f"{dataset.name} has {len(dataset.values)} rows; the canaries need {rows}; use demo"
        )
    first = min(max(0, int(0.6 * len(dataset.values)) - _TRAIN), len(dataset.values) - rows)
    part = slice(first, first + rows)
    values = np.ascontiguousarray(dataset.values[part, :_CHANNELS])
    return replace(
        dataset,
        name=f"{dataset.name}-stretch",
        values=values,
        timestamps=dataset.timestamps[part],
        channels=dataset.channels[:_CHANNELS],
        split=SplitRule("rows", _TRAIN, _VAL, _TEST),
        sha256=array_sha256(values),
    )


def poisoned(dataset: Dataset, first: int, seed: int = 0) -> Dataset:
    """The data set with all rows from `first` on replaced by noise ten times as large, far from the rest."""
    values = dataset.values.copy()
    spread = values.std(axis=0) + 1.0
    noise = np.random.default_rng(seed).normal(5, 10, values[first:].shape)
    values[first:] = values.mean(axis=0) + spread * noise
    return replace(dataset, values=values, sha256=array_sha256(values))


@dataclass(frozen=True, eq=False)
class Trial:
    """A fitted method with what it was fitted on."""

    task: Task
    frozen: FrozenBackbone
    fitted: Fitted


@dataclass(frozen=True, eq=False)
class Trials:
    """Fits of one cell on variants of one data set, each in a folder of its own, its cache included."""

    bench: Bench
    spec: CellSpec
    dataset: Dataset

    def task(self, name: str, dataset: Dataset) -> Task:
        """The task of a variant."""
        folder = self.bench.store.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return make_task(self.spec, PROFILE, dataset, folder, self.bench.progress)

    def frozen(self, task: Task) -> FrozenBackbone:
        """The backbone over a variant."""
        cache = task.artifacts / "forecasts"
        return FrozenBackbone(
            self.bench.backbone(self.spec),
            task.scaled,
            self.spec.lookback,
            cache,
            _CACHE_BYTES,
            device=self.spec.device,
        )

    def fit(self, name: str, dataset: Dataset) -> Trial:
        """Fit the cell on a variant."""
        self.bench.progress(f"fitting on the {name} data")
        task = self.task(name, dataset)
        frozen = self.frozen(task)
        return Trial(task, frozen, load("method", self.spec.method)(task, frozen))


def _check_scaling(trials: Trials, plain: Task, group: str, ledger: Ledger) -> None:
    end = plain.borders.train[1]
    other = trials.task("scaling", poisoned(trials.dataset, end))
    ledger.look(SCALING, plain.scaled[:end].size)
    changed = int((plain.scaled[:end] != other.scaled[:end]).sum())
    if changed:
        text = f"{changed} standardised train values change when only later rows are replaced."
        ledger.find("leak", SCALING, group, "scaler", text, changed)


def _check_fit(trials: Trials, plain: Trial, group: str, ledger: Ledger) -> None:
    end = plain.task.borders.val[1]
    other = trials.fit("poisoned", poisoned(trials.dataset, end))
    before, after = _state(plain, plain), _state(other, plain)
    changed = _changed(before, after)
    ledger.look(FIT, len(before))
    if not changed:
        return
    severity: Severity = "leak"
    cause = "although only test rows were replaced"
    again = _changed(before, _state(trials.fit("repeated", trials.dataset), plain))
    if again:
        severity, cause = "note", "but they also differ between two fits on the same data, so nothing follows"
    for name, size in changed.items():
        ledger.find(severity, FIT, group, name, f"it differs by up to {size:.3g}, {cause}.")


State = dict[str, NDArray[Any]]


def _state(trial: Trial, plain: Trial) -> State:
    """What a fit came to: diagnostics, weight and curve, stored tensors, forecasts of the same windows."""
    fitted, spec = trial.fitted, trial.task.spec
    found: State = {f"diagnostic {name}": np.array(value) for name, value in fitted.diagnostics.items()}
    alpha = getattr(fitted.forecaster, "alpha", None)
    if alpha is not None:
        found["fusion weight"] = np.array(alpha)
    if fitted.validation_curve is not None:
        curve = vars(fitted.validation_curve)
        found |= {f"validation curve, {name}": scores for name, scores in curve.items()}
    stored = sorted(_stored_weights(trial.task.artifacts), key=lambda pair: (pair[0], pair[1].tobytes()))
    for place, (name, tensor) in enumerate(stored):
        found[f"stored weights {place}, {name}"] = tensor
    for split in ("val", "test"):
        grid = _grid(plain.task, split)
        context = torch.from_numpy(gather_contexts(plain.task.scaled, grid.starts, grid.lookback)).flatten(
            0, 1
        )
        found[f"forecasts of {split} contexts"] = _predict(fitted.forecaster, context, spec.horizon)
    return found


def _stored_weights(folder: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    for path in folder.rglob("*.safetensors"):
        yield from load_file(path).items()


def _changed(before: State, after: State) -> dict[str, float]:
    """Names of what differs, with the largest difference; not the same names or shapes count as infinite."""
    found = dict.fromkeys(before.keys() ^ after.keys(), np.inf)
    for name in before.keys() & after.keys():
        left, right = before[name], after[name]
        if left.shape != right.shape:
            found[name] = np.inf
        elif not np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
            found[name] = float(np.nanmax(np.abs(left.astype(np.float64) - right.astype(np.float64))))
    return dict(sorted(found.items()))


def _predict(forecaster: Forecaster, context: torch.Tensor, horizon: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(forecaster.predict(context, horizon).cpu().numpy())


def _grid(task: Task, split: str) -> WindowGrid:
    """A few windows of a split, spread over it."""
    grid = task.test_windows() if split == "test" else task.windows("val", PROFILE.max_stop_values)
    chosen = np.linspace(0, len(grid.starts) - 1, _ORIGINS).astype(np.int64)
    return replace(grid, starts=grid.starts[chosen])


def _check_teacher(trials: Trials, plain: Trial, group: str, ledger: Ledger) -> None:
    end = plain.task.borders.train[1]
    task = trials.task("teacher", poisoned(trials.dataset, end))
    options = trials.spec.options or TsMemoryOptions()
    before = load_or_build_teacher(plain.task, plain.frozen, options)
    after = load_or_build_teacher(task, trials.frozen(task), options)
    ledger.look(TEACHER, len(vars(before)))
    for name, size in _changed(vars(before), vars(after)).items():
        text = f"its {name} change by up to {size:.3g} when only rows after the train split are replaced."
        ledger.find("leak", TEACHER, group, "teacher", text)


def _check_corpus(plain: Trial, group: str, ledger: Ledger) -> None:
    """Knowledge bases inside the forecaster hold train windows only."""
    end = plain.task.borders.train[1]
    for base in _knowledge_bases(plain.fitted.forecaster):
        ledger.look(CORPUS, len(base.starts))
        outside = int((base.starts + base.horizon > end).sum())
        if outside:
            text = f"{outside} of {len(base.starts)} stored windows reach beyond the {end} train rows."
            ledger.find("leak", CORPUS, group, "knowledge base", text, outside)


def _knowledge_bases(part: object) -> Iterator[KnowledgeBase]:
    if isinstance(part, KnowledgeBase):
        yield part
    elif is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _knowledge_bases(getattr(part, field.name))


def _check_forecasts(plain: Trial, group: str, ledger: Ledger) -> None:
    task = plain.task
    for start in _grid(task, "test").starts:
        grid = replace(task.test_windows(), starts=np.array([start]))
        future = task.scaler.transform(poisoned(task.dataset, int(start)).values)
        frozen = replace(plain.frozen, scaled=future, directory=None)
        before, after = (_scored(plain.fitted.forecaster, each, grid) for each in (plain.frozen, frozen))
        ledger.look(FORECAST)
        if not np.array_equal(before, after):
            gap = float(np.abs(before - after).max())
            text = f"it differs by up to {gap:.3g} when rows from {start} on are replaced."
            ledger.find("leak", FORECAST, group, f"forecast from row {start}", text)


def _scored(forecaster: Forecaster, frozen: FrozenBackbone, grid: WindowGrid) -> NDArray[np.float32]:
    """Forecasts [w, C, Q, H] by the path that evaluation takes."""
    return np.concatenate([forecast.numpy() for _, forecast, _ in forecast_grid(forecaster, frozen, grid)])


def _check_batch(plain: Trial, group: str, ledger: Ledger) -> None:
    """Later contexts of a batch hold the targets of earlier windows, so a forecast may not depend on them."""
    task, grid = plain.task, plain.task.test_windows()
    starts = grid.starts[:_BATCH_WINDOWS]
    context = torch.from_numpy(gather_contexts(task.scaled, starts, grid.lookback)).flatten(0, 1)
    others = context.clone()
    others[task.channels :] = torch.randn(
        others[task.channels :].shape, generator=torch.Generator().manual_seed(0)
    )
    before, after = (
        _predict(plain.fitted.forecaster, each, task.spec.horizon)[: task.channels]
        for each in (context, others)
    )
    ledger.look(BATCH)
    gap = float(np.abs(before - after).max())
    if gap > _SAME * max(1.0, float(np.abs(before).max())):
        text = f"it differs by up to {gap:.3g} when the {len(starts) - 1} other windows are replaced."
        ledger.find("leak", BATCH, group, "forecast of the first window", text)
