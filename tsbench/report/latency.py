"""Tables of what a query costs: a stage per column, as in TS-Memory's Tables 4, 11 and 12."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsbench.bench.latency_records import Measurement, MethodCost
from tsbench.metrics.bootstrap import Interval, median_interval
from tsbench.report.cells import Cell, Table
from tsbench.report.labels import METHOD_NAMES, MISSING

_PERCENTILES = (50, 90, 99)
UNTRAINED_NOTE = (
    "Nothing was trained: PlugMem and LoRA's adapters have random weights, retrieval a fixed number of "
    "neighbours, α is 0.5."
)


def latency_tables(measurements: Iterable[Measurement]) -> list[Table]:
    """Tables of measurements, each of one device, batch size and setting; rows are horizons x methods.

    Per setting the time of a query, then parameters and memory; whole evaluations stand by themselves.

    Args:
        measurements: Any; later ones come below earlier ones of the same horizon.
    """
    settings: dict[tuple[Any, ...], list[Measurement]] = defaultdict(list)
    for measured in sorted(measurements, key=lambda each: (each.spec.horizon, each.provenance.created)):
        spec, made = measured.spec, measured.provenance
        varied = {"methods", "horizon", "repeats", "warm_up"}
        settings[
            (*(made.device, made.data_sha256), spec.model_dump_json(exclude=varied | {"device"}))
        ].append(measured)
    tables = []
    for _, group in sorted(settings.items(), key=lambda item: item[0]):
        if group[0].spec.batch is None:
            tables.append(_evaluation_table(group))
        else:
            tables += [_query_table(group), _footprint_table(group)]
    return tables


def cost_figures(measured: Measurement, method: str) -> dict[str, Any]:
    """The figures of one method at full precision: milliseconds per query, and where they come from."""
    cost, spec = measured.costs[method], measured.spec
    totals = _per_query(measured, cost)
    against = _against_origin(measured, method)
    settings: dict[str, Any] = dict(cost.settings)
    return {
        "method": method,
        "device": measured.provenance.device,
        **spec.model_dump(include={"backbone", "dataset", "horizon", "lookback", "batch", "threads"}),
        **spec.model_dump(include={"precision", "compiled", "random_init", "rollout", "checkpoint"}),
        "rounds": len(totals),
        "queries": measured.queries,
        **{f"{stage}_ms": float(np.mean(ms)) / measured.queries for stage, ms in cost.stages.items()},
        "total_ms": float(totals.mean()),
        "retrieval_fraction": _share(cost, "retrieval"),
        **{f"p{level}_ms": float(np.percentile(totals, level)) for level in _PERCENTILES},
        "against_origin_ms": against.value if against else None,
        "against_origin_ms_low": against.low if against else None,
        "against_origin_ms_high": against.high if against else None,
        "untrained": cost.untrained,
        "parameters": cost.parameters,
        **settings,
        **{name: value for name, value in vars(measured.provenance).items() if name != "versions"},
        # After the provenance: the peak memory is that of the method's own process.
        **(vars(cost.cold_start) if cost.cold_start else {}),
        "plugmem": spec.plugmem,
        "key": measured.key,
    }


def _query_table(group: list[Measurement]) -> Table:
    def row(measured: Measurement, method: str) -> tuple[str, ...]:
        figures = cost_figures(measured, method)
        stages = (f"{figures[f'{stage}_ms']:.3f}" for stage in ("retrieval", "forward", "fusion", "total"))
        percentiles = (f"{figures[f'p{level}_ms']:.3f}" for level in _PERCENTILES)
        share = f"{100 * figures['retrieval_fraction']:.1f} %"
        return *stages, share, *percentiles, *_overhead(measured, method)

    spec = group[0].spec
    rounds = sorted({len(cost.totals) for measured in group for cost in measured.costs.values()})
    return Table(
        title=_title("Milliseconds per query", group[0], f"batch {spec.batch}"),
        columns=(
            *("H", "Method", "Retrieval", "Forward", "Fusion", "Total", "Retrieval share"),
            *(f"p{level}" for level in _PERCENTILES),
            *("Against Origin, ms", "Against Origin, %", "Device"),
        ),
        rows=_rows(group, row),
        notes=(
            "A query is one channel of one window. Stages are means and add up to the total; forward is that "
            "of all networks. Percentiles are those of "
            f"{' or '.join(map(str, rounds))} round{'s' if rounds[-1] > 1 else ''}, each with other queries, "
            "the same for all methods.",
            "Against Origin: median of the differences round by round, with its 95 % bootstrap interval; "
            "in percent of Origin's median.",
            *([UNTRAINED_NOTE] if any(set(measured.costs) - {"origin"} for measured in group) else []),
        ),
        data=tuple(cost_figures(measured, method) for measured in group for method in measured.costs),
    )


def _footprint_table(group: list[Measurement]) -> Table:
    def row(measured: Measurement, method: str) -> tuple[str, ...]:
        cost = measured.costs[method]
        start = cost.cold_start
        return (
            f"{cost.parameters:,}" if cost.parameters else MISSING,
            _number(cost.settings.get("known_windows"), ",.0f"),
            _number(cost.settings.get("known_mb"), ",.1f"),
            _number(start.load_s if start else None, ".2f"),
            _number(start.prepare_s if start else None, ".2f"),
            _number(start.first_forecast_s if start else None, ".3f"),
            _number(start.peak_rss_mb if start else None, ",.0f"),
            _number(start.peak_device_mb if start else None, ",.0f"),
        )

    return Table(
        title=_title("Parameters, memory, cold start", group[0], f"batch {group[0].spec.batch}"),
        columns=(
            *("H", "Method", "Parameters", "Windows to search", "Their keys, MiB", "Load, s", "Prepare, s"),
            *("First forecast, s", "Peak host memory, MiB", "Peak GPU memory, MiB", "Device"),
        ),
        rows=_rows(group, row),
        notes=(
            "Load (of the backbone), prepare (the method around it; embeddings come from the cache), first "
            "forecast and memory are those of a process of its own per method (--cold-start).",
        ),
    )


def _evaluation_table(group: list[Measurement]) -> Table:
    stages = ("retrieval", "forward", "fusion", "other")

    def row(measured: Measurement, method: str) -> tuple[str, ...]:
        cost = measured.costs[method]
        seconds = (f"{np.mean(cost.stages[stage]) / 1e3:.2f}" for stage in stages)
        total, share = np.mean(cost.totals) / 1e3, f"{100 * _share(cost, 'retrieval'):.1f} %"
        origin = measured.costs.get("origin")
        change = MISSING
        if origin is not None and method != "origin":
            change = f"{100 * (total * 1e3 / np.mean(origin.totals) - 1):+.1f} %"
        return f"{measured.queries:,}", *seconds, f"{total:.2f}", share, change

    return Table(
        title=_title("Seconds per evaluation", group[0], f"test stride {group[0].spec.test_stride}"),
        columns=(
            *("H", "Method", "Queries", "Retrieval", "Forward", "Fusion", "Other", "Total"),
            *("Retrieval share", "Against Origin", "Device"),
        ),
        rows=_rows(group, row),
        notes=(
            "The same test windows for every method, nothing cached. Other: contexts are cut out, "
            "forecasts scored.",
            *([UNTRAINED_NOTE] if any(set(measured.costs) - {"origin"} for measured in group) else []),
        ),
        data=tuple(cost_figures(measured, method) for measured in group for method in measured.costs),
    )


def _rows(group: list[Measurement], row: Any) -> tuple[tuple[Cell, ...], ...]:
    """Horizon and method, what `row` says, and the device."""
    return tuple(
        tuple(
            Cell(text)
            for text in (
                str(measured.spec.horizon),
                METHOD_NAMES.get(method, method),
                *row(measured, method),
                measured.provenance.device,
            )
        )
        for measured in group
        for method in measured.costs
    )


def _title(what: str, measured: Measurement, also: str) -> str:
    spec = measured.spec
    weights = " (random weights)" if spec.random_init else f" ({spec.checkpoint})" if spec.checkpoint else ""
    parts = [
        what,
        f"{spec.dataset}, L = {spec.lookback}",
        f"{spec.backbone}{weights}",
        f"PlugMem {spec.plugmem}",
        also,
        spec.precision + (", compiled" if spec.compiled else ""),
        *([f"roll-out {spec.rollout}"] if spec.rollout != "median" else []),
        f"{spec.threads} thread{'s' if spec.threads > 1 else ''}",
        measured.provenance.device,
    ]
    return " · ".join(parts)


def _per_query(measured: Measurement, cost: MethodCost) -> NDArray[np.float64]:
    """Milliseconds per query of each round."""
    return np.array(cost.totals) / measured.queries


def _share(cost: MethodCost, stage: str) -> float:
    return sum(cost.stages[stage]) / sum(cost.totals)


def _against_origin(measured: Measurement, method: str) -> Interval | None:
    """Median difference to Origin in the same round, ms per query; None without Origin, or for itself."""
    origin = measured.costs.get("origin")
    if origin is None or method == "origin":
        return None
    return median_interval(_per_query(measured, measured.costs[method]) - _per_query(measured, origin))


def _overhead(measured: Measurement, method: str) -> tuple[str, str]:
    against = _against_origin(measured, method)
    if against is None:
        return MISSING, MISSING
    reference = float(np.median(_per_query(measured, measured.costs["origin"])))
    difference = f"{against.value:+.3f}"
    if np.isfinite(against.low):  # there were several rounds
        difference += f" [{against.low:+.3f}, {against.high:+.3f}]"
    return difference, f"{100 * against.value / reference:+.1f} %"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else f"{value:{form}}"
