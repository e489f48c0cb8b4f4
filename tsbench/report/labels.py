"""What tables say in words: names of rows, the setting above them, the notes below them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from tsbench.bench.columns import changed_options
from tsbench.bench.records import Record
from tsbench.config import TRANSFERS, WHOLE_SERIES, CellSpec
from tsbench.registry import ONLINE_RETRIEVAL

LEAK = "†leak"
MISSING = "\N{EN DASH}"
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
OTHER_LEVELS = "‡"

METHOD_NAMES = {
    "origin": "Origin",
    "ts-memory": "TS-Memory",
    "raft": "RAFT",
    "ts-rag": "TS-RAG",
    "lora": "LoRA",
}
"""Methods that adapt a frozen forecaster, and that forecaster alone, as TS-Memory's paper writes them."""

_FORMS = {
    "closed-loop": "F-LLM",
    "open-loop": "F-LLM without feedback",
    "lora": "F-LLM, LoRA for feedback",
    "mlp": "F-LLM, MLP for the LLM",
    "fpt": "FPT",
}
_BASELINES = {
    "naive-last": "Repeat last",
    "naive-seasonal": "Seasonal naive",
    "naive2": "Naive2",
    "theta": "Theta",
    "auto-ets": "AutoETS",
    "auto-arima": "AutoARIMA",
    "dlinear": "DLinear",
    "nlinear": "NLinear",
    "patchtst": "PatchTST",
    "itransformer": "iTransformer",
    "timesnet": "TimesNet",
    "timemixer": "TimeMixer",
    "fedformer": "FEDformer",
    "informer": "Informer",
    "autoformer": "Autoformer",
}
_SCORES = {"crps": "CRPS", "mae": "MAE", "mse": "MSE"}
_EXCLUSIONS = {
    "self": "only the query's own window is barred; most neighbours then hold part of the answer (the paper)",
    "target": "the neighbour's future shares no step with the query's, |Δt| ≥ H (default)",
    "window": "neither context nor future of the neighbour shares a step with the query's, |Δt| ≥ L + H",
}
_ROLLOUTS = {
    "median": "past a backbone's own block its median is fed back; intervals forecast block by block stop "
    "widening there",
    "expand": "past a backbone's own block each quantile is fed back as a path of its own",
}


def is_transfer(spec: CellSpec) -> bool:
    """Whether a cell learned from other data, or for another backbone, than it is scored on."""
    return bool(spec.train_dataset or spec.plugmem_from)


def is_leak(spec: CellSpec) -> bool:
    """Whether something was chosen on the test split."""
    return spec.options is not None and spec.options.alpha_policy == "oracle"


def method_label(spec: CellSpec, with_precision: bool = False) -> str:
    """Name of a row: the method, then what differs from its defaults, then the leakage mark.

    What precision a method takes by default depends on the machine, supervised networks apart, so it is named
    where it is asked for: see `unlike_in_precision`.
    """
    changed = changed_options(spec)
    parts = []
    if spec.method in ("origin", "supervised"):
        name = _BASELINES.get(spec.backbone, METHOD_NAMES["origin"])
    elif changed.get("ablation") == "no-retrieval":
        name = "No-retrieval control"
        del changed["ablation"]
    elif spec.method == "flame":
        name = "FLAME fine-tuned"
    elif spec.f_llm is not None:
        name = _FORMS[spec.f_llm.form]
        changed.pop("form", None)
    else:
        name = METHOD_NAMES.get(spec.method, spec.method)
    oracle = f" (oracle {ALPHA}) {LEAK}" if changed.pop("alpha_policy", None) == "oracle" else ""
    for option, value in changed.items():
        if option == "ablation":
            parts.append(str(value))
        elif option == "alpha_criterion":
            parts.append(f"{ALPHA} by {_SCORES[str(value)]}")
        else:
            parts.append(f"{option.replace('_', ' ').replace('plugmem', 'PlugMem')} {value}")
    if spec.train_stride:
        parts.append(f"train stride {spec.train_stride}")
    if with_precision or (spec.method == "supervised" and spec.precision != "fp32"):
        parts.append(spec.precision)
    if spec.plugmem_from:
        parts.append(f"from {spec.plugmem_from}")
    usual = TRANSFERS[spec.dataset].source if spec.f_llm and spec.dataset in TRANSFERS else None
    if spec.train_dataset and spec.train_dataset != usual:
        parts.append(f"trained on {' + '.join(spec.train_datasets)}")
    expand = " (expand roll-out)" if spec.rollout == "expand" else ""
    return ", ".join([name, *parts]) + expand + oracle


