from pathlib import Path

import toy

from tsbench.bench.store import ResultsStore

SHAPE = "--profile quick --lookback 48 --horizon 12 --test-stride 20"


def test_a_module_from_another_backbone_stands_beside_its_control_and_says_so(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    own = tsbench(f"eval --method ts-memory --backbone toy-paths --dataset demo {SHAPE}")
    assert own.exit_code == 0, own.output
    result = tsbench(f"run --backbone toy --plugmem-from toy-paths --dataset demo {SHAPE}")
    assert result.exit_code == 0, result.output
    assert "[5/5] demo H=12: ts-memory (exclusion target) from toy-paths on toy, seed 0" in result.stderr
    assert result.stderr.count("plugmem: training on") == 2  # the control's, and the one found trained
    assert result.stderr.count("plugmem: step 4") == 1
    assert "teacher: already built" in result.stderr
    for row in ("No-retrieval control", "TS-Memory"):
        assert f"│ {row}, PlugMem tiny, from toy-paths" in result.stdout
    assert "From: the backbone whose memory module is fused with the row's own." in result.stdout
    transferred = {r.spec.plugmem_from: r for r in store.records() if r.spec.method == "ts-memory"}
    assert transferred.keys() == {None, "toy-paths"}
    again = tsbench(f"run --backbone toy --plugmem-from toy-paths --dataset demo {SHAPE}")
    assert again.stderr.count("already done") == 5
    assert again.stdout == result.stdout
    chosen = tsbench('report --select "plugmem_from=toy-paths method=ts-memory" --format markdown')
    assert "from toy-paths" in chosen.stdout
    assert "Origin" not in chosen.stdout.replace("Origin on the same", "")


def test_a_csv_is_forecast_with_what_was_learned_from_other_data(
    tsbench: toy.Cli, store: ResultsStore, sales: Path
) -> None:
    target = f"--csv {sales} --freq 1D --backbone toy {SHAPE}"
    built = tsbench(f"build-teacher --method ts-memory --train-dataset demo {target}")
    assert built.exit_code == 0, built.output
    assert "channels of demo" in built.stderr
    result = tsbench(f"run --train-dataset demo {target}")
    assert result.exit_code == 0, result.output
    assert "teacher: already built" in result.stderr
    assert "│ TS-Memory, PlugMem tiny, trained on demo" in result.stdout
    assert "Trained on: the data sets learned from" in result.stdout
    trained = [record.spec.train_dataset for record in store.records() if record.spec.method == "ts-memory"]
    assert trained == ["demo", "demo"]
    summary = tsbench("report --summary mse --format markdown")
    assert summary.exit_code == 0, summary.output
    assert "TS-Memory, PlugMem tiny, trained on demo (toy)" in summary.stdout
