"""The backbone as it is, zero-shot: the row every adapter is measured against."""

from tsbench.backbones.forecast_cache import FrozenBackbone
from tsbench.methods.task import Fitted, Task


def fit(task: Task, frozen: FrozenBackbone) -> Fitted:
    """Return the backbone unchanged."""
    return Fitted(forecaster=frozen.backbone)
