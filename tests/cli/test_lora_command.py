import sys

import pytest
import toy

from tsbench.bench.store import ResultsStore

RUN = "run --method lora --backbone flame-small --dataset demo --profile quick --lookback 48 --horizon 24"


def test_lora_is_a_row_beside_the_backbone_as_it_is(tsbench: toy.Cli, store: ResultsStore) -> None:
    pytest.importorskip("peft")
    result = tsbench(RUN, "--test-stride", "40")
    assert result.exit_code == 0, result.output
    assert "│ LoRA" in result.stdout
    assert "│ Origin" in result.stdout
    assert "lora at 0.001: step 4" in result.stderr
    scores = {record.spec.method: record.metrics for record in store.records()}
    assert scores["lora"]["lora_rank"] == 128
    assert scores["lora"]["lora_parameters"] == 802_816
    assert scores["lora"]["learning_rate"] == 1e-3
    assert scores["lora"]["val_pinball_after"] <= scores["lora"]["val_pinball_before"]
    moved = scores["lora"]["crps"] != scores["origin"]["crps"]
    assert moved == (scores["lora"]["lora_steps"] > 0)


def test_when_peft_is_missing_then_the_run_says_how_to_get_it(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    result = tsbench(RUN)
    assert result.exit_code == 2
    assert result.stderr == ("error: method 'lora' needs the package peft; pip install 'tsbench[lora]'\n")
    assert store.records() == []


def test_when_peft_is_missing_then_f_llms_comparison_is_refused_before_work(
    tsbench: toy.Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setitem(sys.modules, "peft", None)
    result = tsbench("run --method f-llm --form lora --dataset demo --lookback 96 --patch 24")
    assert result.exit_code == 2
    assert result.stderr == "error: --form lora needs the package peft; pip install 'tsbench[lora]'\n"
