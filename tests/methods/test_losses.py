from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tsbench.errors import TsbenchError
from tsbench.methods.ts_memory.losses import (
    AblationName,
    LossTerms,
    PaperRecipe,
    Recipe,
    ReleasedRecipe,
    ablate,
    distillation_loss,
)

LEVELS = (0.1, 0.3, 0.5, 0.8)
MEDIAN = 2
PAPER = PaperRecipe(
    gate_margin=0.05, gamma=1.5, kappa=0.7, eta=0.6, lambda_align=0.9, lambda_reg=0.4, lambda_cross=0.2
)
RELEASED = ReleasedRecipe()
Array = NDArray[np.float64]


class Batch:
    """Five windows, four levels, three steps; some teachers better, some worse than the backbone."""

    def __init__(self, seed: int = 0, windows: int = 5, steps: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.target = normal(windows, steps)
        self.memory = normal(windows, len(LEVELS), steps).requires_grad_()
        self.base = normal(windows, len(LEVELS), steps).sort(dim=1).values
        self.teacher = normal(windows, len(LEVELS), steps).sort(dim=1).values
        self.confidence = torch.rand(windows, generator=generator)

    def loss(self, recipe: Recipe, ablation: AblationName = "none") -> LossTerms:
        return distillation_loss(
            self.memory,
            self.target,
            self.base,
            self.teacher,
            self.confidence,
            LEVELS,
            recipe,
            ablation,
        )

    def arrays(self) -> tuple[Array, Array, Array, Array, Array]:
        tensors = (self.memory.detach(), self.target, self.base, self.teacher, self.confidence)
        memory, target, base, teacher, confidence = (t.double().numpy() for t in tensors)
        return memory, target, base, teacher, confidence


def huber(a: float, b: float, kappa: float) -> float:
    e = abs(a - b)
    return 0.5 * e * e if e <= kappa else kappa * (e - 0.5 * kappa)


def pinball(level: float, truth: float, forecast: float) -> float:
    return level * (truth - forecast) if truth >= forecast else (1 - level) * (forecast - truth)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def oracle_gate(batch: Batch, window: int, margin: float) -> float:  # Eq. 12 and 13
    _, y, base, teacher, _ = batch.arrays()
    teacher_error = mean([abs(y[window, u] - teacher[window, MEDIAN, u]) for u in range(y.shape[1])])
    base_error = mean([abs(y[window, u] - base[window, MEDIAN, u]) for u in range(y.shape[1])])
    return 1.0 if teacher_error + margin < base_error else 0.0


def oracle_cross(batch: Batch) -> float:  # Eq. 19
    memory = batch.arrays()[0]
    windows, levels, steps = memory.shape
    total = 0.0
    for t in range(windows):
        for u in range(steps):
            for j in range(levels - 1):
                total += max(0.0, memory[t, j, u] - memory[t, j + 1, u])
    return float(total / (windows * steps * (levels - 1)))


def oracle_paper(batch: Batch, r: PaperRecipe) -> dict[str, float]:
    memory, y, base, teacher, confidence = batch.arrays()
    windows, levels, steps = memory.shape
    task, align, anchor, gates = [], [], [], []
    for t in range(windows):
        gate = oracle_gate(batch, t, r.gate_margin)
        omega = gate * confidence[t] ** r.gamma
        pinballs, quantile_gap, median_gap, anchor_gap = [], [], [], []
        for u in range(steps):
            for j in range(levels):
                pinballs.append(pinball(LEVELS[j], y[t, u], memory[t, j, u]))
                quantile_gap.append(huber(memory[t, j, u], teacher[t, j, u], r.kappa))
            correction = memory[t, MEDIAN, u] - base[t, MEDIAN, u]
            teacher_correction = teacher[t, MEDIAN, u] - base[t, MEDIAN, u]
            median_gap.append(huber(correction, teacher_correction, r.kappa))
            anchor_gap.append(huber(memory[t, MEDIAN, u], base[t, MEDIAN, u], r.kappa))
        task.append(mean(pinballs))
        align.append(omega * (mean(quantile_gap) + r.eta * mean(median_gap)))
        anchor.append((1 - omega) * mean(anchor_gap))
        gates.append(gate)
    parts = {
        "task": mean(task),
        "align": mean(align),
        "anchor": mean(anchor),
        "cross": oracle_cross(batch),
        "gated": mean(gates),
    }
    regularisation = parts["anchor"] + r.lambda_cross * parts["cross"]
    total = parts["task"] + r.lambda_align * parts["align"] + r.lambda_reg * regularisation
    return parts | {"total": total}


def oracle_released(batch: Batch, r: ReleasedRecipe) -> dict[str, float]:
    memory, y, base, teacher, confidence = batch.arrays()
    windows, levels, steps = memory.shape
    mixed, align, anchor, median_huber, gates = [], [], [], [], []
    for t in range(windows):
        conf = confidence[t] if r.fixed_confidence is None else r.fixed_confidence
        mix = r.mix_floor + r.mix_span * conf
        gate = oracle_gate(batch, t, r.gate_margin)
        tail, median_gap, anchor_gap = [], [], []
        weighted_pinball = total_weight = 0.0
        for u in range(steps):
            for j in range(levels):
                weight = r.median_weight if j == MEDIAN else 1.0
                weighted_pinball += weight * pinball(LEVELS[j], y[t, u], memory[t, j, u])
                total_weight += weight
                if j != MEDIAN:
                    tail.append(huber(memory[t, j, u], teacher[t, j, u], 1.0))
            median_gap.append(huber(memory[t, MEDIAN, u], teacher[t, MEDIAN, u], 1.0))
            anchor_gap.append(huber(memory[t, MEDIAN, u], base[t, MEDIAN, u], 1.0))
            median_huber.append(huber(memory[t, MEDIAN, u], y[t, u], 1.0))
        mixed.append((1 - mix) * weighted_pinball / total_weight)
        align.append(mix * (mean(tail) + gate * mean(median_gap)))
        anchor.append((1 - conf) * mean(anchor_gap))
        gates.append(gate)
    parts = {
        "task": mean(mixed) + r.lambda_median * mean(median_huber),
        "align": mean(align),
        "anchor": mean(anchor),
        "cross": oracle_cross(batch),
        "gated": mean(gates),
    }
    weighted = r.lambda_anchor * parts["anchor"] + r.lambda_cross * parts["cross"]
    return parts | {"total": parts["task"] + parts["align"] + weighted}


def values(terms: LossTerms) -> dict[str, float]:
    return {name: tensor.item() for name, tensor in vars(terms).items()}


@pytest.mark.parametrize("seed", range(4))
def test_paper_loss_equals_the_equations_written_as_loops(seed: int) -> None:
    batch = Batch(seed)
    assert values(batch.loss(PAPER)) == pytest.approx(oracle_paper(batch, PAPER), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_released_loss_equals_its_formula_written_as_loops(seed: int) -> None:
    batch = Batch(seed)
    assert values(batch.loss(RELEASED)) == pytest.approx(oracle_released(batch, RELEASED), rel=1e-5)


def test_both_gate_outcomes_occur_in_the_test_batches() -> None:
    shares = [Batch(seed).loss(PAPER).gated.item() for seed in range(4)]
    assert any(0 < share < 1 for share in shares)


@pytest.mark.parametrize("oracle_and_recipe", [(oracle_paper, PAPER), (oracle_released, RELEASED)])
def test_gradient_is_that_of_finite_differences_of_the_oracle(
    oracle_and_recipe: tuple[Callable[..., dict[str, float]], Recipe],
) -> None:
    oracle, recipe = oracle_and_recipe
    batch = Batch(1, windows=2, steps=2)
    batch.loss(recipe).total.backward()  # type: ignore[no-untyped-call]
    gradient = batch.memory.grad
    assert gradient is not None
    for index in np.ndindex(*batch.memory.shape):
        plus, minus = Batch(1, windows=2, steps=2), Batch(1, windows=2, steps=2)
        with torch.no_grad():
            plus.memory[index] += 1e-3
            minus.memory[index] -= 1e-3
        slope = (oracle(plus, recipe)["total"] - oracle(minus, recipe)["total"]) / 2e-3
        assert gradient[index].item() == pytest.approx(slope, abs=1e-3)


def test_delta_alignment_is_the_median_share_of_quantile_alignment_once_more() -> None:
    batch = Batch()
    only_median = replace(PAPER, gate_margin=-np.inf, gamma=0.0)
    delta = batch.loss(replace(only_median, eta=1.0)).align - batch.loss(replace(only_median, eta=0.0)).align
    gap = torch.nn.functional.huber_loss(batch.memory[:, MEDIAN], batch.teacher[:, MEDIAN], delta=PAPER.kappa)
    torch.testing.assert_close(delta, gap.detach())


PAPER_REMOVALS: dict[AblationName, PaperRecipe] = {
    "no-distillation": replace(PAPER, gate_margin=np.inf),
    "no-gate": replace(PAPER, gate_margin=-np.inf),
    "no-confidence": replace(PAPER, gamma=0.0),
    "no-regularisation": replace(PAPER, lambda_reg=0.0),
    "no-delta-align": replace(PAPER, eta=0.0),
}
RELEASED_REMOVALS: dict[AblationName, ReleasedRecipe] = {
    "no-distillation": replace(RELEASED, mix_floor=0.0, mix_span=0.0, fixed_confidence=0.0),
    "no-gate": replace(RELEASED, gate_margin=-np.inf),
    "no-confidence": replace(RELEASED, fixed_confidence=0.5),
    "no-regularisation": replace(RELEASED, lambda_anchor=0.0, lambda_cross=0.0),
}


@pytest.mark.parametrize("ablation", PAPER_REMOVALS)
def test_each_paper_ablation_is_the_documented_setting(ablation: AblationName) -> None:
    batch = Batch()
    expected = oracle_paper(batch, PAPER_REMOVALS[ablation])
    assert values(batch.loss(PAPER, ablation)) == pytest.approx(expected, rel=1e-5)
    assert expected["total"] != pytest.approx(oracle_paper(batch, PAPER)["total"])


@pytest.mark.parametrize("ablation", RELEASED_REMOVALS)
def test_each_released_ablation_is_the_documented_setting(ablation: AblationName) -> None:
    batch = Batch()
    expected = oracle_released(batch, RELEASED_REMOVALS[ablation])
    assert values(batch.loss(RELEASED, ablation)) == pytest.approx(expected, rel=1e-5)
    assert expected["total"] != pytest.approx(oracle_released(batch, RELEASED)["total"])


def test_without_distillation_every_window_is_anchored_fully_and_none_is_aligned() -> None:
    batch = Batch()
    gap = torch.nn.functional.huber_loss(batch.memory[:, MEDIAN], batch.base[:, MEDIAN], delta=PAPER.kappa)
    for recipe in (PAPER, RELEASED):
        terms = batch.loss(recipe, "no-distillation")
        assert terms.align == 0
        if recipe is PAPER:
            torch.testing.assert_close(terms.anchor, gap.detach())


@pytest.mark.parametrize("recipe", [PAPER, RELEASED])
def test_without_retrieval_only_the_task_is_left_and_nothing_else_is_needed(recipe: Recipe) -> None:
    batch = Batch()
    terms = distillation_loss(
        batch.memory, batch.target, None, None, None, LEVELS, recipe, ablation="no-retrieval"
    )
    if isinstance(recipe, PaperRecipe):
        expected = oracle_paper(batch, recipe)["task"]
    else:
        expected = oracle_released(batch, replace(recipe, mix_floor=0.0, mix_span=0.0))["task"]
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)
    assert terms.align == terms.anchor == terms.cross == terms.gated == 0


@pytest.mark.parametrize("recipe", [PAPER, RELEASED])
def test_only_the_total_carries_gradients_and_only_to_the_memory(recipe: Recipe) -> None:
    batch = Batch()
    batch.confidence.requires_grad_()
    terms = batch.loss(recipe)
    assert terms.total.requires_grad
    assert not any(t.requires_grad for name, t in vars(terms).items() if name != "total")
    terms.total.backward()  # type: ignore[no-untyped-call]
    assert batch.memory.grad is not None
    assert batch.confidence.grad is None


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 10_000), permuted=st.permutations(range(5)))
def test_order_of_the_windows_does_not_matter(seed: int, permuted: list[int]) -> None:
    batch, other = Batch(seed), Batch(seed)
    for name in ("memory", "target", "base", "teacher", "confidence"):
        setattr(other, name, getattr(other, name)[permuted])
    for recipe in (PAPER, RELEASED):
        assert values(other.loss(recipe)) == pytest.approx(values(batch.loss(recipe)), rel=1e-5)


