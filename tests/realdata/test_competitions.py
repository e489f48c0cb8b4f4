"""Published benchmark figures of M3 and M4, from the published series."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tsbench.bench.grid import cells
from tsbench.bench.runner import Bench, run_cell
from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES, WHOLE_SERIES, CellSpec, FLlmOptions
from tsbench.data.catalog import find_collection

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(folder))
        yield Bench(ResultsStore(folder / "results"), mirror)


@pytest.mark.parametrize(
    ("dataset", "backbone", "smape", "mase"),
    [
        # Makridakis, Spiliotis and Assimakopoulos 2020, and the organisers' table of benchmarks.
        ("M4-Hourly", "naive2", 18.383, 2.395),
        ("M4-Weekly", "naive2", 9.161, 2.777),
        ("M4-Hourly", "naive-seasonal", 13.912, 1.193),
        ("M4-Hourly", "naive-last", 43.003, 11.608),
        # Makridakis and Hibon 2000; M3 reports no MASE.
        ("M3-Yearly", "naive2", 17.88, None),
        ("M3-Other", "naive2", 6.30, None),
    ],
)
def test_benchmarks_have_their_published_scores(
    bench: Bench, dataset: str, backbone: str, smape: float, mase: float | None
) -> None:
    collection = find_collection(dataset)
    assert collection is not None
    spec = CellSpec(
        method="origin",
        backbone=backbone,
        dataset=dataset,
        horizon=collection.horizon,
        lookback=WHOLE_SERIES,
    )
    record = run_cell(bench, spec)
    assert record.windows == record.windows_total == collection.series
    assert record.metrics["smape"] == pytest.approx(smape, abs=0.0005 if mase else 0.005)
    if mase:
        assert record.metrics["mase"] == pytest.approx(mase, abs=0.0005)
    if backbone == "naive2":
        assert record.metrics["owa"] == 1


def test_f_llm_is_carried_from_m3_to_m4(bench: Bench, llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"max_steps": 12, "eval_every": 6, "max_test_values": 13 * 120}
    monkeypatch.setitem(PROFILES, "quick", PROFILES["quick"].model_copy(update=small))
    (spec,) = cells(
        method="f-llm",
        backbone="smollm2",
        checkpoint=llama,
        datasets=["M4-Weekly"],
        seeds=[0],
        variants=(FLlmOptions(),),
        profile="quick",
    )
    record = run_cell(bench, spec)
    assert (record.windows, record.windows_total) == (120, 359)
    assert record.metrics["train_series"] == 1428
    assert record.metrics["val_smape_closed"] <= record.metrics["val_smape_open"] < 200
    assert 0 < record.metrics["smape"] < 200


def test_statsforecasts_theta_is_near_the_published_one(bench: Bench) -> None:
    pytest.importorskip("statsforecast.models")
    spec = CellSpec(method="origin", backbone="theta", dataset="M3-Yearly", horizon=6, lookback=WHOLE_SERIES)
    # Theta in M3: 16.90 (Makridakis and Hibon 2000), with another smoothing and negative forecasts cut off.
    assert run_cell(bench, spec).metrics["smape"] == pytest.approx(16.90, abs=0.4)
