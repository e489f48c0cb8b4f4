"""A folder of results with something for every figure, written in a moment."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from tsbench.bench.diagnoses import Diagnosis, save_diagnosis
from tsbench.bench.latency_records import Measurement, MethodCost, save_measurement
from tsbench.bench.records import Details, FusionCurves, Provenance, Record, SampleForecasts
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, FLlmOptions, LatencySpec, TsMemoryOptions
from tsbench.methods.f_llm_stability import Band, Loop, Slope, Stability

DECILES = tuple(round(0.1 * step, 1) for step in range(1, 10))
HORIZONS = (24, 48)
CHANNELS = ("HUFL", "MULL", "OT")
ALPHA = np.linspace(0, 1, 21)
MADE = Provenance(
    data_sha256="d" * 64,
    backbone_identity="toy-v1",
    code_version="0.1.0",
    versions={},
    device="Some CPU",
    threads=1,
    created="2026-01-02T03:04:05Z",
    wall_s=1.0,
    peak_rss_mb=100.0,
)


def cell(method: str, horizon: int, backbone: str = "flame-small", **fields: Any) -> CellSpec:
    shared = {"method": method, "backbone": backbone, "dataset": "ETTh1", "horizon": horizon}
    return CellSpec.model_validate(shared | fields)


def memory(horizon: int, plugmem: str = "tiny", ablation: str = "none", **fields: Any) -> CellSpec:
    options = TsMemoryOptions.model_validate({"plugmem": plugmem, "ablation": ablation})
    return cell("ts-memory", horizon, options=options, **fields)


CELLS: list[tuple[CellSpec, float]] = [
    (spec, mse + horizon / 1000)
    for horizon in HORIZONS
    for spec, mse in (
        (cell("origin", horizon, "naive-seasonal"), 0.60),
        (cell("origin", horizon), 0.40),
        (cell("raft", horizon), 0.39),
        (memory(horizon), 0.38),
        (memory(horizon, plugmem="small"), 0.37),
        (memory(horizon, ablation="no-gate"), 0.41),
        (memory(horizon, ablation="no-retrieval"), 0.385),
        (memory(horizon, train_dataset="ETTh2"), 0.42),
    )
]


def curves(mse: float) -> FusionCurves:
    """MSE with its lowest point at a weight of 0.3 on validation and 0.5 on test."""
    val = dict.fromkeys(("mse", "mae", "crps"), mse + (ALPHA - 0.3) ** 2 / 5)
    test = dict.fromkeys(("mse", "mae", "crps"), mse + (ALPHA - 0.5) ** 2 / 5)
    return FusionCurves(ALPHA, val, test)


def details(horizon: int, levels: tuple[float, ...]) -> Details:
    """A daily cycle with noise, forecast without noise; intervals that are too narrow."""
    rng = np.random.default_rng(0)
    windows, context = 4, 2 * horizon
    time = np.arange(-context, horizon)
    phase = rng.uniform(0, 6, (windows, len(CHANNELS), 1))
    cycle = np.sin(2 * np.pi * time / 24 + phase)
    values = (cycle + 0.3 * rng.standard_normal(cycle.shape)).astype(np.float32)
    spread = 0.2 * norm.ppf(levels or (0.5,))[:, None] * np.sqrt(1 + np.arange(horizon) / horizon)
    forecast = cycle[:, :, None, context:] + spread
    grown = np.linspace(0.2, 0.5, horizon, dtype=np.float32)
    return Details(
        mse=grown,
        mae=np.sqrt(grown),
        pinball=grown if levels else np.full_like(grown, np.nan),
        abs_target=np.full_like(grown, 0.8),
        levels=np.array(levels),
        below=norm.cdf(norm.ppf(levels) / 1.5) if levels else np.array([]),
        samples=SampleForecasts(
            start=np.arange(windows) * 100,
            time=np.datetime64("2018-02-20T00:00:00") + np.arange(windows) * np.timedelta64(360_000, "s"),
            channels=CHANNELS,
            context=values[..., :context],
            target=values[..., context:],
            forecast=forecast.astype(np.float32),
        ),
    )


def record(spec: CellSpec, mse: float, **fields: Any) -> Record:
    fused = spec.method in ("raft", "ts-memory")
    shared = {
        "key": spec.content_hash("data"),
        "spec": spec,
        "metrics": {"mse": mse, "mae": mse, "crps": mse},
        "windows": 700,
        "windows_total": 2800,
        "test_stride": 4,
        "levels": DECILES,
        "alpha": 0.3 if fused else None,
        "provenance": MADE,
        "curves": curves(mse) if fused else None,
        "details": details(spec.horizon, DECILES),
    }
    return Record(**shared | fields)


def diagnosis() -> Diagnosis:
    def loop(scale: float) -> Loop:
        values = scale * np.array([0.5, 0.75])
        return Loop(Band(values, values - 0.1, values + 0.1), values, np.ones((2, 3)), np.eye(2, 3))

    stability = Stability(
        windows=40,
        windows_total=80,
        channels=3,
        channels_total=6,
        block=4,
        open_loop=loop(1.0),
        closed_loop=loop(0.8),
        difference=Band(*(np.array([-0.1, -0.15]) for _ in range(3))),
        steps=(1, 2),
        observer_gain=0.375,
        slopes=(Slope("none", 2.5, 1.25),),
        limit=1.0,
        rho=0.25,
        epsilon=0.5,
        bound=np.array([0.5, 0.625]),
    )
    spec = cell("f-llm", 150, "opt-1.3b", lookback=672, f_llm=FLlmOptions())
    return Diagnosis("k" * 64, spec, {"device": "Some CPU"}, stability)


def measurement(horizon: int, **fields: Any) -> Measurement:
    """Origin takes 20 ms for a query, RAFT 25, TS-Memory 30, each with one round a tenth slower."""
    spec = LatencySpec.model_validate(
        {
            "methods": ("origin", "raft", "ts-memory"),
            "backbone": "flame-small",
            "dataset": "ETTh1",
            "horizon": horizon,
            "plugmem": "tiny",
            "threads": 1,
        }
        | fields
    )

    def cost(milliseconds: float) -> MethodCost:
        rounds = [milliseconds, milliseconds, 1.1 * milliseconds]
        return MethodCost({"retrieval": [0.0] * 3, "forward": rounds, "fusion": [0.0] * 3}, 1000, False, {})

    costs = {"origin": cost(20), "raft": cost(25), "ts-memory": cost(30)}
    return Measurement(f"{horizon}" * 12, spec, 1, costs, MADE)


def readings() -> list[dict[str, Any]]:
    """As benchmarks/perf/retrieval_scaling.py writes them."""
    shared = {"p90_ms": 1.0, "recall": None, "build_s": 0.0, "device": "Some CPU", "threads": 1}
    return [
        {"size": size, "dimension": dimension, "method": method, "p50_ms": size / 1000 * slope} | shared
        for size in (1_000, 10_000, 100_000)
        for method, dimension, slope in (
            ("flat, exact", 64, 1),
            ("flat, exact", 768, 9),
            ("RAFT, exact", 896, 12),
        )
    ]


def write_results(root: Path) -> None:
    """Write the cells of CELLS, two measurements of latency, a diagnosis and the readings."""
    store = ResultsStore(root)
    for spec, mse in CELLS:
        store.save(record(spec, mse))
    for horizon in HORIZONS:
        save_measurement(root, measurement(horizon))
    save_diagnosis(root / "stability" / "ETTh1" / "150-f-llm.json", diagnosis())
    (root / "latency" / "retrieval-scaling.json").write_text(json.dumps(readings()))
