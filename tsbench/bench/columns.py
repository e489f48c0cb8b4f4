"""The columns of a stored record, and how a cell and its birth certificate fill them."""

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from tsbench.bench.records import Record
from tsbench.config import TRANSFERS, CellSpec, TsMemoryOptions


@dataclass(frozen=True)
class Column:
    """A column of the record files: its type and what it holds."""

    dtype: type[pl.DataType]
    meaning: str


COLUMNS: dict[str, Column] = {
    "key": Column(pl.String, "content hash of the cell, the data and the protocol"),
    "protocol": Column(pl.Int64, "version of the evaluation protocol"),
    "method": Column(pl.String, "method"),
    "variant": Column(pl.String, "options that differ from their defaults, as key=value;key=value"),
    "backbone": Column(pl.String, "backbone"),
    "dataset": Column(pl.String, "data set"),
    "horizon": Column(pl.Int64, "forecast steps"),
    "lookback": Column(pl.Int64, "context steps"),
    "seed": Column(pl.Int64, "seed of everything random"),
    "profile": Column(pl.String, "how much of the protocol was run"),
    "metric": Column(pl.String, "name of the score, diagnostic or cost"),
    "value": Column(pl.Float64, "its value; NaN where it is undefined"),
    "windows": Column(pl.Int64, "test windows scored"),
    "windows_total": Column(pl.Int64, "test windows at stride 1, none dropped"),
    "test_stride": Column(pl.Int64, "steps between scored windows"),
    "drop_last": Column(pl.Int64, "batch size of a loader that dropped its last test batch; null: none did"),
    "precision": Column(pl.String, "number format of the memory module's forward passes"),
    "rollout": Column(pl.String, "how the backbone extends past its own block"),
    "checkpoint": Column(pl.String, "weights that replace the registered ones; null: none"),
    "alpha": Column(pl.Float64, "fusion weight used; null where nothing is fused"),
    "alpha_policy": Column(pl.String, "split the fusion weight was chosen on; oracle: the test split"),
    "alpha_criterion": Column(pl.String, "score that chose it"),
    "exclusion": Column(pl.String, "train windows that may not be neighbours of a train query"),
    "recipe": Column(pl.String, "training objective"),
    "ablation": Column(pl.String, "part of the objective left out"),
    "plugmem": Column(pl.String, "size of the memory module"),
    "levels": Column(pl.String, "quantile levels scored, JSON array; empty for point forecasts"),
    "device": Column(pl.String, "device name"),
    "threads": Column(pl.Int64, "CPU threads PyTorch used"),
    "versions": Column(pl.String, "versions of the packages that can move a score, JSON object"),
    "data_sha256": Column(pl.String, "checksum of the data set's source"),
    "backbone_identity": Column(pl.String, "name, weights hash and roll-out kind of the backbone"),
    "code_version": Column(pl.String, "version of tsbench, with the commit where there is one"),
    "created": Column(pl.String, "UTC time the cell finished, ISO 8601"),
    "wall_s": Column(pl.Float64, "seconds the cell took, with what it reused not counted"),
    "peak_rss_mb": Column(pl.Float64, "peak resident memory of the process, MiB"),
    "spec": Column(pl.String, "the whole specification of the cell, JSON object"),
}
"""Columns of a record file, in order. All but `metric` and `value` repeat in every row of a file."""


def option_values(options: TsMemoryOptions) -> dict[str, str | int | float]:
    """Options by name, those of the teacher on the same level."""
    values = options.model_dump(mode="json")
    teacher: dict[str, str | int | float] = values.pop("teacher")
    return teacher | values


def changed_options(spec: CellSpec) -> dict[str, str | int | float]:
    """Options of the cell that differ from their defaults."""
    if spec.f_llm is not None:
        changed = spec.f_llm.model_dump(mode="json", exclude_defaults=True)
        if spec.train_dataset and changed.get("patch") == TRANSFERS[spec.dataset].patch:
            del changed["patch"]
        return changed
    if spec.options is None:
        return {}
    defaults = option_values(TsMemoryOptions())
    return {name: value for name, value in option_values(spec.options).items() if value != defaults[name]}


def variant(spec: CellSpec) -> str:
    """`changed_options` as "key=value;key=value"; empty when there are none."""
    return ";".join(f"{name}={value}" for name, value in changed_options(spec).items())


def certificate(record: Record) -> dict[str, Any]:
    """Every column of COLUMNS but `metric` and `value`, in order."""
    spec, made = record.spec, record.provenance
    options = option_values(spec.options) if spec.options else {}
    known = {
        **options,
        **spec.model_dump(exclude={"options", "f_llm"}),
        **vars(made),
        "key": record.key,
        "variant": variant(spec),
        "windows": record.windows,
        "windows_total": record.windows_total,
        "test_stride": record.test_stride,
        "alpha": record.alpha,
        "levels": json.dumps(record.levels),
        "versions": json.dumps(made.versions, sort_keys=True),
        "spec": spec.model_dump_json(),
    }
    return {name: known.get(name) for name in COLUMNS if name not in ("metric", "value")}
