"""Where a figure comes from, in words and values, for the page's dialog."""

import json
from collections.abc import Iterable, Sequence

from tsbench.bench.latency_records import Measurement
from tsbench.bench.records import Failure, Provenance, Record
from tsbench.config import CellSpec
from tsbench.report.labels import backbone_label, method_label

Facts = list[tuple[str, str]]


def provenance_facts(
    records: Iterable[Record], failures: Iterable[Failure], measurements: Iterable[Measurement]
) -> dict[str, Facts]:
    """The birth certificate of each record and measurement, and what is known of failed cells, by key."""
    return {
        **{failed.key: _cell_facts(failed.spec) for failed in failures},
        **{record.key: _record_facts(record) for record in records},
        **{measured.key: _measurement_facts(measured) for measured in measurements},
    }


def _cell_facts(spec: CellSpec) -> Facts:
    return [
        ("Cell", f"{method_label(spec)} on {backbone_label(spec)}"),
        ("Data", f"{spec.dataset}, H = {spec.horizon}, L = {spec.lookback}"),
        ("Seed", str(spec.seed)),
        ("Profile", spec.profile),
        ("Specification", spec.model_dump_json()),
    ]


def _record_facts(record: Record) -> Facts:
    return [
        *_cell_facts(record.spec),
        ("Scored", f"{record.windows} of {record.windows_total}, stride {record.test_stride}"),
        ("Scores", ", ".join(f"{name} {value:.6g}" for name, value in record.metrics.items())),
        ("Record", record.key),
        *_made(record.provenance),
    ]


def _measurement_facts(measured: Measurement) -> Facts:
    spec = measured.spec
    return [
        ("Timed", f"{', '.join(measured.costs)} on {spec.backbone}"),
        ("Data", f"{spec.dataset}, H = {spec.horizon}, L = {spec.lookback}"),
        ("Queries", f"{measured.queries} per round, {spec.repeats} rounds"),
        ("Measurement", measured.key),
        *_made(measured.provenance),
        ("Specification", spec.model_dump_json()),
    ]


def _made(made: Provenance) -> Facts:
    return [
        ("Data SHA-256", made.data_sha256),
        ("Backbone", made.backbone_identity),
        ("Code", made.code_version),
        ("Device", f"{made.device}, {made.threads} thread{'s' if made.threads > 1 else ''}"),
        ("Finished", made.created),
        ("Took", f"{made.wall_s:.1f} s, peak memory {made.peak_rss_mb:.0f} MiB"),
        ("Protocol", str(made.protocol)),
        ("Packages", ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))),
    ]


def as_json(value: object) -> str:
    """JSON that may stand inside a script element: no "<" ends it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def keys_of(data: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """Keys of the records or measurements that the data rows of a table name, in order, each once."""
    named = [str(row.get("sources") or row.get("key") or "") for row in data]
    return tuple(dict.fromkeys(key for keys in named for key in keys.split()))
