"""The residual observer of F-LLM (arXiv 2602.12756): past residuals in, correction of the next patch out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Observer"]


class Observer(nn.Module):
    """Linear map of the last w patch residuals to an estimate of the next one.

    rhat_t = W [r_{t-w}, ..., r_{t-1}] + b

    Residuals are truth less prediction, in units of the current context's standard deviation, and so is the
    estimate: adding it corrects the prediction. Weight and bias start at zero, hence an untrained observer
    corrects nothing.

    Args:
        patch: Steps per patch P.
        window: Residuals seen, w.

    Source: F-LLM, Eq. 9, which says one linear layer; w and the start at zero are ours.
    """

    def __init__(self, patch: int, window: int = 4) -> None:
        super().__init__()
        self.window = window
        self.linear = nn.Linear(window * patch, patch)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, residuals: Tensor) -> Tensor:
        """Estimate the residual of the next patch.

        Args:
            residuals: [B, k, P] float32, oldest first, any k from 0 on; the last w count, and zeros stand for
                those missing before the first.

        Returns:
            Estimate [B, P] float32, also under autocast.
        """
        recent = residuals[:, -self.window :]
        padded = F.pad(recent, (0, 0, self.window - recent.shape[1], 0))
        with torch.autocast(residuals.device.type, enabled=False):
            return self.linear(padded.flatten(1))  # type: ignore[no-any-return]
