import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import toy

from tsbench.bench.store import ResultsStore

RUN = " ".join(["run --method raft --horizon 24", *toy.CELL])


def test_stored_results_pass_until_a_weight_is_tuned_on_test(tsbench: toy.Cli, store: ResultsStore) -> None:
    assert tsbench(RUN).exit_code == 0
    sound = tsbench("audit --format json")
    assert sound.exit_code == 0, sound.stderr
    assert {finding["severity"] for finding in json.loads(sound.stdout)["findings"]} <= {"note"}
    [record] = [store.load(record.key) for record in store.records() if record.spec.method == "raft"]
    assert record is not None and record.curves is not None
    test = {name: np.roll(np.sort(scores), 3) for name, scores in record.curves.test.items()}
    val = {name: np.sort(scores) for name, scores in record.curves.val.items()}
    curves = replace(record.curves, val=val, test=test)
    metrics = record.metrics | {name: float(test[name][3]) for name in ("mse", "mae")}
    store.save(
        replace(record, alpha=float(curves.alpha[3]), curves=curves, metrics=metrics, window_scores=None)
    )
    (path,) = Path("results/windows").glob("*/*raft*")
    path.unlink()
    leaking = tsbench("audit --format json")
    assert leaking.exit_code == 1
    [leak] = [found for found in json.loads(leaking.stdout)["findings"] if found["severity"] == "leak"]
    assert "0.15 is the best on the test curve" in leak["text"]


def test_a_method_is_audited_and_a_declared_leak_does_not_fail(tsbench: toy.Cli) -> None:
    passed = tsbench("audit --method origin --backbone toy --format markdown")
    assert (passed.exit_code, passed.stdout.count("Findings: none.")) == (0, 1)
    declared = tsbench("audit --method ts-memory --backbone toy --exclusion self --format json")
    assert declared.exit_code == 0
    assert [f["severity"] for f in json.loads(declared.stdout)["findings"]] == ["declared leak"]


def test_published_tables_are_audited_without_results(tsbench: toy.Cli) -> None:
    result = tsbench("audit --published --format markdown")
    assert result.exit_code == 0
    assert "### TS-Memory, Table 14" in result.stdout
    assert "1,184" in result.stdout


def test_a_data_set_and_a_users_file_are_audited(tsbench: toy.Cli, sales: Path) -> None:
    assert "repeat-last" in tsbench("audit --data demo").stdout
    result = tsbench("audit --freq 1D --format text --csv", str(sales))
    assert result.exit_code == 0, result.stderr
    assert "csv-sales" in result.stdout


def test_bad_input_is_one_line(tsbench: toy.Cli, sales: Path) -> None:
    for line, said in {
        "audit": "no results in results/; run `tsbench run` first",
        "audit --published --data demo": "--published and --data or --csv are audits of their own",
        "audit --backbone toy": "--backbone is audited below a method",
        f"audit --csv {sales}": "--csv needs --freq",
        "audit --data ETTh3": "unknown dataset 'ETTh3'",
        "audit --method orgin": "unknown method 'orgin'; did you mean origin?",
    }.items():
        result = tsbench(line)
        assert result.exit_code == 2, line
        assert result.stderr.startswith(f"error: {said}"), result.stderr
        assert len(result.stderr.splitlines()) == 1
