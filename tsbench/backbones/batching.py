"""Model calls of as many rows as memory allows."""

from collections.abc import Callable

import torch

from tsbench.errors import TsbenchError

# Context and forecast bytes of a model call. What a network needs in between is some multiple of it, which
# adapters bound by calls of their own.
_CPU_BYTES = 2**24
_GPU_SHARE = 64  # of the free memory

Function = Callable[[torch.Tensor], torch.Tensor]


def rows_in_budget(values: int, device: torch.device) -> int:
    """Rows of a model call, at least 1, whose contexts and forecasts fit into the budget.

    Args:
        values: Float32 values of a row, context and forecast together.
        device: Where the model is.
    """
    budget = _CPU_BYTES
    if device.type == "cuda":
        budget = max(budget, torch.cuda.mem_get_info(device)[0] // _GPU_SHARE)
    return max(1, budget // (4 * values))


class RowLimit:
    """Splits model calls that do not fit into memory, and remembers what did.

    Args:
        name: Of the model, for the error message.
        unit: Rows that belong together, such as the channels of a window of a multivariate model.
    """

    def __init__(self, name: str, unit: int = 1) -> None:
        self._name, self._unit = name, unit
        self._rows: int | None = None

    def call(self, function: Function, context: torch.Tensor) -> torch.Tensor:
        """Apply a function to rows; where memory is short, to half as many at a time, and again.

        Args:
            function: [b, L] to [b, ...]; its rows do not depend on each other, those of a unit aside.
            context: [B, L].

        Returns:
            [B, ...].

        Raises:
            TsbenchError: Not even one unit fits.
        """
        while True:
            rows = min(self._rows or len(context), len(context))
            try:
                parts = [function(part) for part in torch.split(context, rows)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if rows <= self._unit:
                    raise TsbenchError(
                        f"{self._name} runs out of memory with {rows} contexts of {context.shape[1]} steps; "
                        "use a smaller backbone, or a shorter lookback or horizon"
                    ) from error
                self._rows = max(1, rows // (2 * self._unit)) * self._unit
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # what the failed call held, once its exception is gone


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a processor or a GPU has no memory left."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in str(error) for sign in ("can't allocate memory", "DefaultCPUAllocator")
    )
