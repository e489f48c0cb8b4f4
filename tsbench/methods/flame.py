"""FLAME fine-tuned on a data set (full-shot); zero-shot it is a backbone like any other."""

import copy
from dataclasses import asdict

import torch

from tsbench.backbones.flame import FlameBackbone, make_backbone
from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.config import digest
from tsbench.data.pretraining import PretrainingWindows
from tsbench.data.windows import evenly_spaced
from tsbench.errors import TsbenchError
from tsbench.methods.task import Fitted, Task, step_report
from tsbench.metrics.quantile import pinball_loss
from tsbench.training.loop import ShuffledBatches, TrainingConfig
from tsbench.training.pretrain import window_loss

_LEARNING_RATE = 2e-4
_VALIDATION_ROWS = 1_024


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Train all of FLAME's weights on the train split; the validation split stops it.

    Windows x channels of the profile's training grid are drawn in shuffled order; the loss is that of
    pre-training. Validation is the CRPS (pinball loss over the deciles) of the profile's early-stopping grid.
    The step-0 weights compete: where training does not help, the zero-shot weights stay.

    Raises:
        TsbenchError: The backbone is not FLAME, or training diverged.
    """
    backbone, spec = _flame(frozen), task.spec
    profile = task.profile
    model = copy.deepcopy(backbone.model).requires_grad_(True)
    grid = task.fine_tuning_windows()
    pairs = len(grid.starts) * task.channels
    config = TrainingConfig(
        max_steps=profile.max_steps,
        eval_every=min(profile.eval_every, -(-pairs // profile.batch_size)),
        patience=profile.patience,
        learning_rate=_LEARNING_RATE,
        schedule="cosine",
        warmup_steps=20,
        seed=spec.seed,
        precision=spec.precision,
    )
    order = ShuffledBatches(pairs, profile.batch_size, spec.seed)
    validation = task.windows("val", profile.max_stop_values)
    rows = evenly_spaced(len(validation.starts) * task.channels, _VALIDATION_ROWS)
    stop = task.pairs(validation, rows)
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bf16"):  # as in training
        before = _crps(backbone.model, stop)
    trained = spec.model_copy(update={"samples": None, "test_stride": None, "drop_last": None})
    content = [
        trained.content_hash(task.dataset.sha256),
        asdict(task.borders),
        backbone.identity,
        asdict(config),
        grid.stride,
    ]
    directory = task.artifacts / "flame" / digest(content)[:32]

    with task.stages("train"):
        report = task.train(
            model,
            batches=lambda step: task.pairs(grid, order(step)),
            loss_fn=window_loss,
            validate=lambda network: _crps(network, stop),
            config=config,
            checkpoint_dir=directory,
            on_progress=step_report(task, order, profile.eval_every, "flame"),
        )
    diagnostics = {
        "fine_tune_steps": float(report.best_step),
        "val_pinball_before": before,
        "val_pinball_after": min(report.best_score, before),
    }
    if report.best_score >= before:
        task.progress("flame: fine-tuning did not help on the validation split; the zero-shot weights stay")
        return Fitted(backbone, diagnostics | {"fine_tune_steps": 0.0})
    return Fitted(make_backbone(backbone.name, model, backbone.rollout), diagnostics)


def _flame(frozen: FrozenBackbone) -> FlameBackbone:
    if not isinstance(frozen.backbone, FlameBackbone):
        raise TsbenchError(
            f"method 'flame' is a model of its own, not an adapter of {frozen.backbone.name}; use "
            "--backbone flame-small"
        )
    return frozen.backbone


@torch.no_grad()
def _crps(model: torch.nn.Module, windows: PretrainingWindows) -> float:
    """Twice the pinball loss at the deciles, in the data's standardised units."""
    levels = FlameBackbone.quantile_levels
    device = next(model.parameters()).device
    losses = []
    for first in range(0, len(windows.context), 256):
        context = torch.from_numpy(windows.context[first : first + 256]).to(device)
        target = torch.from_numpy(windows.target[first : first + 256]).to(device)
        forecast = model(context, target.shape[1])
        quantiles = forecast.restore(forecast.distribution.quantiles(levels))
        losses.append((2 * pinball_loss(target, quantiles, levels)).mean((1, 2)))
    return torch.cat(losses).mean().item()