def row_rank(spec: CellSpec) -> int:
    """Place of a row in a table: baselines first, leaking rows last."""
    if is_baseline(spec):
        return list(_BASELINES).index(spec.backbone)
    control = spec.options is not None and spec.options.ablation == "no-retrieval"
    control |= spec.f_llm is not None and spec.f_llm.form != "closed-loop"
    place = 3 if is_leak(spec) else 0 if spec.method == "origin" else 1 if control else 2
    return len(_BASELINES) + place


def is_baseline(spec: CellSpec) -> bool:
    """Whether it is a forecast without pre-training, whose name says all."""
    return spec.method in ("origin", "supervised") and spec.backbone in _BASELINES


def of_collection(record: Record) -> bool:
    """Whether its scores are those of a collection of series (M3, M4)."""
    return "mase" in record.metrics


def lookback_label(spec: CellSpec) -> str:
    """Context steps of a cell on a collection."""
    return "all" if spec.lookback >= WHOLE_SERIES else str(spec.lookback)


def backbone_label(spec: CellSpec) -> str:
    """The backbone, with the weights where they are not the registered ones."""
    return f"{spec.backbone} ({spec.checkpoint})" if spec.checkpoint else spec.backbone


def devices_label(records: Iterable[Record]) -> str:
    """The devices that records were made on."""
    return "; ".join(sorted({record.provenance.device for record in records}))


def unlike_in_precision(specs: Iterable[CellSpec]) -> list[bool]:
    """Whether another cell goes by the same name and differs in its precision; one for each cell."""
    names = [(method_label(spec), backbone_label(spec), spec.precision) for spec in specs]
    precisions: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for *name, precision in names:
        precisions[tuple(name)].add(precision)
    return [len(precisions[name[:-1]]) > 1 for name in names]


def setting_label(records: Sequence[Record], levels: tuple[float, ...]) -> str:
    """The line above a table: everything that must be equal for its scores to compare, and the devices."""
    record, spec = records[0], records[0].spec
    series = of_collection(record)
    scored = f"{record.windows} of {record.windows_total} {'series' if series else 'windows'}"
    crps = f"CRPS pooled over {levels_label(levels)}" if levels else "no CRPS: point forecasts"
    parts = [
        f"{spec.dataset}, H = {spec.horizon}" + ("" if series else f", L = {spec.lookback}"),
        f"{scored} (stride {record.test_stride})",
        *([f"incomplete last batch of {spec.drop_last} dropped"] if spec.drop_last else []),
        f"profile {spec.profile}",
        devices_label(records),
        *(["official test part"] if series else ["test split", crps]),
        f"data {record.provenance.data_sha256[:8]}",
    ]
    return " · ".join(parts)


def levels_label(levels: tuple[float, ...]) -> str:
    """Quantile levels, abbreviated when there are many."""
    shown = [f"{level:g}" for level in levels]
    if len(shown) > 5:
        shown = [*shown[:2], "…", shown[-1]]
    return f"{len(levels)} level{'s' if len(levels) > 1 else ''} {', '.join(shown)}"


def spread(values: Sequence[float], form: str | None = None) -> str:
    """Mean of the seeds, with the standard deviation where there are several.

    Args:
        values: One per seed.
        form: Format of a number; None for four significant digits of the mean.

    Returns:
        Such as "0.3875 ± 0.0012"; "–" where a value is missing or there is none.
    """
    mean = float(np.mean(values)) if len(values) else math.nan
    if not math.isfinite(mean):
        return MISSING
    form = form or _four_digits(mean)
    deviation = f" ± {np.std(values, ddof=1):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean:{form}}{deviation}"


def _four_digits(value: float) -> str:
    """Format with four significant digits, plain from a ten-thousandth on."""
    exponent = int(f"{value:.3e}".partition("e")[2]) if value else -1
    return f".{max(0, 3 - exponent)}f" if exponent >= -4 else ".3e"


