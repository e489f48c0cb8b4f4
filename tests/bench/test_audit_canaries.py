from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from tsbench import registry
from tsbench.bench.audit import canaries
from tsbench.bench.audit.canaries import audit_method, canary_spec, cut, poisoned
from tsbench.bench.audit.findings import Audit
from tsbench.config import CellSpec
from tsbench.data.load import load_dataset
from tsbench.data.splits import Scaler
from tsbench.errors import TsbenchError
from tsbench.methods.task import make_task
from tsbench.methods.ts_memory import teacher

PLANTED = {
    "tuned-on-test": "fit_tuned_on_test",
    "tuned-on-val": "fit_tuned_on_val",
    "look-up": "fit_look_up",
    "greedy-corpus": "fit_greedy_corpus",
    "batch-mean": "fit_batch_mean",
    "random": "fit_random",
}


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The toy backbone, and the leaking methods as another package's entry points."""
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    toy.install(monkeypatch)
    points = tuple(
        EntryPoint(name, f"leaking:{function}", "tsbench.methods") for name, function in PLANTED.items()
    )
    monkeypatch.setattr(
        registry, "installed_points", lambda group: points if group == "tsbench.methods" else ()
    )


def canary(folder: Path, method: str, backbone: str = "toy", **options: Any) -> Audit:
    return audit_method(
        canary_spec(method, backbone, "demo", **options), load_dataset("demo"), folder / "audit"
    )


def checks_off(audit: Audit) -> set[str]:
    return {finding.check for finding in audit.leaks}


@pytest.mark.parametrize("method", ["origin", "ts-memory", "raft", "ts-rag", "tuned-on-val"])
def test_a_method_that_sees_no_future_passes(tmp_path: Path, method: str) -> None:
    audit = canary(tmp_path, method)
    assert audit.findings == ()
    looked = {check.name for check in audit.checks if check.looked}
    assert {canaries.SCALING, canaries.FIT, canaries.FORECAST, canaries.BATCH} <= looked
    assert (canaries.TEACHER in looked) == (method == "ts-memory")
    assert (canaries.CORPUS in looked) == (method in ("raft", "ts-rag"))


def test_supervised_training_passes(tmp_path: Path) -> None:
    audit = canary(tmp_path, "supervised", "dlinear")
    assert audit.findings == ()
    [fitted] = [check for check in audit.checks if check.name == canaries.FIT]
    assert fitted.looked > 6  # diagnostics, two sets of forecasts, and the stored weights


def test_f_llm_passes(tmp_path: Path, llama: str) -> None:
    audit = canary(tmp_path, "f-llm", "smollm2", checkpoint=llama)
    assert audit.findings == ()


@pytest.mark.parametrize(
    ("method", "check", "said"),
    [
        ("tuned-on-test", canaries.FIT, "only test rows were replaced"),
        ("look-up", canaries.FIT, "only test rows were replaced"),
        ("greedy-corpus", canaries.CORPUS, "1 of 45 stored windows reach beyond the 1200 train rows"),
        ("batch-mean", canaries.BATCH, "7 other windows"),
    ],
)
def test_a_planted_leak_of_another_package_is_found(
    tmp_path: Path, method: str, check: str, said: str
) -> None:
    audit = canary(tmp_path, method)
    assert checks_off(audit) == {check}
    assert said in audit.leaks[0].text


def test_a_fit_that_does_not_repeat_is_no_leak(tmp_path: Path) -> None:
    audit = canary(tmp_path, "random")
    assert audit.leaks == ()
    assert {(finding.severity, finding.check) for finding in audit.findings} == {("note", canaries.FIT)}
    assert "so nothing follows" in audit.findings[0].text


def test_a_scaler_fitted_on_all_rows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(spec: CellSpec, profile: Any, dataset: Any, *rest: Any) -> Any:
        task = make_task(spec, profile, dataset, *rest)
        scaler = Scaler.fit(dataset.values)
        return canaries.replace(task, scaler=scaler, scaled=scaler.transform(dataset.values))

    monkeypatch.setattr(canaries, "make_task", greedy)
    assert canaries.SCALING in checks_off(canary(tmp_path, "origin"))


def test_neighbours_that_share_target_steps_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "exclusion_zone", lambda options, lookback, horizon: 1)
    audit = canary(tmp_path, "ts-memory")
    [found] = audit.leaks
    assert found.check == "neighbours of stored teachers"
    assert "nearer than exclusion 'target' allows" in found.text


def test_exclusion_self_is_a_declared_leak(tmp_path: Path) -> None:
    audit = canary(tmp_path, "ts-memory", exclusion="self")
    assert Counter(finding.severity for finding in audit.findings) == {"declared leak": 1}
    assert "share target steps" in audit.findings[0].text


def test_a_stretch_keeps_values_and_only_later_rows_are_poisoned() -> None:
    demo = load_dataset("demo")
    stretch = cut(demo)
    assert stretch.values.shape == (2000, 3)
    [first] = np.flatnonzero((demo.values[:, :3] == stretch.values[0]).all(axis=1))
    np.testing.assert_array_equal(stretch.values, demo.values[first : first + 2000, :3])
    other = poisoned(stretch, 1600)
    np.testing.assert_array_equal(other.values[:1600], stretch.values[:1600])
    assert not (other.values[1600:] == stretch.values[1600:]).any()
    assert other.sha256 != stretch.sha256


@pytest.mark.parametrize(
    ("method", "backbone", "message"),
    [
        ("ts-rga", "toy", "unknown method 'ts-rga'; did you mean ts-rag?"),
        ("ts-rag", "naive-last", "needs a backbone with an encoder"),
        ("supervised", "toy", "needs an untrained architecture"),
    ],
)
def test_what_cannot_run_is_said_before_it_does(
    tmp_path: Path, method: str, backbone: str, message: str
) -> None:
    with pytest.raises(TsbenchError, match=message):
        canary(tmp_path, method, backbone)
