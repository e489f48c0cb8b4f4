import pytest
import torch

from tsbench.backbones.batching import RowLimit, is_out_of_memory, rows_in_budget
from tsbench.errors import TsbenchError

CONTEXT = torch.arange(60.0).view(20, 3)
PROCESSOR = torch.device("cpu")
CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


class Small:
    """Doubles rows, up to a number of them at a time."""

    def __init__(self, most: int, error: Exception = CPU) -> None:
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def __call__(self, context: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(context))
        if len(context) > self.most:
            raise self.error
        return 2 * context


@pytest.mark.parametrize("error", [CPU, torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
@pytest.mark.parametrize(("unit", "most"), [(1, 20), (1, 19), (1, 3), (1, 1), (5, 5), (5, 14)])
def test_where_memory_is_short_the_rows_are_halved_until_they_fit(
    unit: int, most: int, error: Exception
) -> None:
    limit, model = RowLimit("toy", unit), Small(most, error)
    assert torch.equal(limit.call(model, CONTEXT), 2 * CONTEXT)
    first = len(model.sizes)
    assert torch.equal(limit.call(model, CONTEXT), 2 * CONTEXT)
    later = model.sizes[first:]
    assert max(later) <= most, "what did not fit is not tried again"
    assert sum(later) == len(CONTEXT)
    assert all(size % unit == 0 for size in model.sizes)


@pytest.mark.parametrize(("unit", "message"), [(1, "with 1 contexts of 3 steps"), (4, "with 4 contexts")])
def test_when_nothing_fits_then_the_remedy_is_named(unit: int, message: str) -> None:
    with pytest.raises(TsbenchError, match=f"^toy runs out of memory {message}.*use a smaller backbone"):
        RowLimit("toy", unit).call(Small(0), CONTEXT)


def test_other_errors_are_passed_on() -> None:
    broken = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    model = Small(0, broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        RowLimit("toy").call(model, CONTEXT)
    assert model.sizes == [20]
    assert not is_out_of_memory(broken)


def test_an_allocation_that_pytorch_cannot_make_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_rows_fall_with_their_size_and_never_below_one() -> None:
    assert rows_in_budget(512, PROCESSOR) == 2 * rows_in_budget(1_024, PROCESSOR)
    assert rows_in_budget(10**12, PROCESSOR) == 1


def test_a_gpu_beside_a_model_on_the_processor_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows_in_budget(512, PROCESSOR)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**36, 2**36))
    assert rows_in_budget(512, PROCESSOR) == before
    assert rows_in_budget(512, torch.device("cuda")) == 2**36 // 64 // (4 * 512)
