"""F-LLM on a task: train the plant, then the observer that closes the loop around it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsbench.backbones.base import RollOut, hash_weights, resolve_device
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.backbones.language_model import LanguageModel
from tsbench.choices import FLlmForm
from tsbench.config import CellSpec, FLlmOptions, digest
from tsbench.data.windows import WindowGrid, evenly_spaced, window_grid
from tsbench.errors import TsbenchError
from tsbench.methods.task import Fitted, SeriesTask, Task, step_report
from tsbench.models.f_llm.adapters import AdaptedDecoder
from tsbench.models.f_llm.lipschitz import LipschitzConfig
from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import (
    Decoder,
    FlattenHeadForecaster,
    FrozenDecoder,
    Plant,
    PlantConfig,
    TokenMLP,
    plant_loss,
)
from tsbench.models.f_llm.rollout import RollOutConfig, forecast, observer_loss
from tsbench.training.loop import ShuffledBatches, TrainingConfig, TrainingReport

VALIDATION_ROWS = 512
"""Bound of the windows that are validated on."""

_LONGEST_ROLL_OUT = 720
_MOST_EPOCHS = 10
_ROWS_PER_CALL = 128


@dataclass(frozen=True, eq=False)
class FLlmForecaster:
    """A trained F-LLM: point forecasts by roll-out of patches.

    Attributes:
        model: Plant, or the baseline that needs no roll-out.
        observer: Closes the loop; None leaves it open.
        rolling: How a forecast is fed back.
    """

    model: Plant | FlattenHeadForecaster
    observer: Observer | None
    rolling: RollOutConfig
    name: ClassVar[str] = "f-llm"
    quantile_levels: ClassVar[tuple[float, ...]] = ()
    rollout: ClassVar[RollOut] = "direct"

    @torch.no_grad()
    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Forecast [B, 1, H] of contexts [B, L], L at most the lookback it was trained at.

        Shorter contexts are padded on the left with zeros, before instance normalisation, as in AutoTimes.
        """
        device = next(self.model.parameters()).device
        missing = max(0, self.model.config.lookback - context.shape[1])
        context = nn.functional.pad(context, (missing, 0))
        parts = [self._call(rows.to(device), horizon) for rows in torch.split(context, _ROWS_PER_CALL)]
        return torch.cat(parts).unsqueeze(1).to(context.device)

    def _call(self, context: Tensor, horizon: int) -> Tensor:
        if isinstance(self.model, FlattenHeadForecaster):
            return cast("Tensor", self.model(context))
        return forecast(self.model, self.observer, context, horizon, self.rolling)


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train F-LLM in two stages, each stopped early on the validation split.

    Stage 1 trains embedding and de-embedding with teacher forcing, through the frozen language model. Stage 2
    trains the observer along the closed loop, everything else frozen. Both serve every horizon: the roll-out
    of stage 2 is as long as the longest horizon of the benchmarks, 720 steps, or as the validation split
    allows. Where the observer does not lower the validation error over the cell's own horizon, its loop
    stays open.

    Raises:
        TsbenchError: The backbone is not a language model, the lookback is not a multiple of the patch, or
            training diverged.

    Source: F-LLM (arXiv 2602.12756), Section 4 and Eq. 11 to 13; at most 10 epochs per stage as there. The
    optimiser is AdamW at the profile's rate; the paper has Adam and does not say at which.
    """
    options = task.spec.f_llm or FLlmOptions()
    language = cast("Any", frozen.backbone)
    if not isinstance(language, LanguageModel):
        raise TsbenchError(f"method 'f-llm' needs a language model, not {language.name}; use smollm2")
    rolling = RollOutConfig(options.context, options.observer_seed)
    model = build_network(task.spec, language)
    fpt = isinstance(model, FlattenHeadForecaster)
    penalty = lipschitz_config(options)
    report = _train(
        task,
        model,
        plant_stage(task.spec),
        language.identity,
        loss=_direct_loss if fpt else lambda plant, rows: plant_loss(plant, rows, penalty),
        score=_direct_loss if fpt else plant_loss,
    )
    diagnostics = {"plant_steps": float(report.best_step), "val_mse_plant": report.best_score}
    observer = None
    if isinstance(model, Plant) and options.form in ("closed-loop", "mlp"):
        observer, learned = _close_loop(task, model, language.identity, options, rolling)
        diagnostics |= learned
    return Fitted(FLlmForecaster(model, observer, rolling), diagnostics)


def plant_config(spec: CellSpec) -> PlantConfig:
    """Shape of a cell's plant.

    Raises:
        TsbenchError: The lookback is not a multiple of the patch.
    """
    patch = (spec.f_llm or FLlmOptions()).patch
    if spec.lookback % patch:
        raise TsbenchError(
            f"--lookback {spec.lookback} is not a multiple of F-LLM's patch of {patch} steps; use "
            f"{max(1, round(spec.lookback / patch)) * patch}, or another --patch"
        )
    return PlantConfig(patch, spec.lookback // patch)


def lipschitz_config(options: FLlmOptions) -> LipschitzConfig | None:
    """Penalty on the de-embedding, if there is one."""
    return None if options.lipschitz == "none" else LipschitzConfig(kind=options.lipschitz)


@dataclass(frozen=True)
class Stage:
    """One of the two trainings.

    Attributes:
        name: Of its directory.
        horizon: Steps that follow the context in its windows.
        effort: Share of the profile's steps.
        options: Settings that change it.
    """

    name: str
    horizon: int
    effort: float
    options: FLlmOptions


_WITHOUT_OBSERVER: dict[str, object] = {
    "observer_window": 4,
    "observer_seed": "lookback",
    "context": "sliding",
}


def plant_stage(spec: CellSpec) -> Stage:
    """The first training, which open and closed loop share."""
    options = spec.f_llm or FLlmOptions()
    shared = {"form": "open-loop"} if options.form == "closed-loop" else {}
    horizon = spec.horizon if options.form == "fpt" else options.patch
    return Stage("plant", horizon, 1.0, options.model_copy(update=_WITHOUT_OBSERVER | shared))


def observer_stage(spec: CellSpec, patches: int) -> Stage:
    """The second training, along a roll-out of so many patches."""
    options = spec.f_llm or FLlmOptions()
    return Stage("observer", patches * options.patch, 0.25, options)


def build_network(spec: CellSpec, language: LanguageModel) -> Plant | FlattenHeadForecaster:
    """What a cell trains first, with the weights its seed gives.

    Raises:
        TsbenchError: The lookback is not a multiple of the patch.
    """
    config, form = plant_config(spec), (spec.f_llm or FLlmOptions()).form
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        decoder = _decoder(form, language)
        model = (
            FlattenHeadForecaster(config, decoder, spec.horizon) if form == "fpt" else Plant(config, decoder)
        )
    return model.to(resolve_device(spec.device))


def _decoder(form: FLlmForm, language: LanguageModel) -> Decoder:
    if form == "mlp":
        return TokenMLP(language.width)
    return AdaptedDecoder(language.module) if form == "lora" else FrozenDecoder(language.module)


def _direct_loss(model: nn.Module, rows: Tensor) -> Tensor:
    """Mean squared error of a forecast without roll-out on windows [B, L + H]."""
    lookback = cast("FlattenHeadForecaster", model).config.lookback
    return nn.functional.mse_loss(model(rows[:, :lookback]), rows[:, lookback:])


def _close_loop(
    task: Task, plant: Plant, identity: str, options: FLlmOptions, rolling: RollOutConfig
) -> tuple[Observer | None, dict[str, float]]:
    """Train the observer; None where it does not help on the validation split at the cell's own horizon."""
    plant.requires_grad_(False).eval()
    patches = min(
        -(-_LONGEST_ROLL_OUT // options.patch),
        *(
            (end - start - (task.spec.lookback if split == "train" else 0)) // options.patch
            for split, (start, end) in (("train", task.borders.train), ("val", task.borders.val))
        ),
    )
    stage = observer_stage(task.spec, patches)
    if patches < 1:
        raise TsbenchError(
            f"the validation split is shorter than F-LLM's patch of {options.patch} steps, so the observer "
            "cannot be trained; use a smaller --patch, or --form open-loop"
        )
    observer = Observer(options.patch, options.observer_window).to(resolve_device(task.spec.device))

    def loss(network: nn.Module, rows: Tensor) -> Tensor:
        return observer_loss(plant, cast("Observer", network), rows, rolling)

    weights = digest([identity, hash_weights(plant, asdict(plant.config))])
    own = _validation(task, observer_stage(task.spec, min(patches, -(-task.spec.horizon // options.patch))))
    open_loop = mean_over(observer, loss, own)
    report = _train(task, observer, stage, weights, loss=loss, score=loss)
    return keep_observer(task, observer, report.best_step, open_loop, mean_over(observer, loss, own), "mse")


def keep_observer(
    task: Task | SeriesTask, observer: Observer, steps: int, open_loop: float, closed_loop: float, metric: str
) -> tuple[Observer | None, dict[str, float]]:
    """The trained observer, or None where it does not lower the validation error; and both errors."""
    helped = closed_loop < open_loop
    if not helped:
        task.progress("f-llm: the observer did not help on the validation data; the loop stays open")
    return observer if helped else None, {
        "observer_steps": float(steps if helped else 0),
        f"val_{metric}_open": open_loop,
        f"val_{metric}_closed": min(closed_loop, open_loop),
    }


def _train(
    task: Task,
    model: nn.Module,
    stage: Stage,
    identity: str,
    loss: Callable[[Any, Tensor], Tensor],
    score: Callable[[Any, Tensor], Tensor],
) -> TrainingReport:
    spec, profile = task.spec, task.profile
    every = window_grid(task.borders, "train", spec.lookback, stage.horizon)
    stride = spec.train_stride or -(-every.total * task.channels // profile.max_train_pairs)
    grid = window_grid(task.borders, "train", spec.lookback, stage.horizon, stride)
    order = ShuffledBatches(len(grid.starts) * task.channels, profile.batch_size, spec.seed)
    validation = _validation(task, stage)
    return train_stage(
        task,
        model,
        stage,
        order,
        rows=lambda step: _rows(task, grid, order(step)),
        loss=loss,
        validate=lambda network: mean_over(network, score, validation),
        content=[task.dataset.sha256, asdict(task.borders), identity, grid.stride],
    )


def train_stage(
    task: Task | SeriesTask,
    model: nn.Module,
    stage: Stage,
    order: ShuffledBatches,
    rows: Callable[[int], Tensor],
    loss: Callable[[Any, Tensor], Tensor],
    validate: Callable[[nn.Module], float],
    content: list[object],
) -> TrainingReport:
    """Train one stage with the profile's effort, or find it trained.

    Args:
        task: Whose spec, profile and directory of artifacts are used.
        model: What is trained.
        stage: Which of the two trainings.
        order: Of the items; an epoch is a pass over them.
        rows: Windows of a step, on any device; a pure function of the step.
        loss: Of the model on a batch of windows.
        validate: Score of the model, lower is better.
        content: What, beside spec, stage and effort, the result depends on: data, frozen weights.

    Returns:
        The report of `train`; the model has its best weights.

    Raises:
        TsbenchError: Training diverged.
    """
    spec, profile = task.spec, task.profile
    config = TrainingConfig(
        max_steps=min(max(1, int(profile.max_steps * stage.effort)), _MOST_EPOCHS * order.steps_per_epoch),
        eval_every=min(max(1, int(profile.eval_every * stage.effort)), order.steps_per_epoch),
        patience=profile.patience,
        learning_rate=profile.learning_rate,
        schedule=profile.schedule,
        seed=spec.seed,
    )
    trained = spec.model_copy(
        update={
            "dataset": spec.train_dataset or spec.dataset,
            "horizon": stage.horizon,
            "f_llm": stage.options,
            "samples": None,
            "test_stride": None,
            "drop_last": None,
        }
    )
    key = digest([trained.content_hash(), asdict(config), *content])[:32]
    device = resolve_device(spec.device)

    with task.stages("train"):
        return task.train(
            model,
            batches=lambda step: rows(step).to(device),
            loss_fn=loss,
            validate=validate,
            config=config,
            checkpoint_dir=task.artifacts / "f-llm" / f"{stage.name}-{key}",
            on_progress=step_report(task, order, config.eval_every, f"f-llm {stage.name}"),
        )


def _validation(task: Task, stage: Stage) -> Tensor:
    """Windows x channels of the validation split [n, L + H], thinned evenly to a bound."""
    grid = window_grid(task.borders, "val", task.spec.lookback, stage.horizon)
    total = len(grid.starts) * task.channels
    return _rows(task, grid, evenly_spaced(total, VALIDATION_ROWS))


def _rows(task: Task, grid: WindowGrid, pairs: NDArray[np.int64]) -> Tensor:
    """Context and target [n, L + H] of (window, channel) pairs, numbered window by window."""
    windows = task.pairs(grid, pairs)
    return torch.from_numpy(np.concatenate([windows.context, windows.target], axis=1))


@torch.no_grad()
def mean_over(model: nn.Module, score: Callable[[Any, Tensor], Tensor], rows: Tensor) -> float:
    """Mean of a score, itself a mean over rows, over all rows, a few at a time."""
    device = next(model.parameters()).device
    parts = torch.split(rows, _ROWS_PER_CALL)
    return sum(score(model, part.to(device)).item() * len(part) for part in parts) / len(rows)
