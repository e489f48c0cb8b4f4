"""What figures are made of against what is stored, and that each is drawn to both formats."""

import sys
from dataclasses import replace
from pathlib import Path

import figure_results as fake
import numpy as np
import pytest

from tsbench.bench.diagnoses import load_diagnoses
from tsbench.bench.records import WindowScores
from tsbench.bench.store import ResultsStore
from tsbench.errors import TsbenchError
from tsbench.metrics.ranks import CriticalDifference
from tsbench.report.figures.canvas import save, sheet, style
from tsbench.report.figures.catalog import FIGURES, draw_figures
from tsbench.report.figures.changes import prepare_ablation, prepare_capacity, prepare_domain_shift
from tsbench.report.figures.errors import calibration_line, prepare_calibration, prepare_steps
from tsbench.report.figures.forecasts import draw_forecasts, intervals, prepare_forecasts
from tsbench.report.figures.ranks import Ranks, draw_ranks, prepare_ranks
from tsbench.report.figures.settings import Results, studies
from tsbench.report.figures.weights import prepare_weights

MSE = dict(fake.CELLS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("results")
    fake.write_results(found)
    return found


@pytest.fixture
def results(root: Path) -> Results:
    return Results(root, tuple(ResultsStore(root).records()))


def against_origin(spec: object, horizon: int) -> float:
    found = {each: mse for each, mse in fake.CELLS if each.horizon == horizon}
    return 100 * (found[spec] / found[fake.cell("origin", horizon)] - 1)


def test_a_study_holds_one_backbone_with_the_naive_forecasts_and_no_transfers(results: Results) -> None:
    (study,) = studies(results.records)
    assert study.title == "ETTh1, L = 512, flame-small"
    assert [panel.horizon for panel in study.panels] == [24, 48]
    assert [study.label(row) for row in study.panels[0].rows] == [
        "Origin",
        "No-retrieval control, PlugMem tiny",
        "RAFT",
        "TS-Memory, PlugMem small",
        "TS-Memory, PlugMem tiny",
        "TS-Memory, no-gate, PlugMem tiny",
        "Seasonal naive",
    ]
    assert study.note() == "25 % of the test windows. Profile standard."
    (whole,) = studies(results.records, transfers=True)
    assert len(whole.panels[0].rows) == len(study.panels[0].rows) + 1


def test_the_only_size_of_plugmem_stands_in_the_small_print(results: Results) -> None:
    tiny = [each for each in results.records if not each.spec.options or each.spec.options.plugmem == "tiny"]
    (study,) = studies(tiny)
    assert [study.label(row) for row in study.panels[0].rows][3:5] == ["TS-Memory", "TS-Memory, no-gate"]
    assert study.note() == "25 % of the test windows. Profile standard. PlugMem tiny."


def test_cells_that_leak_are_in_no_figure(results: Results) -> None:
    oracle = [
        replace(
            each,
            spec=each.spec.model_copy(
                update={"options": each.spec.options.model_copy(update={"alpha_policy": "oracle"})}
            ),
        )
        for each in results.records
        if each.spec.options
    ]
    assert studies(oracle) == []


def test_of_two_sets_of_windows_the_one_with_more_methods_is_shown(results: Results) -> None:
    other = [replace(each, windows=1400) for each in results.records if each.spec.method == "origin"]
    (study,) = studies([*results.records, *other])
    assert [panel.coverage for panel in study.panels] == [0.25, 0.25]


def test_weights_are_in_percent_of_the_backbone_alone_with_both_choices(results: Results) -> None:
    (picture,) = prepare_weights(results)
    assert [horizon for horizon, _ in picture.panels] == [24, 48]
    curve = next(each for each in picture.panels[0][1] if each.label == "RAFT")
    stored = fake.curves(MSE[fake.cell("raft", 24)])
    np.testing.assert_allclose(curve.val, 100 * stored.val["mse"] / stored.val["mse"][0] - 100, atol=1e-9)
    np.testing.assert_allclose(curve.test, 100 * stored.test["mse"] / stored.test["mse"][0] - 100, atol=1e-9)
    assert (curve.alpha[curve.chosen], curve.alpha[curve.best]) == (pytest.approx(0.3), 0.5)


def test_ablations_are_compared_with_the_backbone_at_the_same_horizon(results: Results) -> None:
    (picture,) = prepare_ablation(results)
    found = {change.label: change.percent for change in picture.changes}
    assert picture.horizons == (24, 48)
    assert [*found] == [
        "No-retrieval control, PlugMem tiny",
        "TS-Memory, PlugMem small",
        "TS-Memory, PlugMem tiny",
        "TS-Memory, no-gate, PlugMem tiny",
    ]
    for horizon in fake.HORIZONS:
        percent = found["TS-Memory, no-gate, PlugMem tiny"][horizon]
        assert percent == pytest.approx(against_origin(fake.memory(horizon, ablation="no-gate"), horizon))


def test_domain_shift_has_the_horizons_of_transferred_cells_alone(results: Results) -> None:
    keep = [each for each in results.records if not (each.spec.train_dataset and each.spec.horizon == 48)]
    (picture,) = prepare_domain_shift(Results(results.root, tuple(keep)))
    assert picture.horizons == (24,)
    found = {change.label: change.percent for change in picture.changes}
    spec = fake.memory(24, train_dataset="ETTh2")
    percent = pytest.approx(against_origin(spec, 24))
    assert found["TS-Memory, PlugMem tiny, trained on ETTh2"] == {24: percent}
    assert prepare_domain_shift(Results(results.root, tuple(keep[:0]))) == []


def test_capacity_needs_two_sizes_of_one_variant(results: Results) -> None:
    (picture,) = prepare_capacity(results)
    assert [*picture.lines] == ["TS-Memory, H = 24", "TS-Memory, H = 48"]
    for horizon in fake.HORIZONS:
        assert picture.lines[f"TS-Memory, H = {horizon}"] == {
            size: pytest.approx(against_origin(fake.memory(horizon, size), horizon))
            for size in ("small", "tiny")
        }
    tiny = [each for each in results.records if not each.spec.options or each.spec.options.plugmem == "tiny"]
    assert prepare_capacity(Results(results.root, tuple(tiny))) == []


def test_forecasts_are_those_of_the_last_channel_of_three_windows(results: Results) -> None:
    picture = prepare_forecasts(results)[0]
    samples = fake.details(24, fake.DECILES).samples
    assert picture.title == "ETTh1, L = 512, flame-small, H = 24: channel OT"
    np.testing.assert_array_equal(picture.target, samples.target[[0, 1, 3], 2])
    np.testing.assert_array_equal(picture.context, samples.context[[0, 1, 3], 2])
    assert [fan.label for fan in picture.fans][:2] == ["Origin", "No-retrieval control, PlugMem tiny"]
    assert "Methods left out: 1" in picture.note
    np.testing.assert_array_equal(picture.fans[0].forecast, samples.forecast[[0, 1, 3], 2])
    np.testing.assert_array_equal(picture.fans[0].point, samples.forecast[[0, 1, 3], 2, 4])
    assert picture.times[1] == "2018-02-24 04:00"


def test_small_print_names_the_seed_of_every_row_that_is_shown(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    seeds = {fake.cell("origin", 24): (0,), fake.cell("raft", 24): (1,), fake.memory(24): (2, 3)}
    for spec, own in seeds.items():
        for seed in own:
            store.save(fake.record(spec.model_copy(update={"seed": seed}), 0.4))
    found = Results(tmp_path, tuple(store.records()))
    told = "Seed 0 of Origin; 1 of RAFT; 2 of TS-Memory."
    for prepare in (prepare_forecasts, prepare_steps, prepare_calibration):
        (picture,) = prepare(found)
        assert picture.note.endswith(told)
    alone = Results(tmp_path, tuple(each for each in store.records() if each.spec.seed == 2))
    for prepare in (prepare_forecasts, prepare_steps, prepare_calibration):
        (picture,) = prepare(alone)
        assert picture.note.endswith("Seed 2.")


def test_intervals_are_central_and_named_by_their_probability() -> None:
    assert intervals(fake.DECILES) == [(0, 8, "80 % interval"), (2, 6, "40 % interval")]
    assert intervals((0.1, 0.5, 0.9)) == [(0, 2, "80 % interval")]
    assert intervals(()) == intervals((0.5,)) == intervals((0.2, 0.5, 0.9)) == []


def test_steps_hold_the_stored_errors_and_the_loss_of_each_step(results: Results) -> None:
    picture = prepare_steps(results)[1]
    stored = fake.details(48, fake.DECILES)
    assert [line.label for line in picture.lines][-1] == "Seasonal naive"
    np.testing.assert_allclose(picture.lines[0].mse, stored.mse)
    np.testing.assert_allclose(picture.lines[0].loss, stored.pinball / stored.abs_target)


def test_calibration_is_the_mass_between_levels_over_what_it_should_be(results: Results) -> None:
    picture = prepare_calibration(results)[0]
    assert "Seasonal naive" not in [line.label for line in picture.lines]
    line, below = picture.lines[0], fake.details(24, fake.DECILES).below
    np.testing.assert_allclose(line.nominal, [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(line.covered, [below[8 - low] - below[low] for low in (3, 2, 1, 0)])
    np.testing.assert_allclose(line.density[[0, 4]], [below[0] / 0.1, (below[4] - below[3]) / 0.1])
    assert np.diff(line.edges) @ line.density == pytest.approx(1)


def test_calibrated_quantiles_are_flat_and_cover_what_they_say() -> None:
    levels = (0.01, 0.1, 0.3, 0.7, 0.9, 0.99)
    line = calibration_line("", replace(fake.details(24, levels), below=np.array(levels)))
    np.testing.assert_allclose(line.density, 1)
    np.testing.assert_allclose(line.covered, line.nominal)
    np.testing.assert_allclose(line.nominal, [0.4, 0.8, 0.98])


def test_point_forecasts_have_steps_and_no_calibration(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    spec = fake.cell("origin", 24)
    ResultsStore(tmp_path).save(fake.record(spec, 0.4, levels=(), details=fake.details(24, ())))
    found = Results(tmp_path, tuple(ResultsStore(tmp_path).records()))
    assert prepare_calibration(found) == []
    assert np.isnan(prepare_steps(found)[0].lines[0].loss).all()
    (axes, *_) = draw_forecasts(prepare_forecasts(found)[0]).axes
    assert [line.get_label() for line in axes.lines][:3] == ["context", "target", "median"]
    assert not axes.collections  # no intervals


def check_picture(path: Path, width: float) -> None:
    """A PNG of the width in inches that is mostly white and not all, or a PDF."""
    image = pytest.importorskip("matplotlib.image")
    content = path.read_bytes()
    if path.suffix == ".pdf":
        assert content.startswith(b"%PDF-")
        assert b"CreationDate" not in content
        return
    pixels = image.imread(path)[..., :3].mean(-1)
    assert pixels.shape[1] == round(200 * width)
    assert 0.005 < (pixels < 0.9).mean() < 0.3
    edge = np.concatenate(
        [pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()]
    )
    assert edge.min() > 0.95, "something runs over the edge"


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "ranks"])
def test_each_figure_is_drawn_to_both_formats(name: str, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written, missing = draw_figures(root, tmp_path, [name], "horizon=24,150", load_diagnoses(root))
    assert missing == []
    assert {path.suffix for path in written} == {".png", ".pdf"}
    for path in written:
        assert path.name.startswith(name)
        check_picture(path, 3.3 if name in ("capacity", "retrieval-scaling") else 6.8)


def test_a_figure_repeats_byte_by_byte_whatever_the_settings_of_the_user(root: Path, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    written, _ = draw_figures(root, tmp_path / "one", ["ablation"])
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        again, _ = draw_figures(root, tmp_path / "two", ["ablation"])
        assert matplotlib.rcParams["font.size"] == 20
    assert [path.suffix for path in written] == [".png", ".pdf"]
    for path, same in zip(written, again, strict=True):
        assert path.read_bytes() == same.read_bytes()


def test_ranks_are_those_of_the_methods_over_data_sets(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    shares = {"ETTh1": (0.40, 0.38, 0.39), "ETTh2": (0.30, 0.20, 0.25), "Weather": (0.20, 0.10, 0.30)}
    for dataset, by_method in shares.items():
        specs = fake.cell("origin", 24), fake.memory(24), fake.cell("raft", 24)
        for spec, mse in zip(specs, by_method, strict=True):
            windows = WindowScores(np.arange(700) * 4, *(np.full(700, mse, np.float32) for _ in range(4)))
            there = spec.model_copy(update={"dataset": dataset})
            store.save(fake.record(there, mse, window_scores=windows, details=None))
    (picture,) = prepare_ranks(Results(tmp_path, tuple(store.records())))
    names = [name.split(",")[0].split(" (")[0] for name in picture.ranking.names]
    assert names == ["TS-Memory", "RAFT", "Origin"]
    np.testing.assert_allclose(picture.ranking.ranks, [1, 7 / 3, 8 / 3])
    assert "3 data sets" in picture.note


def test_ranks_are_drawn_from_best_to_worst(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ranking = CriticalDifference(
        ("B", "C", "A", "D"), (1.25, 1.75, 3.5, 3.5), 12, 1.2, (("B", "C"), ("A", "D")), 9.0, 0.01
    )
    with style():
        figure = draw_ranks(Ranks("ranks", "Average ranks", "12 settings.", ranking))
        written = save(figure, tmp_path / "ranks")
    texts = {text.get_text().strip(): text.get_position() for text in figure.axes[0].texts}
    assert texts["B 1.25"][0] < 1
    assert texts["B 1.25"][1] < texts["C 1.75"][1]
    assert texts["3.50 D"][0] > 4
    assert "critical difference 1.20" in texts
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() == 2.5]
    assert [tuple(np.round(bar.get_xdata(), 2)) for bar in bars] == [(1.21, 1.79), (3.46, 3.54)]
    for path in written:
        check_picture(path, 6.8)


def test_without_details_the_other_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    store = ResultsStore(tmp_path)
    for spec, mse in fake.CELLS:
        store.save(fake.record(spec, mse, details=None))
    names = ["forecasts", "ablation", "steps", "calibration", "stability"]
    written, missing = draw_figures(tmp_path, tmp_path / "figures", names)
    assert [path.name for path in written] == [
        f"ablation-ETTh1-L512-flame-small.{end}" for end in ("png", "pdf")
    ]
    assert [line.split(":")[0] for line in missing] == ["forecasts", "steps", "calibration", "stability"]
    assert missing[0] == "forecasts: no data for it; run `tsbench run --method ts-memory`"


def test_without_matplotlib_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TsbenchError, match=r"matplotlib; pip install 'tsbench\[figures\]'"):
        draw_figures(root, root / "figures")
    assert not (root / "figures").exists()


def test_dollar_signs_in_names_are_no_formulas(tmp_path: Path) -> None:
    with style():
        figure = sheet(4, 3, "US$%/EUR$", "in $ (% of $)")
        save(figure, tmp_path / "money")
    assert len(list(tmp_path.iterdir())) == 2