def notes(records: Sequence[Record], levels: tuple[float, ...]) -> tuple[str, ...]:
    """What a reader must know to read a table of these records, `levels` being those of its CRPS."""
    first = records[0]
    found = [
        f"Coverage: {first.windows} of {first.windows_total} test windows "
        f"({100 * first.windows / first.windows_total:.3g} %)."
    ]
    if any(record.spec.method != "origin" for record in records):
        found.append("ΔMSE: percent against Origin on the same backbone and roll-out; negative is better.")
    found += method_notes(records)
    others = sorted({r.levels for r in records if r.levels and r.levels != levels})
    if others:
        kinds = "; ".join(map(levels_label, others))
        found.append(f"{OTHER_LEVELS}: CRPS over {kinds}; it does not compare with the other rows.")
    return (*found, *_common_notes(records))


def method_notes(records: Sequence[Record]) -> list[str]:
    """How the methods of these records chose, retrieved and rolled out."""
    specs = [record.spec for record in records]
    memories = [spec.options for spec in specs if spec.options is not None]
    found = []
    online = [METHOD_NAMES[name] for name in ONLINE_RETRIEVAL if name in {spec.method for spec in specs}]
    chosen = {o.alpha_criterion for o in memories if o.alpha_policy == "val"} | {"crps" for _ in online}
    criteria = sorted(_SCORES[criterion] for criterion in chosen)
    if criteria:
        found.append(f"{ALPHA}: fusion weight, chosen on the validation split by {' or '.join(criteria)}.")
    if any(map(is_leak, specs)):
        found.append(
            f"{LEAK}: {ALPHA} was chosen on the test split itself. Such a row bounds what tuning could "
            "reach; it is no result and is never best."
        )
    exclusions = {o.teacher.exclusion for o in memories if o.ablation != "no-retrieval"}
    found += [f"Exclusion {name}: {text}." for name, text in _EXCLUSIONS.items() if name in exclusions]
    if any(spec.plugmem_from for spec in specs):
        found.append("From: the backbone whose memory module is fused with the row's own.")
    if any(spec.train_datasets for spec in specs):
        found.append(
            "Trained on: the data sets learned from, in place of this one's train split; "
            f"{ALPHA} is chosen on this one's validation split all the same."
        )
    if any(o.ablation == "no-retrieval" for o in memories):
        found.append("No-retrieval control: the same memory module trained on the task loss alone.")
    if online:
        found.append(
            f"{' and '.join(online)}: retrieval at forecast time, nothing trained; the number of neighbours "
            "and RAFT's temperature are chosen on the validation split too."
        )
    rollouts = {spec.rollout for spec in specs if not is_baseline(spec)}
    found += [f"Roll-out {name}: {text}." for name, text in _ROLLOUTS.items() if name in rollouts]
    return found


def collection_notes(records: Sequence[Record]) -> tuple[str, ...]:
    """What a reader must know to read a table of cells on one collection."""
    first = records[0]
    scores = first.metrics
    found = [
        f"Coverage: {first.windows} of {first.windows_total} series "
        f"({100 * first.windows / first.windows_total:.3g} %), each forecast once, from its training part.",
        "L: values of a series that its forecast is made from, at most; all: the whole training part.",
        "SMAPE: 0 to 200. MASE: in units of the training part's seasonal-naive error. Means over series.",
        "OWA: mean of the ratios to Naive2 on the same series "
        f"(SMAPE {scores['smape_naive2']:.3f}, MASE {scores['mase_naive2']:.3f}); below 1 is better than it.",
    ]
    if scores["series_without_mase"]:
        found.append(f"MASE leaves out {scores['series_without_mase']:.0f} series that have none.")
    sources = sorted({record.spec.train_dataset for record in records if record.spec.train_dataset})
    if sources:
        found.append(f"F-LLM: zero-shot, trained on the training parts of {' or '.join(sources)}.")
    return (*found, *_common_notes(records))


def _common_notes(records: Sequence[Record]) -> list[str]:
    """Notes that tables of any data need."""
    found = []
    if len({record.spec.seed for record in records}) > 1:
        found.append("±: sample standard deviation over seeds.")
    versions = sorted({record.provenance.code_version for record in records})
    if len(versions) > 1:
        found.append(f"Rows come from several code versions: {', '.join(versions)}.")
    return found
