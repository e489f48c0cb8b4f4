"""Roll-out of a plant over the horizon, open loop or corrected by an observer; the loss of stage 2."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tsbench.models.f_llm.observer import Observer
from tsbench.models.f_llm.plant import Moments, Plant, split_patches

__all__ = ["RollOut", "RollOutConfig", "forecast", "observer_loss", "roll_out"]


@dataclass(frozen=True)
class RollOutConfig:
    """How a forecast is fed back.

    Args:
        context: "sliding", AutoTimes' way: at each step the oldest patch is dropped and the instance
            statistics are those of the patches left, so each step is a full pass of N tokens. "growing": the
            lookback's statistics stay and patches are added, so a cache of keys and values serves and each
            step is a pass of one token.
        seed: First residuals the observer sees. "lookback": those of the lookback's patches 2 to N, which the
            first pass predicts and whose truth is known. "zeros": none, Eq. 9 to the letter. The estimated
            residuals follow, each as soon as it is there.
    """

    context: Literal["sliding", "growing"] = "sliding"
    seed: Literal["lookback", "zeros"] = "lookback"


@dataclass(frozen=True, eq=False)
class RollOut:
    """The steps of a roll-out, [B, n, P] float32 each, in data units.

    Attributes:
        predictions: What the plant makes of the corrected context; without gradient.
        corrections: Residuals as the observer estimates them; zeros in the open loop.
    """

    predictions: Tensor
    corrections: Tensor

    @property
    def corrected(self) -> Tensor:
        """Corrected patches [B, n, P], the forecast."""
        return self.predictions + self.corrections

    def residuals(self, truth: Tensor) -> Tensor:
        """Return what the corrections should have been, [B, n, P], given the true steps [B, n * P]."""
        return truth.view_as(self.predictions) - self.predictions


_DEFAULT = RollOutConfig()


def roll_out(
    plant: Plant, observer: Observer | None, context: Tensor, steps: int, config: RollOutConfig = _DEFAULT
) -> RollOut:
    """Forecast patch by patch, each corrected patch being the plant's next input.

    ytil_t = yhat_t + rhat_t,  rhat_t = std_t g(..., r_{t-1} / std_t),  std_t of the current context

    The plant runs without gradient and the context carries none, so that the corrections are a plain
    function of the observer's weights and of numbers.

    Args:
        plant: Next-patch predictor.
        observer: Residual estimator g; None = open loop, to which an untrained observer is equal bit by bit.
        context: [B, N * P] float32, oldest first, no NaN. Rows do not influence one another.
        steps: Patches forecast, n.
        config: How the forecast is fed back.

    Returns:
        The n steps.

    Raises:
        ValueError: The context has another length.

    Source: F-LLM, Eq. 2 and 8-10. Residuals are kept in data units, for the standard deviation changes from
    step to step; the paper does not say. Sliding follows AutoTimes, whose protocol the paper adopts.
    """
    growing = config.context == "growing"
    fresh = lookback = split_patches(context, plant.config)
    moments = Moments.of(lookback)
    residuals = lookback[:, :0]
    cache: Any = None
    predictions, corrections = [], []
    for step in range(steps):
        if not growing:
            moments = Moments.of(fresh)
        with torch.no_grad():
            normalised, cache = plant.advance(moments.normalise(fresh), cache, use_cache=growing)
            predicted = moments.restore(normalised)
        if step == 0 and config.seed == "lookback":
            residuals = lookback[:, 1:] - predicted[:, :-1]
        prediction = predicted[:, -1:]
        if observer is None:
            correction = torch.zeros_like(prediction)
        else:
            correction = moments.std * observer(residuals / moments.std).unsqueeze(1)
        predictions.append(prediction)
        corrections.append(correction)
        residuals = torch.cat([residuals, correction.detach()], dim=1)
        corrected = prediction + correction.detach()
        fresh = corrected if growing else torch.cat([fresh[:, 1:], corrected], dim=1)
    return RollOut(torch.cat(predictions, dim=1), torch.cat(corrections, dim=1))


def forecast(
    plant: Plant, observer: Observer | None, context: Tensor, horizon: int, config: RollOutConfig = _DEFAULT
) -> Tensor:
    """Forecast [B, H] float32 of contexts [B, N * P], in their units: ceil(H / P) steps, the tail trimmed.

    Raises:
        ValueError: The context has another length.
    """
    steps = -(-horizon // plant.config.patch)
    return roll_out(plant, observer, context, steps, config).corrected.flatten(1)[:, :horizon]


def observer_loss(
    plant: Plant, observer: Observer, windows: Tensor, config: RollOutConfig = _DEFAULT
) -> Tensor:
    """Loss of stage 2: mean squared error of the estimated residuals along the closed loop.

    mean over t of || rhat_t - (y_t - yhat_t) ||^2 / P

    It is also the mean squared error of the closed-loop forecast, hence the validation score; its gradient
    reaches the observer alone, and not through the patches that earlier corrections changed.

    Args:
        plant: Trained plant.
        observer: Observer in training.
        windows: [B, (N + n) * P] float32: the context and the n patches to forecast.
        config: How the forecast is fed back.

    Returns:
        Scalar, in squared units of the data.

    Raises:
        ValueError: No patch, or not a whole number of patches, follows the context.

    Source: F-LLM, Eq. 13, which sums. That the context is detached is ours: the paper does not say.
    """
    context, truth = windows[:, : plant.config.lookback], windows[:, plant.config.lookback :]
    steps, rest = divmod(truth.shape[1], plant.config.patch)
    if rest or not steps:
        raise ValueError(f"{truth.shape[1]} steps to forecast are not patches of {plant.config.patch}")
    rolled = roll_out(plant, observer, context, steps, config)
    return F.mse_loss(rolled.corrections, rolled.residuals(truth))
