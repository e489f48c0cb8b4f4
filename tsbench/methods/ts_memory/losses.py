"""What PlugMem is trained to minimise: the paper's objective, the released code's, and their ablations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from tsbench.choices import AblationName, RecipeName
from tsbench.errors import TsbenchError

__all__ = [
    "RECIPES",
    "LossTerms",
    "PaperRecipe",
    "Recipe",
    "ReleasedRecipe",
    "ablate",
    "distillation_loss",
]


@dataclass(frozen=True)
class PaperRecipe:
    """Weights of the objective printed in the paper, L = L_task + λ_align L_align + λ_reg L_reg (Eq. 20).

    Args:
        gate_margin: ε_gate of Eq. 13, in data units; +∞ shuts the gate, -∞ opens it.
        gamma: Exponent of the confidence in Eq. 13.
        kappa: Transition point of every Huber loss, in data units.
        eta: Weight of the median alignment in Eq. 17.
        lambda_align: Weight of L_align.
        lambda_reg: Weight of L_reg = L_anchor + λ_cross L_cross.
        lambda_cross: Weight of the crossing penalty within L_reg.

    Source: TS-Memory, Eq. 11 to 20. The paper prints no values; λ_reg and roughly λ_reg λ_cross are those of
    the released code, the rest is neutral.
    """

    gate_margin: float = 0.0
    gamma: float = 1.0
    kappa: float = 1.0
    eta: float = 1.0
    lambda_align: float = 1.0
    lambda_reg: float = 0.3
    lambda_cross: float = 0.15


@dataclass(frozen=True)
class ReleasedRecipe:
    """Weights of the objective in the authors' released code, which mixes instead of adding.

    With b = mix_floor + mix_span Conf per window:
    L = E[b (A_tail + χ A_median) + (1 - b) T] + λ_median L_median
        + λ_anchor L_anchor + λ_cross L_cross

    Args:
        gate_margin: ε_gate of Eq. 13, in data units; +∞ shuts the gate, -∞ opens it.
        mix_floor: b of a window with confidence 0.
        mix_span: Increase of b from confidence 0 to 1.
        median_weight: Weight of the median's pinball loss in T; the other levels weigh 1.
        lambda_median: Weight of the Huber loss between the median and the target.
        lambda_anchor: Weight of the anchor, which each window scales by 1 - Conf.
        lambda_cross: Weight of the crossing penalty.
        fixed_confidence: Replaces the teacher's confidence in every window; None keeps it.

    Source: the authors' released training profile. It gates the median alone: the other levels are
    distilled from every teacher, better or worse than the backbone. Every Huber loss has κ = 1.
    """

    gate_margin: float = 0.0
    mix_floor: float = 0.2
    mix_span: float = 0.6
    median_weight: float = 5.0
    lambda_median: float = 0.1
    lambda_anchor: float = 0.3
    lambda_cross: float = 0.05
    fixed_confidence: float | None = None


Recipe = PaperRecipe | ReleasedRecipe
RECIPES: dict[RecipeName, Recipe] = {"paper": PaperRecipe(), "released": ReleasedRecipe()}

_PAPER_ABLATIONS: dict[AblationName, dict[str, float]] = {
    "none": {},
    "no-distillation": {"gate_margin": math.inf},
    "no-gate": {"gate_margin": -math.inf},
    "no-confidence": {"gamma": 0.0},
    "no-regularisation": {"lambda_reg": 0.0},
    "no-delta-align": {"eta": 0.0},
    "no-retrieval": {"lambda_align": 0.0, "lambda_reg": 0.0},
}
_RELEASED_ABLATIONS: dict[AblationName, dict[str, float]] = {
    "none": {},
    "no-distillation": {"mix_floor": 0.0, "mix_span": 0.0, "fixed_confidence": 0.0},
    "no-gate": {"gate_margin": -math.inf},
    "no-confidence": {"fixed_confidence": 0.5},
    "no-regularisation": {"lambda_anchor": 0.0, "lambda_cross": 0.0},
    "no-retrieval": {"mix_floor": 0.0, "mix_span": 0.0, "lambda_anchor": 0.0, "lambda_cross": 0.0},
}


def ablate(recipe: Recipe, ablation: AblationName) -> Recipe:
    """Return the recipe with one component switched off.

    The components are those of the paper's Figure 4, which names but does not define them, and a control:

    - "no-distillation": no L_align. The backbone stays: ω = 0, so every window is anchored with weight 1.
    - "no-gate": every teacher passes, χ = 1.
    - "no-confidence": ω = χ. Released: Conf = 0.5 in every window, so b = 0.5 and the anchor weighs 0.5.
    - "no-regularisation": neither anchor nor crossing penalty.
    - "no-delta-align": η = 0. Refused for the released recipe, whose median learns from the teacher by
      this term only.
    - "no-retrieval": the task loss alone; needs neither teacher nor backbone. The paper lacks this control.

    Raises:
        TsbenchError: The recipe has no such component.
    """
    if isinstance(recipe, PaperRecipe):
        return replace(recipe, **_overrides("paper", _PAPER_ABLATIONS, ablation))
    return replace(recipe, **_overrides("released", _RELEASED_ABLATIONS, ablation))


def _overrides(
    recipe: str, ablations: dict[AblationName, dict[str, float]], ablation: AblationName
) -> dict[str, float]:
    if ablation not in ablations:
        raise TsbenchError(f"the {recipe} recipe has no ablation {ablation!r}; use {', '.join(ablations)}")
    return ablations[ablation]


@dataclass(frozen=True)
class LossTerms:
    """The training loss and its parts, float32 scalars; only `total` carries gradients.

    Args:
        total: What to minimise.
        task: Loss against the truth.
        align: Loss against the teacher's quantiles.
        anchor: Loss against the backbone's median, before its λ.
        cross: Mean overlap of neighbouring quantiles, before its λ.
        gated: Share of windows whose teacher beats the backbone by the gate margin.
    """

    total: Tensor
    task: Tensor
    align: Tensor
    anchor: Tensor
    cross: Tensor
    gated: Tensor


def distillation_loss(
    memory: Tensor,
    target: Tensor,
    base: Tensor | None,
    teacher: Tensor | None,
    confidence: Tensor | None,
    levels: Sequence[float],
    recipe: Recipe,
    ablation: AblationName = "none",
) -> LossTerms:
    """Compute the training loss of PlugMem on a batch of windows.

    Means over the batch of per-window means over levels and steps; see `PaperRecipe` and `ReleasedRecipe`.
    Gate, confidence, teacher and backbone receive no gradient.

    Args:
        memory: PlugMem's forecast [B, Q, H], standardised units, may cross.
        target: Truth [B, H], same units.
        base: Backbone's forecast [B, Q, H]; None only for the ablation "no-retrieval".
        teacher: Retrieved quantiles [B, Q, H]; None as above.
        confidence: Largest retrieval weight [B], 0 to 1; None as above.
        levels: Q ≥ 2 ascending quantile levels; the one nearest 0.5 serves as median.
        recipe: Objective and its weights.
        ablation: Component to switch off, see `ablate`.

    Raises:
        TsbenchError: The recipe has no such component.
        ValueError: Shapes disagree, or an input the recipe needs is None.

    Source: TS-Memory, Eq. 11 to 20. The backbone cancels from Eq. 15 and 16: D_Δ is the median's share of
    D_Q once more, weighted by η.
    """
    recipe = ablate(recipe, ablation)
    if memory.ndim != 3 or memory.shape[1] != len(levels) or len(levels) < 2:
        raise ValueError(f"memory must be [B, {len(levels)} >= 2 levels, H], got {tuple(memory.shape)}")
    _check_shape("target", target, (len(memory), memory.shape[2]))
    memory = memory.float()
    if ablation == "no-retrieval":
        return _task_only(memory, target, levels, recipe)
    if base is None or teacher is None or confidence is None:
        raise ValueError(f"ablation {ablation!r} needs base, teacher and confidence")
    _check_shape("base", base, tuple(memory.shape))
    _check_shape("teacher", teacher, tuple(memory.shape))
    _check_shape("confidence", confidence, (len(memory),))
    base, teacher, confidence = (given.detach().float() for given in (base, teacher, confidence))
    if isinstance(recipe, PaperRecipe):
        return _paper_loss(memory, target, base, teacher, confidence, levels, recipe)
    return _released_loss(memory, target, base, teacher, confidence, levels, recipe)


def _paper_loss(
    memory: Tensor,
    target: Tensor,
    base: Tensor,
    teacher: Tensor,
    confidence: Tensor,
    levels: Sequence[float],
    recipe: PaperRecipe,
) -> LossTerms:
    median = _median_index(levels)
    gate = _gate(target, base[:, median], teacher[:, median], recipe.gate_margin)
    weight = gate * confidence**recipe.gamma
    task = _pinball(memory, target, levels).mean()
    quantile_gap = _huber(memory, teacher, recipe.kappa).mean(dim=(1, 2))
    median_gap = _delta_gap(memory[:, median], base[:, median], teacher[:, median], recipe.kappa)
    align = (weight * (quantile_gap + recipe.eta * median_gap)).mean()
    anchor_gap = _huber(memory[:, median], base[:, median], recipe.kappa).mean(dim=1)
    anchor = ((1 - weight) * anchor_gap).mean()
    cross = _crossing(memory)
    total = task + recipe.lambda_align * align + recipe.lambda_reg * (anchor + recipe.lambda_cross * cross)
    return _terms(total, task, align, anchor, cross, gate)


def _released_loss(
    memory: Tensor,
    target: Tensor,
    base: Tensor,
    teacher: Tensor,
    confidence: Tensor,
    levels: Sequence[float],
    recipe: ReleasedRecipe,
) -> LossTerms:
    median = _median_index(levels)
    tails = [level for level in range(len(levels)) if level != median]
    if recipe.fixed_confidence is not None:
        confidence = torch.full_like(confidence, recipe.fixed_confidence)
    gate = _gate(target, base[:, median], teacher[:, median], recipe.gate_margin)
    mix = recipe.mix_floor + recipe.mix_span * confidence
    task = _released_task(memory, target, levels, recipe, mix)
    tail_gap = _huber(memory[:, tails], teacher[:, tails]).mean(dim=(1, 2))
    median_gap = _delta_gap(memory[:, median], base[:, median], teacher[:, median])
    align = (mix * (tail_gap + gate * median_gap)).mean()
    anchor = ((1 - confidence) * _huber(memory[:, median], base[:, median]).mean(dim=1)).mean()
    cross = _crossing(memory)
    total = task + align + recipe.lambda_anchor * anchor + recipe.lambda_cross * cross
    return _terms(total, task, align, anchor, cross, gate)


def _task_only(memory: Tensor, target: Tensor, levels: Sequence[float], recipe: Recipe) -> LossTerms:
    zero = memory.new_zeros(())
    if isinstance(recipe, PaperRecipe):
        task = _pinball(memory, target, levels).mean()
    else:
        task = _released_task(memory, target, levels, recipe, mix=zero)  # b = 0
    return _terms(task, task, zero, zero, zero, zero)


def _released_task(
    memory: Tensor, target: Tensor, levels: Sequence[float], recipe: ReleasedRecipe, mix: Tensor
) -> Tensor:
    median = _median_index(levels)
    weights = memory.new_ones(len(levels))
    weights[median] = recipe.median_weight
    pinball = _pinball(memory, target, levels) @ (weights / weights.sum())
    return ((1 - mix) * pinball).mean() + recipe.lambda_median * _huber(memory[:, median], target).mean()


def _median_index(levels: Sequence[float]) -> int:
    return min(range(len(levels)), key=lambda index: abs(levels[index] - 0.5))


def _gate(target: Tensor, base: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Return χ [B] of Eq. 12 and 13 from medians [B, H]."""
    teacher_error = (target - teacher).abs().mean(dim=1)
    base_error = (target - base).abs().mean(dim=1)
    return (teacher_error + margin < base_error).float()


def _pinball(memory: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the pinball loss per window and level [B, Q]."""
    error = target[:, None] - memory
    level = memory.new_tensor(levels)[:, None]
    return torch.maximum(level * error, (level - 1) * error).mean(dim=2)


def _delta_gap(memory: Tensor, base: Tensor, teacher: Tensor, kappa: float = 1.0) -> Tensor:
    """Return D_Δ [B] of Eq. 15 and 16 from medians [B, H], as printed."""
    return _huber(memory - base, teacher - base, kappa).mean(dim=1)


def _huber(prediction: Tensor, reference: Tensor, kappa: float = 1.0) -> Tensor:
    return F.huber_loss(prediction, reference, reduction="none", delta=kappa)


def _crossing(memory: Tensor) -> Tensor:
    return F.relu(memory[:, :-1] - memory[:, 1:]).mean()


def _terms(
    total: Tensor, task: Tensor, align: Tensor, anchor: Tensor, cross: Tensor, gate: Tensor
) -> LossTerms:
    parts = (part.detach() for part in (task, align, anchor, cross, gate.mean()))
    return LossTerms(total, *parts)


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must be {list(expected)}, got {list(tensor.shape)}")
