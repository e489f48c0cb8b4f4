"""Diagnoses of F-LLM's stability: measured once per cell, kept beside its results."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from tsbench.bench.provenance import provenance
from tsbench.bench.runner import Bench
from tsbench.bench.store import file_name, write
from tsbench.config import CellSpec
from tsbench.errors import TsbenchError
from tsbench.methods.f_llm import FLlmForecaster, fit
from tsbench.methods.f_llm_stability import Stability, diagnose


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is stored of a cell.

    Attributes:
        key: Content hash of the cell.
        spec: The cell.
        provenance: Where, when and from what, as in `tsbench.bench.records.Provenance`.
        stability: The figures.
    """

    key: str
    spec: CellSpec
    provenance: dict[str, Any]
    stability: Stability


_JSON = TypeAdapter(Diagnosis)


def diagnose_cell(bench: Bench, spec: CellSpec) -> tuple[Diagnosis, Path]:
    """Measure the stability of a cell unless it is stored.

    Args:
        bench: Where results go.
        spec: A cell of F-LLM's closed loop on a long data set; it is trained where it is not yet.

    Returns:
        The diagnosis and its file.

    Raises:
        TsbenchError: The file is damaged, or cannot be written.
    """
    key = bench.key(spec)
    name = f"{spec.horizon}-{spec.method}-{spec.backbone}-{key[:12]}.json"
    path = bench.store.root / "stability" / file_name(spec.dataset) / file_name(name)
    stored = load_diagnosis(path, key)
    if stored is not None:
        return stored, path
    started = time.perf_counter()
    task = bench.task(spec)
    frozen = bench.frozen(spec, task)
    stability = diagnose(task, frozen, cast(FLlmForecaster, fit(task, frozen).forecaster))
    wall_s = time.perf_counter() - started
    made = provenance(task.dataset.sha256, frozen.backbone.identity, spec.device, wall_s)
    found = Diagnosis(key, spec, asdict(made), stability)
    save_diagnosis(path, found)
    return found, path


def save_diagnosis(path: Path, diagnosis: Diagnosis) -> None:
    """Write a diagnosis as JSON, in full precision.

    Raises:
        TsbenchError: The file cannot be written.
    """
    write(path, _JSON.dump_json(diagnosis, indent=1) + b"\n")


def load_diagnosis(path: Path, key: str) -> Diagnosis | None:
    """Read the diagnosis of a cell; None where there is none.

    Raises:
        TsbenchError: The file is damaged.
    """
    if not path.is_file():
        return None
    found = _read(path)
    return found if found.key == key else None


def load_diagnoses(root: Path) -> list[Diagnosis]:
    """Read all diagnoses below the folder of the results, ordered by file name.

    Raises:
        TsbenchError: A file is damaged.
    """
    return [_read(path) for path in sorted(root.glob("stability/*/*.json"))]


def _read(path: Path) -> Diagnosis:
    try:
        return _JSON.validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise TsbenchError(f"cannot read {path} ({cause}); delete it and run again") from error
