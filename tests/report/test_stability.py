import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tsbench.bench.diagnoses import Diagnosis
from tsbench.config import CellSpec, FLlmOptions
from tsbench.errors import TsbenchError
from tsbench.methods.f_llm_stability import Band, Loop, Slope, Stability
from tsbench.report.render import render
from tsbench.report.stability import draw_stability, stability_tables

NOTHING = np.full(2, np.nan)


def loop(scale: float) -> Loop:
    values = scale * np.array([0.5, 0.75])
    band = Band(values, values - 0.1, values + 0.1)
    return Loop(band, values / 2, scale * np.array([[1, 2, 3], [4, 5, 6]]), scale * np.eye(2, 3) / 4)


def make(rho: float = 0.25, context: str = "sliding", **fields: Any) -> Diagnosis:
    stability = Stability(
        windows=40,
        windows_total=80,
        channels=3,
        channels_total=6,
        block=4,
        open_loop=loop(1.0),
        closed_loop=loop(0.8),
        difference=Band(np.array([-0.1, -0.15]), np.array([-0.2, -0.3]), np.array([0.1, -0.05])),
        steps=(1, 2),
        observer_gain=0.375,
        slopes=(Slope("none", 2.5, 1.25), Slope("probe", 1.5, 1.0)),
        limit=1.0,
        rho=rho,
        epsilon=0.5,
        bound=np.array([0.5, 0.625]),
    )
    spec = CellSpec(
        method="f-llm",
        backbone="opt-1.3b",
        dataset="ETTh1",
        horizon=150,
        lookback=672,
        f_llm=FLlmOptions.model_validate({"context": context}),
    )
    return Diagnosis("k" * 64, spec, {"device": "Some CPU"}, replace(stability, **fields))


def text(diagnosis: Diagnosis) -> str:
    return " ".join(render(stability_tables(diagnosis), "markdown").split())


def test_errors_stand_step_by_step_with_their_bands_beside_the_bound() -> None:
    table = stability_tables(make())[0]
    assert table.title.startswith("Stability · ETTh1, H = 150, L = 672 · F-LLM on opt-1.3b · seed 0")
    assert table.title.endswith("Some CPU")
    first, last = ([cell.text for cell in row] for row in table.rows)
    assert first[:5] == [
        "1",
        "1-96",
        "0.5000 [0.4000, 0.6000]",
        "0.4000 [0.3000, 0.5000]",
        "-0.1000 [-0.2000, +0.1000]",
    ]
    assert last == [
        "2",
        "97-150",
        "0.7500 [0.6500, 0.8500]",
        "0.6000 [0.5000, 0.7000]",
        "-0.1500 [-0.3000, -0.0500]",
        "0.3750",
        "0.3000",
        "0.6250",
    ]
    assert any("40 of 80 test windows, 3 of 6 channels (25 % of the rows)" in note for note in table.notes)
    assert any("10 blocks of 4 windows" in note for note in table.notes)


def test_jacobians_stand_by_loop_and_step() -> None:
    table = stability_tables(make())[1]
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[:3] for row in rows] == [
        ["F-LLM without feedback", "1", "3"],
        ["F-LLM without feedback", "2", "3"],
        ["F-LLM", "1", "3"],
        ["F-LLM", "2", "3"],
    ]
    assert rows[1][3] == "5.000 [4.000, 6.000]"
    assert rows[2][4] == "0.0000 [0.0000, 0.2000]"


def test_slopes_stand_beside_their_limit() -> None:
    table = stability_tables(make())[2]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["none", "2.500", "1.250", "1"],
        ["probe", "1.500", "1.000", "1"],
    ]


def test_a_penalty_that_changed_nothing_is_named() -> None:
    same = Slope("none", 0.5, 0.25), Slope("probe", 0.5, 0.25)
    assert "the penalty was never active" in text(make(slopes=same))
    assert "never active" not in text(make())
    assert "never active" not in text(make(slopes=same[:1]))


@pytest.mark.parametrize("rho", [1.0, 1.7])
def test_a_gain_of_one_or_more_breaks_the_premise(rho: float) -> None:
    assert "the theorem's premise fails" in text(make(rho))
    assert "premise fails" not in text(make(0.999))


def test_the_eigenvalue_of_one_belongs_to_the_sliding_context() -> None:
    assert "1 is always an eigenvalue" in text(make())
    assert "eigenvalue" not in text(make(context="growing"))


def test_an_observer_that_did_not_help_is_said_to_be_absent() -> None:
    assert "the closed loop is the open one" in text(make(observer_gain=None))
    assert "Gain of the observer itself: 0.3750" in text(make())
    assert "observer itself" not in text(make(observer_gain=None))


def test_missing_bands_are_missing() -> None:
    band = Band(np.array([0.5, 0.75]), NOTHING, NOTHING)
    stored = make(open_loop=replace(loop(1), error=band), block=30)
    assert "0.5000 [–]" in text(stored)
    assert "with fewer than 2 there is no interval" in text(stored)


def test_the_figure_comes_as_png_and_pdf_and_leaves_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "150-f-llm-opt-1.3b-abc.json"
    draw_stability(make(), path)
    figures = sorted(tmp_path.iterdir())
    assert [figure.name for figure in figures] == [f"150-f-llm-opt-1.3b-abc{e}" for e in (".pdf", ".png")]
    assert figures[0].read_bytes().startswith(b"%PDF")
    assert figures[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("bound", "drawn"), [([0.5, 0.625], True), ([0.5, 1e9], True), ([5, 9], False), ([0.5, np.nan], False)]
)
def test_the_bound_is_drawn_where_it_lies_within_the_axis(
    bound: list[float], drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = pytest.importorskip("matplotlib.axes").Axes
    lines, plot = [], axes.plot
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *args, **options: None)

    def recorded(*args: Any, **options: Any) -> Any:
        lines.append(options.get("linestyle"))
        return plot(*args, **options)

    monkeypatch.setattr(axes, "plot", recorded)
    draw_stability(make(bound=np.array(bound)), tmp_path / "one.json")
    assert ("--" in lines) == drawn


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TsbenchError, match=r"matplotlib; pip install 'tsbench\[figures\]'"):
        draw_stability(make(), tmp_path / "one.json")
