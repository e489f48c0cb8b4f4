"""Choosing among stored cells by an expression such as "dataset=ETTh1,ETTh2 method=ts-memory"."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from tsbench.bench.columns import option_values, variant
from tsbench.config import CellSpec, FLlmOptions, TeacherOptions, TsMemoryOptions
from tsbench.errors import TsbenchError
from tsbench.registry import unknown_name


class Cell(Protocol):
    """What can be chosen: a record, a failure, a diagnosis."""

    @property
    def spec(self) -> CellSpec:
        """What was asked for."""


AnyCell = TypeVar("AnyCell", bound=Cell)

_KEYS = (
    "variant",
    *(name for name in CellSpec.model_fields if name not in ("options", "f_llm")),
    *(name for name in TsMemoryOptions.model_fields if name != "teacher"),
    *TeacherOptions.model_fields,
    *FLlmOptions.model_fields,
)


def select(cells: Iterable[AnyCell], expression: str) -> list[AnyCell]:
    """Keep the cells that match every part of an expression.

    Args:
        cells: Records, failures or others with a specification.
        expression: Space-separated `key=value`; commas between values mean "or". Keys are the fields of a
            cell, its TS-Memory or F-LLM options, and `variant`. Case does not count. A cell without such an
            option does not match. An empty expression keeps all.

    Raises:
        TsbenchError: A key is unknown, or a part is not `key=value`.
    """
    wanted: list[tuple[str, list[str]]] = []
    for part in expression.split():
        key, _, values = part.partition("=")
        if not values:
            raise TsbenchError(f"cannot select by '{part}'; write key=value, such as dataset=ETTh1")
        if key not in _KEYS:
            raise unknown_name("selection key", key, _KEYS)
        wanted.append((key, values.lower().split(",")))
    return [cell for cell in cells if all(_value(cell.spec, key) in values for key, values in wanted)]


def _value(spec: CellSpec, key: str) -> str | None:
    """A field as text; None where the cell has no such option."""
    fields = spec.model_dump(exclude={"options", "f_llm"}) | {"variant": variant(spec)}
    if spec.options is not None:
        fields |= option_values(spec.options)
    if spec.f_llm is not None:
        fields |= spec.f_llm.model_dump()
    return str(fields[key]).lower() if key in fields else None
