"""What timing leaves behind: every reading, with its birth certificate, as one JSON file per setting.

<root>/latency/<dataset>/<horizon>-<batch>-<backbone>-<key>.json
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from tsbench.bench.records import Provenance
from tsbench.bench.store import file_name, readable, write
from tsbench.config import LatencySpec, digest

_FORMAT = 1


@dataclass(frozen=True)
class ColdStart:
    """What a method costs a process that has done nothing else.

    Attributes:
        load_s: Seconds to load the backbone: its package is imported, its weights are read and hashed.
        prepare_s: Seconds to put the method around it: adapters, the memory module, or the index over the
            train windows, whose embeddings are read from the cache.
        first_forecast_s: Seconds of the first forecast, of one batch.
        peak_rss_mb: Peak resident memory of the process in MiB.
        peak_device_mb: Peak memory PyTorch had allocated on the GPU in MiB; None on a CPU.
    """

    load_s: float
    prepare_s: float
    first_forecast_s: float
    peak_rss_mb: float
    peak_device_mb: float | None


@dataclass(frozen=True)
class MethodCost:
    """The readings of one method.

    Attributes:
        stages: Milliseconds of each stage in each round: "retrieval", "forward" and "fusion"; of whole
            evaluations also "other". A round's stages add up to its time.
        parameters: Of all networks; None where they cannot be counted.
        untrained: Whether networks that the method trains had random weights.
        settings: What the method was timed with, such as its number of neighbours.
        cold_start: None where it was not measured.
    """

    stages: dict[str, list[float]]
    parameters: int | None
    untrained: bool
    settings: dict[str, float]
    cold_start: ColdStart | None = None

    @property
    def totals(self) -> list[float]:
        """Milliseconds of each round."""
        return [sum(spent) for spent in zip(*self.stages.values(), strict=True)]


@dataclass(frozen=True)
class Measurement:
    """Methods timed side by side.

    Attributes:
        key: Content hash of the setting, the data and the device; part of the file name.
        spec: What was asked for.
        queries: Contexts forecast per round, by every method.
        costs: By method, in the order asked for.
        provenance: Where the readings come from; the memory is that of the process with all methods in it.
    """

    key: str
    spec: LatencySpec
    queries: int
    costs: dict[str, MethodCost]
    provenance: Provenance


_JSON = TypeAdapter(Measurement)


def measurement_key(spec: LatencySpec, data_sha256: str, device: str) -> str:
    """Identity of a measurement: readings of another device, or of other data, are other ones."""
    return digest([_FORMAT, spec.model_dump(mode="json"), data_sha256, device])


def save_measurement(root: Path, measurement: Measurement) -> Path:
    """Write a measurement below the folder of the results, in place of an earlier one of the same setting.

    Raises:
        TsbenchError: The file cannot be written.
    """
    spec = measurement.spec
    batch = "evaluation" if spec.batch is None else f"batch{spec.batch}"
    name = f"{spec.horizon}-{batch}-{spec.backbone}-{measurement.key[:12]}.json"
    path = root / "latency" / file_name(spec.dataset) / file_name(name)
    write(path, _JSON.dump_json(measurement, indent=1) + b"\n")
    return path


def load_measurements(root: Path) -> list[Measurement]:
    """Read all measurements below the folder of the results, ordered by file name.

    Raises:
        TsbenchError: A file is damaged.
    """
    found = []
    for path in sorted(root.glob("latency/*/*.json")):
        with readable(path):
            found.append(_JSON.validate_json(path.read_bytes()))
    return found
