"""Pairs, families and verdicts on made records, and on the committed ones against README."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_tables import DECILES, make_record, memory_spec, origin_spec

import tsbench
from tsbench.bench.records import FusionCurves, Record, WindowScores
from tsbench.bench.store import ResultsStore
from tsbench.config import CellSpec
from tsbench.errors import TsbenchError
from tsbench.metrics.overlap import disjoint_block, relative_change
from tsbench.metrics.significance import diebold_mariano
from tsbench.report.claims import CLAIMED, claims, published_changes
from tsbench.report.comparisons import Metric, Verdict, family, suites
from tsbench.report.labels import ALPHA
from tsbench.report.render import render
from tsbench.report.select import select
from tsbench.report.significance import significance_tables
from tsbench.report.standing import critical_difference, mean_change, summaries

ROOT = Path(tsbench.__file__).parent.parent
WINDOWS = 349
NOISE = np.random.default_rng(0).gamma(4, 0.1, WINDOWS)
Save = Callable[..., Record]


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore(tmp_path)


@pytest.fixture
def save(store: ResultsStore) -> Save:
    """Store a cell with these errors in every window; 12 windows apart share no target."""

    def save_cell(
        spec: CellSpec,
        errors: NDArray[np.float64] = NOISE,
        *,
        first: int = 0,
        curve: NDArray[np.float64] | None = None,
        levels: tuple[float, ...] = DECILES,
    ) -> Record:
        start = first + 8 * np.arange(len(errors))
        arrays = dict.fromkeys(("mse", "mae", "pinball"), errors.astype(np.float32))
        windows = WindowScores(start, **arrays, abs_target=np.ones(len(errors), np.float32))
        made = make_record(spec, float(errors.mean()), windows=len(errors), levels=levels)
        if curve is not None:
            scores = dict.fromkeys(("mse", "mae", "crps"), curve)
            fused = FusionCurves(np.linspace(0, 1, len(curve)), scores, scores)
            made = replace(made, alpha=0.25, curves=fused)
        record = replace(made, window_scores=windows)
        store.save(record)
        return record

    return save_cell


CONTROL = {"ablation": "no-retrieval"}
JITTER = np.random.default_rng(1).normal(0, 0.01, WINDOWS)
HARDER = NOISE + JITTER - JITTER.mean()  # other errors, the same mean


def verdicts(store: ResultsStore, metric: Metric) -> dict[str, Verdict]:
    """Whether each adapted cell differs from its backbone alone, by the key of its record."""
    return {
        record.key: found
        for suite in suites(store.records(), store, metric)
        for judged in [family(suite, "origin")[0]]
        for comparison, found in zip(judged.comparisons, judged.verdicts, strict=True)
        for record in comparison.ours.row.records
    }


def test_each_cell_has_the_verdict_that_its_difference_allows(store: ResultsStore, save: Save) -> None:
    save(origin_spec())
    better = save(memory_spec(), 0.9 * HARDER)
    worse = save(origin_spec(method="lora"), 1.1 * HARDER)
    unclear = save(memory_spec(CONTROL), HARDER)
    same = save(origin_spec(method="raft"))
    assert verdicts(store, "mse") == {
        better.key: "better",
        worse.key: "worse",
        unclear.key: "inside the noise",
        same.key: "same forecast",
    }


def test_too_few_windows_for_their_overlap_are_not_tested(store: ResultsStore, save: Save) -> None:
    save(origin_spec(), NOISE[:35])
    short = save(memory_spec(), 0.9 * HARDER[:35])
    assert verdicts(store, "mse") == {short.key: "not tested"}
    assert "2.92 blocks" in render(significance_tables(store.records(), store, "mse"), "json")


def test_against_a_backbone_without_any_error_there_is_no_change(store: ResultsStore, save: Save) -> None:
    save(origin_spec(), 0 * NOISE)
    worse = save(memory_spec(), NOISE, curve=np.arange(21.0))
    same = save(origin_spec(method="raft"), 0 * NOISE)
    assert verdicts(store, "mse") == {worse.key: "inside the noise", same.key: "same forecast"}
    judged, _ = family(suites(store.records(), store, "mse")[0], "origin")
    assert np.isnan(
        [change for one in judged.comparisons for change in (one.change.value, *one.by_seed)]
    ).all()
    assert "nan" not in render(significance_tables(store.records(), store, "mse"), "markdown")


def test_a_family_holds_the_comparisons_of_one_backbone_and_is_corrected_together(
    store: ResultsStore, save: Save
) -> None:
    methods = [memory_spec(), memory_spec(CONTROL), origin_spec(method="lora")]
    for place, spec in enumerate([origin_spec(), *methods]):
        save(spec, HARDER * (1 - 0.001 * place))
        save(spec.model_copy(update={"backbone": "flame-small"}), NOISE * (1 - 0.1 * place))
    (first, second) = suites(store.records(), store, "mse")
    for suite in (first, second):
        judged, refused = family(suite, "origin")
        assert len(judged.comparisons) == judged.tested + judged.verdicts.count("not tested") == 3
        assert refused == ()
        for one, p_holm in zip(judged.comparisons, judged.p_holm, strict=True):
            ours, reference = one.ours.errors, one.reference.errors
            assert one.reference.row.spec.backbone == one.ours.row.spec.backbone
            assert one.block == disjoint_block(one.ours.start, 96) == 12
            assert one.change == relative_change(ours, reference, 12).interval
            assert one.test == diebold_mariano(ours, reference, 12) or np.isnan(one.test.p)
            assert np.isnan(one.test.p) or p_holm >= one.test.p


def test_ts_memory_stands_against_its_control_and_nothing_else_does(store: ResultsStore, save: Save) -> None:
    save(origin_spec())
    save(memory_spec(CONTROL), 0.95 * NOISE)
    save(memory_spec({"teacher": {"exclusion": "self"}}), 0.9 * HARDER)
    save(origin_spec(method="lora"), 0.9 * HARDER)
    judged, _ = family(suites(store.records(), store, "mse")[0], "control")
    (one,) = judged.comparisons
    assert "exclusion self" in one.ours.name
    assert one.reference.name.startswith("No-retrieval control")
    assert judged.verdicts == ("better",)


def test_other_windows_and_other_levels_are_refused(store: ResultsStore, save: Save) -> None:
    save(origin_spec())
    save(memory_spec(), 0.9 * HARDER, first=4)
    with pytest.raises(TsbenchError, match="nothing to compare"):
        significance_tables(select(store.records(), "method=ts-memory"), store, "mse")
    save(origin_spec(method="lora"), 0.9 * HARDER, levels=(0.5,))
    text = render(significance_tables(store.records(), store, "crps"), "markdown")
    assert "Refused: ETTh1, H = 96: TS-Memory: scored on other windows than Origin." in text
    assert "LoRA: CRPS over other levels than Origin." in text
    assert verdicts(store, "crps") == {}
    assert len(verdicts(store, "mae")) == 1


def test_each_backbone_is_compared_on_its_own_windows_and_what_lies_on_others_is_said(
    store: ResultsStore, save: Save
) -> None:
    for method in ("origin", "lora", "raft"):
        save(origin_spec(method=method), HARDER if method == "origin" else 0.9 * NOISE)
    flame = origin_spec(backbone="flame-small")
    for spec in (flame, memory_spec(backbone="flame-small")):
        save(spec, NOISE[:-1] if spec == flame else 0.9 * HARDER[:-1], first=8)
    save(origin_spec(backbone="flame-small", method="lora"), 0.9 * NOISE)
    found = {suite.label.partition(" ")[0]: suite for suite in suites(store.records(), store, "mse")}
    there, here = found[flame.backbone], found[origin_spec().backbone]
    assert {one.row.spec.method for one in here.settings[0].scored} == {"origin", "lora", "raft"}
    assert {one.row.spec.method for one in there.settings[0].scored} == {"origin", "ts-memory"}
    assert here.refused == ()
    assert there.refused == ("ETTh1, H = 96: LoRA: scored on other windows (349 of 2785).",)


def test_seeds_are_averaged_window_by_window_before_the_test(store: ResultsStore, save: Save) -> None:
    save(origin_spec())
    wiggle = np.random.default_rng(2).normal(0, 0.2, WINDOWS)
    for seed, sign in enumerate((1, -1)):
        save(memory_spec(seed=seed), 0.9 * NOISE + sign * wiggle)
    judged, _ = family(suites(store.records(), store, "mse")[0], "origin")
    (one,) = judged.comparisons
    assert one.ours.errors == pytest.approx(0.9 * NOISE, rel=1e-5)
    assert one.change.value == pytest.approx(-10, abs=0.01)
    assert np.mean(one.by_seed) == pytest.approx(-10, abs=0.01)
    assert np.std(one.by_seed) > 0.1
    assert set(verdicts(store, "mse").values()) == set(judged.verdicts)


def test_methods_are_summed_up_over_data_sets(store: ResultsStore, save: Save) -> None:
    for dataset, factor in (("ETTh1", 0.9), ("ETTh2", 0.8), ("Weather", 1.1)):
        save(origin_spec("naive-seasonal", dataset=dataset), 2 * NOISE)
        save(origin_spec(dataset=dataset))
        save(memory_spec(dataset=dataset), factor * HARDER)
        save(origin_spec(dataset=dataset, method="lora"), 0.7 * HARDER)
    save(origin_spec(dataset="ETTh1", method="raft"), 0.7 * HARDER)
    (suite,) = suites(store.records(), store, "mse")
    judged, _ = family(suite, "origin")
    found = {one.name: one for one in summaries(suite, judged)}
    memory = found["TS-Memory"]
    assert (memory.cells, memory.better, memory.worse, memory.undecided) == (3, 2, 1, 0)
    assert memory.win_rate == pytest.approx(2 / 3)
    assert memory.change.value == pytest.approx(100 * (2.8 / 3 - 1), abs=1e-3)
    assert memory.change.low < memory.change.value < memory.change.high
    geometric = (0.9 * 0.8 * 1.1 / 8) ** (1 / 3)
    assert memory.skill.value == pytest.approx(100 * (1 - geometric), abs=1e-3)
    assert found["Seasonal naive"].skill.value == pytest.approx(0)
    ranking = critical_difference(suite)
    assert ranking is not None
    assert ranking.names == ("LoRA", "TS-Memory", "Origin", "Seasonal naive")  # RAFT misses two sets
    assert ranking.ranks == pytest.approx((1, 7 / 3, 8 / 3, 4))
    text = render(significance_tables(store.records(), store, "mse"), "text")
    assert "not told apart at 5 %: LoRA ~ TS-Memory ~ Origin" in text


def test_a_forecast_without_any_error_ranks_first_and_is_no_measure_of_skill(
    store: ResultsStore, save: Save
) -> None:
    for dataset in ("ETTh1", "ETTh2", "Weather"):
        save(origin_spec("naive-seasonal", dataset=dataset), 0 * NOISE if dataset == "ETTh1" else 2 * NOISE)
        save(origin_spec(dataset=dataset))
        save(memory_spec(dataset=dataset), 0.9 * HARDER)
    (suite,) = suites(store.records(), store, "mse")
    found = summaries(suite, family(suite, "origin")[0])
    assert len(found) == 3
    assert np.isnan([one.skill.value for one in found]).all()
    ranking = critical_difference(suite)
    assert ranking is not None
    assert dict(zip(ranking.names, ranking.ranks, strict=True))["Seasonal naive"] == pytest.approx(7 / 3)
    assert "nan" not in render(significance_tables(store.records(), store, "mse"), "markdown")


def test_a_data_set_counts_once_in_a_mean_however_many_horizons_it_has(
    store: ResultsStore, save: Save
) -> None:
    for horizon, factor in ((96, 0.9), (48, 0.7)):
        save(origin_spec(horizon=horizon))
        save(memory_spec(horizon=horizon), factor * HARDER)
    save(origin_spec(dataset="ETTh2"))
    save(memory_spec(dataset="ETTh2"), 0.6 * HARDER)
    judged, _ = family(suites(store.records(), store, "mse")[0], "origin")
    assert mean_change(judged.comparisons).value == pytest.approx(100 * ((0.8 + 0.6) / 2 - 1), abs=1e-3)


def test_the_oracle_gains_what_its_curve_says_and_stands_beside_the_papers_claim(
    store: ResultsStore, save: Save
) -> None:
    save(origin_spec())
    save(memory_spec(), 0.95 * HARDER, curve=np.array([0.4, 0.38, 0.3, 0.36, 0.5]))
    save(memory_spec(CONTROL), 0.96 * HARDER, curve=np.array([0.4, 0.39, 0.38, 0.39, 0.4]))
    save(memory_spec({"alpha_policy": "oracle"}), 0.7 * HARDER, curve=np.full(5, 0.4))
    judged, _ = family(suites(store.records(), store, "mse")[0], "origin")
    (claim,) = claims(judged, store, "mse")  # neither the control nor the leaking row
    assert claim.oracle_alpha == (0.5,)
    assert claim.oracle_change == pytest.approx(-25)
    assert claim.control is not None
    assert claim.control.change.value > claim.comparison.change.value > claim.oracle_change
    text = render(significance_tables(store.records(), store, "mse"), "markdown")
    assert re.search(r"\| Paper's text: four backbones +\| +8 \| +-5.8 \|", text)
    assert f"TS-Memory, {ALPHA} by test (bound)" in text


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_the_papers_table_gives_the_mean_that_its_text_claims(metric: str) -> None:
    printed = published_changes(metric)  # type: ignore[arg-type]
    assert len(printed) == 8
    assert {len(backbones) for backbones in printed.values()} == {4}
    mean = np.mean([change for backbones in printed.values() for change in backbones.values()])
    assert mean == pytest.approx(CLAIMED[metric], abs=0.1)  # from three printed digits


def test_the_committed_records_give_readmes_gains() -> None:
    committed = ResultsStore(ROOT / "results")
    chosen = select(committed.records(), "dataset=ETTm1,Exchange horizon=96 lookback=512")
    suite = next(s for s in suites(chosen, committed, "mse") if s.label.startswith("flame-small"))
    judged, refused = family(suite, "origin")
    assert refused == suite.refused == ()
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    checked = 0
    for dataset in ("ETTm1", "Exchange"):
        line = next(line for line in lines if re.match(rf"\| {dataset} +\| 96 ", line))
        shown = dict(
            zip(
                ("No-retrieval control", "TS-Memory", "RAFT", "TS-RAG", "LoRA"),
                [cell.strip() for cell in line.split("|")[4:-1]],
                strict=True,
            )
        )
        for one in judged.comparisons:
            name = one.ours.name.replace(", PlugMem tiny", "")
            if one.ours.row.spec.dataset == dataset and name in shown:
                change = one.change
                assert shown[name] == f"{change.value:+.1f} % [{change.low:+.1f}, {change.high:+.1f}]"
                checked += 1
    assert checked == 10
    for claim in claims(judged, committed, "mse"):
        assert claim.oracle_change <= claim.comparison.change.value + 1e-3
