"""Stored teachers of TS-Memory: whether a neighbour holds what its query is asked for."""

import json
from pathlib import Path

import numpy as np

from tsbench.bench.audit.findings import Ledger
from tsbench.bench.store import readable
from tsbench.config import TeacherOptions
from tsbench.methods.ts_memory.retrieval import exclusion_zone
from tsbench.methods.ts_memory.teacher import Teacher

CHECK = "neighbours of stored teachers"


def audit_teachers(artifacts: Path, ledger: Ledger) -> None:
    """Check every teacher below a folder of artefacts.

    A neighbour's window must lie in the train rows and obey the exclusion rule that its card states. Where
    that rule is "self", neighbours that share target steps with their query are a declared leak.

    Args:
        artifacts: Folder with `teachers/<key>/teacher.safetensors` and the card beside each.
        ledger: Where findings go.

    Raises:
        TsbenchError: A file is damaged.
    """
    for path in sorted(artifacts.glob("teachers/*/teacher.safetensors")):
        card_path = path.with_suffix(".json")
        with readable(card_path):
            card = json.loads(card_path.read_bytes())
            horizon, lookback = int(card["horizon"]), int(card["lookback"])
            train_end = int(card["borders"][0][1])
            options = TeacherOptions.model_validate(card["teacher"])
        _audit(Teacher.load(path), path.parent.name[:12], lookback, horizon, train_end, options, ledger)


def _audit(
    teacher: Teacher,
    name: str,
    lookback: int,
    horizon: int,
    train_end: int,
    options: TeacherOptions,
    ledger: Ledger,
) -> None:
    group = f"teacher, H = {horizon}, exclusion {options.exclusion}"
    neighbours = teacher.neighbours
    ledger.look(CHECK, neighbours.size)
    outside = int(((neighbours + horizon > train_end) | (neighbours < lookback)).sum())
    if outside:
        ledger.find(
            "leak",
            CHECK,
            group,
            name,
            f"{outside} of {neighbours.size} neighbours reach beyond the {train_end} train rows.",
            outside,
        )
    distance = np.abs(neighbours - teacher.query_starts[:, None, None])
    inside = int((distance < exclusion_zone(options, lookback, horizon)).sum())
    if inside:
        ledger.find(
            "leak",
            CHECK,
            group,
            name,
            f"{inside} of {neighbours.size} neighbours are nearer than exclusion '{options.exclusion}' "
            f"allows; the nearest is {int(distance.min())} steps away.",
            inside,
        )
    sharing = int((distance < horizon).sum())
    if sharing and options.exclusion == "self":
        ledger.find(
            "declared leak",
            CHECK,
            group,
            name,
            f"{sharing} of {neighbours.size} neighbours ({100 * sharing / neighbours.size:.1f} %) share "
            "target steps with their train query, as exclusion 'self' lets them.",
            sharing,
        )
