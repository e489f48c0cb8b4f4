"""Pairs of methods on identical test windows, each with its test and, in its family, a verdict."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsbench.bench.provenance import score_device
from tsbench.bench.records import Record, WindowScores
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec, TsMemoryOptions
from tsbench.metrics.bootstrap import Interval
from tsbench.metrics.overlap import disjoint_block, percent_change, relative_change
from tsbench.metrics.significance import DieboldMariano, benjamini_hochberg, diebold_mariano, holm
from tsbench.report.labels import (
    backbone_label,
    devices_label,
    is_baseline,
    is_leak,
    of_collection,
    spread,
)
from tsbench.report.tables import Row, comparable_rows

Metric = Literal["mse", "mae", "crps"]
Verdict = Literal["better", "worse", "inside the noise", "same forecast", "not tested"]

Reference = Literal["origin", "control"]

LEVEL = 0.05

_Key = tuple[tuple[str, str], str]
"""Of a suite: what its settings share, and the backbone."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One cell at all its seeds, with its errors window by window.

    Attributes:
        row: The cell.
        start: [W] first target rows.
        by_seed: [S, W] float64 errors; for CRPS the pinball loss, whose ratios between methods are those of
            the CRPS, the targets being the same.
        levels: Quantile levels of the CRPS; empty for other errors.
    """

    row: Row
    start: NDArray[np.int64]
    by_seed: NDArray[np.float64]
    levels: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The method, as tables call it."""
        return self.row.label

    @property
    def errors(self) -> NDArray[np.float64]:
        """[W]: the mean over seeds of each window's error."""
        mean: NDArray[np.float64] = self.by_seed.mean(axis=0)
        return mean


@dataclass(frozen=True, eq=False)
class Setting:
    """One data set and horizon of a suite: its rows on one list of windows."""

    dataset: str
    horizon: int
    scored: tuple[Scored, ...]