def test_a_perfect_sorted_forecast_with_a_perfect_teacher_and_base_costs_nothing() -> None:
    batch = Batch()
    exact = batch.target[:, None].expand(-1, len(LEVELS), -1)
    for recipe in (PAPER, RELEASED):
        terms = distillation_loss(exact, batch.target, exact, exact, batch.confidence, LEVELS, recipe)
        assert terms.total == 0


def test_a_tie_between_teacher_and_backbone_does_not_pass_the_gate() -> None:
    batch = Batch()
    batch.teacher = batch.base
    assert batch.loss(PaperRecipe()).gated == 0


def test_bfloat16_forecasts_are_scored_in_float32() -> None:
    batch = Batch()
    batch.memory = batch.memory.detach().bfloat16().requires_grad_()
    terms = batch.loss(PAPER)
    assert terms.total.dtype == torch.float32
    assert values(terms) == pytest.approx(oracle_paper(batch, PAPER), rel=1e-5)


def test_when_the_recipe_lacks_the_component_then_the_error_lists_what_it_has() -> None:
    with pytest.raises(
        TsbenchError, match=r"released recipe has no ablation 'no-delta-align'; use none, no-"
    ):
        ablate(RELEASED, "no-delta-align")
    with pytest.raises(TsbenchError, match="paper recipe has no ablation 'no-such'"):
        ablate(PAPER, "no-such")  # type: ignore[arg-type]


def test_every_ablation_is_known_to_the_paper_recipe() -> None:
    recipes = [ablate(PAPER, ablation) for ablation in get_args(AblationName)]
    assert len({*recipes}) == len(get_args(AblationName))


@pytest.mark.parametrize("name", ["base", "teacher", "confidence"])
def test_when_an_input_is_missing_or_misshapen_then_it_is_refused(name: str) -> None:
    batch = Batch()
    setattr(batch, name, getattr(batch, name)[:-1])
    with pytest.raises(ValueError, match=f"{name} must be"):
        batch.loss(PAPER)
    setattr(batch, name, None)
    with pytest.raises(ValueError, match="needs base, teacher and confidence"):
        batch.loss(PAPER)


def test_when_the_levels_do_not_match_the_forecast_then_it_is_refused() -> None:
    batch = Batch()
    with pytest.raises(ValueError, match="memory must be"):
        distillation_loss(
            batch.memory, batch.target, None, None, None, LEVELS[:3], PAPER, ablation="no-retrieval"
        )