@dataclass(frozen=True, eq=False)
class Suite:
    """Settings that share lookback, profile, device and backbone; baselines stand in every backbone's.

    Attributes:
        label: What they share.
        settings: By data set and horizon.
        refused: What is not compared, and why.
    """

    label: str
    settings: tuple[Setting, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A method against a reference on identical windows.

    Attributes:
        ours: The method.
        reference: What it is compared with.
        block: Windows beyond which two share no target.
        change: Of the mean error in percent, negative is better, with its interval.
        by_seed: The same at each seed, against the reference at that seed where it has the same seeds.
        draws: [R] values it may have had with other test windows.
        test: Diebold-Mariano on the errors averaged over seeds.
    """

    ours: Scored
    reference: Scored
    block: int
    change: Interval
    by_seed: tuple[float, ...]
    draws: NDArray[np.float64]
    test: DieboldMariano


@dataclass(frozen=True, eq=False)
class Family:
    """Comparisons that are corrected together, with a verdict on each.

    Attributes:
        comparisons: In the order they are printed.
        p_holm: Holm's corrected p-value of each; NaN where nothing was tested.
        p_bh: Benjamini and Hochberg's.
        verdicts: See `verdict`.
    """

    comparisons: tuple[Comparison, ...]
    p_holm: tuple[float, ...]
    p_bh: tuple[float, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def tested(self) -> int:
        """Comparisons with a p-value: what Holm corrects for."""
        return int(np.isfinite(self.p_holm).sum())


def suites(records: Iterable[Record], store: ResultsStore, metric: Metric) -> list[Suite]:
    """Read the errors of each window, and put together what may be compared.

    Left out are collections, which have no windows, rows that leak, rows without the score, and settings in
    which nothing is adapted, unless that is all there is. Where a data set and horizon have several settings,
    such as two test strides, the one with the most methods counts, then the one with the most windows.

    Args:
        records: Chosen cells, as `ResultsStore.records` gives them.
        store: Where their windows are.
        metric: Which errors.

    Raises:
        TsbenchError: A file is damaged.
    """
    settings: dict[_Key, list[Setting]] = defaultdict(list)
    refused: dict[_Key, list[str]] = defaultdict(list)
    for suite, rows, elsewhere in _fullest(records):
        spec = rows[0].spec
        scored: list[Scored] = []
        notes = [f"{row.label}: scored on other windows ({_covered(row)})" for row in elsewhere]
        for row in rows:
            found = read_errors(row, store, metric)
            if isinstance(found, Scored) and scored and not np.array_equal(found.start, scored[0].start):
                found = f"scored on other windows than {scored[0].name}"
            if isinstance(found, Scored):
                scored.append(found)
            else:
                notes.append(f"{row.label}: {found}")
        refused[suite] += [f"{_place(spec)}: {note}." for note in notes]
        if scored:
            settings[suite].append(Setting(spec.dataset, spec.horizon, tuple(scored)))
    with_backbone = {shared for shared, backbone in settings if backbone}
    return [
        Suite(
            " · ".join(filter(None, (backbone, shared[0], _devices(found)))),
            _with_adapted(found),
            tuple(refused[shared, backbone]),
        )
        for (shared, backbone), found in settings.items()
        if backbone or shared not in with_backbone
    ]


def _fullest(records: Iterable[Record]) -> Iterator[tuple[_Key, list[Row], list[Row]]]:
    """Each suite's rows at each data set and horizon, and its adapted rows that were scored elsewhere alone.

    Of several settings the one with the most methods on the suite's backbone, then the most windows.
    """
    settings: dict[tuple[*_Key, str], list[tuple[list[Row], list[Row]]]] = defaultdict(list)
    for rows in comparable_rows(r for r in records if not of_collection(r) and not is_leak(r.spec)):
        # a stride given and the profile's own may be the same windows
        own = {(same_cell(row.spec), row.weights, row.records[0].levels): row for row in rows}
        for backbone in dict.fromkeys(map(_backbone, own.values())):
            beside = [row for row in own.values() if _backbone(row) in ("", backbone)]
            ours = [row for row in beside if _backbone(row) == backbone]
            settings[_shared(rows[0]), backbone, _place(rows[0].spec)].append((ours, beside))
    for (shared, backbone, _), found in settings.items():
        chosen = max(found, key=lambda each: (len(each[0]), each[0][0].records[0].windows))
        names = {row.label for row in chosen[0]}
        left = {row.label: row for ours, _ in found for row in ours if is_adapted(row.spec)}
        yield (shared, backbone), chosen[1], [row for name, row in left.items() if name not in names]


def _covered(row: Row) -> str:
    record = row.records[0]
    return f"{record.windows} of {record.windows_total}"


def _with_adapted(settings: list[Setting]) -> tuple[Setting, ...]:
    """Those settings in which something is adapted; all of them where nothing is."""
    adapted = [s for s in settings if any(is_adapted(one.row.spec) for one in s.scored)]
    return tuple(adapted or settings)


def _place(spec: CellSpec) -> str:
    """Such as "ETTh1, H = 96"."""
    return f"{spec.dataset}, H = {spec.horizon}"


def _shared(row: Row) -> tuple[str, str]:
    """What all settings of a suite share, but the backbone: in words, and the kind of device."""
    spec = row.spec
    dropped = [f"incomplete last batch of {spec.drop_last} dropped"] if spec.drop_last else []
    device = score_device(row.records[0].provenance.device)
    return " · ".join([f"L = {spec.lookback}", f"profile {spec.profile}", *dropped]), device


def _devices(settings: Iterable[Setting]) -> str:
    return devices_label(
        record for setting in settings for scored in setting.scored for record in scored.row.records
    )


def _backbone(row: Row) -> str:
    """The frozen backbone below a row; empty for baselines."""
    expand = ", expand roll-out" if row.spec.rollout == "expand" else ""
    return "" if is_baseline(row.spec) else backbone_label(row.spec) + expand


def read_errors(row: Row, store: ResultsStore, metric: Metric) -> Scored | str:
    """Errors of each window at every seed, or why there are none."""
    column = "pinball" if metric == "crps" else metric
    windows: list[WindowScores] = []
    for record in row.records:
        found = store.load(record.key)
        if found is None or found.window_scores is None:
            return "no errors of each window; run the cell again"
        windows.append(found.window_scores)
    if any(not np.array_equal(one.start, windows[0].start) for one in windows):
        return "seeds scored on different windows"
    by_seed = np.stack([getattr(one, column) for one in windows]).astype(np.float64)
    if not np.isfinite(by_seed).all():
        return f"{metric.upper()} is undefined"
    return Scored(row, windows[0].start, by_seed, row.records[0].levels if metric == "crps" else ())


def compare(ours: Scored, reference: Scored) -> Comparison:
    """Compare two methods on the same windows, seeds averaged window by window first."""
    block = disjoint_block(ours.start, ours.row.spec.horizon)
    seeds = [[record.spec.seed for record in one.row.records] for one in (ours, reference)]
    theirs = reference.by_seed if seeds[0] == seeds[1] else reference.errors[None]
    change = relative_change(ours.errors, reference.errors, block)
    return Comparison(
        ours=ours,
        reference=reference,
        block=block,
        change=change.interval,
        by_seed=tuple(
            percent_change(*means) for means in np.broadcast(ours.by_seed.mean(axis=1), theirs.mean(axis=1))
        ),
        draws=change.draws(),
        test=diebold_mariano(ours.errors, reference.errors, block),
    )


def family(suite: Suite, against: Reference) -> tuple[Family, tuple[str, ...]]:
    """All comparisons of a suite with one kind of reference, corrected together.

    Args:
        suite: What may be compared.
        against: "origin": every adapted row against the same backbone alone. "control": TS-Memory against
            its control without retrieval, F-LLM against itself without feedback.

    Returns:
        The family, and what was refused with the reason.
    """
    comparisons, refused = [], []
    for setting in suite.settings:
        for ours in setting.scored:
            reference = _reference(ours, setting, against)
            if reference is not None and ours.levels == reference.levels:
                comparisons.append(compare(ours, reference))
            elif reference is not None:
                place = f"{setting.dataset}, H = {setting.horizon}"
                refused.append(f"{place}: {ours.name}: CRPS over other levels than {reference.name}.")
    p = np.array([comparison.test.p for comparison in comparisons])
    p_holm, p_bh = holm(p).tolist(), benjamini_hochberg(p).tolist()
    judged = tuple(verdict(one, corrected) for one, corrected in zip(comparisons, p_holm, strict=True))
    return Family(tuple(comparisons), tuple(p_holm), tuple(p_bh), judged), tuple(refused)


def verdict(comparison: Comparison, p_holm: float) -> Verdict:
    """What a comparison allows to say.

    "better" or "worse" takes two things: a corrected p-value below 0.05, and a 95 % interval on one side of
    zero. A comparison that was tested and lacks one of them is "inside the noise". "same forecast" has equal
    errors in every window, as where the fusion weight is 0; "not tested" has no p-value, see its reason.

    Args:
        comparison: The method and its reference.
        p_holm: Corrected in its family.
    """
    if np.array_equal(comparison.ours.errors, comparison.reference.errors):
        return "same forecast"
    if np.isnan(p_holm):
        return "not tested"
    if p_holm < LEVEL and comparison.change.high < 0:
        return "better"
    if p_holm < LEVEL and comparison.change.low > 0:
        return "worse"
    return "inside the noise"


def _reference(ours: Scored, setting: Setting, against: Reference) -> Scored | None:
    """What a row is compared with; None where there is nothing."""
    if against == "control":
        twin = control(ours.row.spec)
        found = (one for one in setting.scored if twin and same_cell(one.row.spec) == same_cell(twin))
    elif is_adapted(ours.row.spec):
        alone = (one for one in setting.scored if one.row.spec.method == "origin")
        found = (one for one in alone if one.row.weights == ours.row.weights)
    else:
        return None
    return next(found, None)


def same_cell(spec: CellSpec) -> CellSpec:
    """The cell without what one row of a setting may differ in from another of its kind."""
    return spec.model_copy(update={"seed": 0, "device": "cpu", "samples": None, "test_stride": None})


def is_adapted(spec: CellSpec) -> bool:
    """Whether it stands on a frozen backbone and adds to it."""
    return spec.method not in ("origin", "supervised")


def control(spec: CellSpec) -> CellSpec | None:
    """The cell that shows what the method's own idea adds; None where there is none.

    Of TS-Memory the same memory module trained without retrieval, of F-LLM's closed loop the open one.
    """
    if spec.f_llm is not None and spec.f_llm.form == "closed-loop":
        return spec.model_copy(update={"f_llm": spec.f_llm.model_copy(update={"form": "open-loop"})})
    if spec.options is None or spec.options.ablation == "no-retrieval":
        return None
    options = TsMemoryOptions(
        ablation="no-retrieval",
        plugmem=spec.options.plugmem,
        alpha_criterion=spec.options.alpha_criterion,
    )
    return spec.model_copy(update={"options": options})


def interval_text(interval: Interval) -> str:
    """Such as "-2.3 [-4.5, +0.1]"; without brackets where there is no interval."""
    return f"{spread([interval.value], '+.1f')}{bounds_text(interval, ' ')}"


def bounds_text(interval: Interval, before: str = "") -> str:
    """Such as "[-4.5, +0.1]"; empty where there is no interval."""
    if not math.isfinite(interval.low):
        return ""
    return f"{before}[{interval.low:+.1f}, {interval.high:+.1f}]"
