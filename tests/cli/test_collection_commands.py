from pathlib import Path

import pytest
import short_series
import toy

from tsbench.bench.store import ResultsStore


@pytest.fixture(autouse=True)
def _series(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collections = {
        "M3-Other": short_series.seasonal(6, 40, 1),
        "M4-Hourly": short_series.seasonal(4, 160, 24),
        "M4-Quarterly": short_series.seasonal(12, 28, 4),
    }
    short_series.install(monkeypatch, workplace / "home", collections)


def test_run_prints_a_table_per_collection_and_finds_everything_done_again(
    tsbench: toy.Cli, store: ResultsStore
) -> None:
    line = "run --method origin --backbone toy --dataset m3-other M4-Hourly"
    result = tsbench(line)
    assert result.exit_code == 0
    assert "[4/8] M3-Other H=8: origin on toy, seed 0" in result.stderr.splitlines()
    assert "forecasting 6 of 6 series" in result.stderr
    for title in ("M3-Other, H = 8 · 6 of 6 series", "M4-Hourly, H = 48 · 4 of 4 series"):
        assert title in result.stdout
    for heading in ("SMAPE", "MASE", "OWA", "│ Naive2", "│ Origin"):
        assert heading in result.stdout
    assert "MSE" not in result.stdout
    assert {record.spec.horizon for record in store.records()} == {8, 48}
    again = tsbench(line)
    assert again.stderr.count("already done") == 8
    assert again.stdout == result.stdout
    report = tsbench("report --summary owa")
    assert report.exit_code == 0
    assert "official horizons" in report.stdout


def test_the_official_horizon_may_be_given_and_another_is_refused(tsbench: toy.Cli) -> None:
    line = "eval --method origin --backbone naive2 --dataset M4-Hourly"
    assert tsbench(f"{line} --horizon 48").exit_code == 0
    refused = tsbench(f"{line} --horizon 24")
    assert refused.exit_code == 2
    assert refused.stderr == "error: M4-Hourly is scored on 48 steps, not 24; leave out --horizon\n"


def test_there_is_nothing_to_train_without_a_method(tsbench: toy.Cli) -> None:
    result = tsbench("train --method origin --backbone naive2 --dataset M4-Hourly")
    assert result.exit_code == 0
    assert "nothing to train" in result.stderr


def test_a_summary_of_a_score_that_nothing_has_says_so(tsbench: toy.Cli) -> None:
    assert tsbench("eval --method origin --backbone naive2 --dataset M4-Hourly").exit_code == 0
    result = tsbench("report --summary mse")
    assert result.exit_code == 2
    assert "none of the chosen results has the score mse; use another --summary" in result.stderr


def test_without_a_horizon_long_data_sets_have_96_steps(tsbench: toy.Cli, store: ResultsStore) -> None:
    assert tsbench("eval --method origin", *toy.CELL).exit_code == 0
    (record,) = store.records()
    assert (record.spec.horizon, record.spec.lookback) == (96, 48)


def test_f_llm_is_trained_on_one_collection_and_scored_on_another(
    tsbench: toy.Cli, store: ResultsStore, llama: str
) -> None:
    line = f"run --method f-llm --checkpoint {llama} --dataset M3-Other --profile quick"
    result = tsbench(f"{line} --train-dataset m4-quarterly")
    assert result.exit_code == 0
    assert "f-llm plant: step 4," in result.stderr
    assert "F-LLM: zero-shot, trained on the training parts of M4-Quarterly." in result.stdout
    rows = [text.split("│")[1].strip() for text in result.stdout.splitlines() if text.startswith("│")]
    assert rows == ["Repeat last", "Seasonal naive", "Naive2", "F-LLM without feedback", "F-LLM"]
    (record,) = [r for r in store.records() if r.spec.f_llm and r.spec.f_llm.form == "closed-loop"]
    assert (record.spec.lookback, record.spec.train_dataset) == (16, "M4-Quarterly")
    assert record.spec.f_llm is not None
    assert record.spec.f_llm.patch == 8
    assert tsbench(line).stderr.count("already done") == 5  # the source is the default one
    own = tsbench(f"eval {line.removeprefix('run ')} --patch 4 --lookback 12 --form open-loop")
    assert own.exit_code == 0
    assert "F-LLM without feedback, patch 4" in own.stdout


def test_a_source_is_refused_where_nothing_is_carried_over(tsbench: toy.Cli) -> None:
    result = tsbench("eval --method origin --dataset M3-Other --train-dataset M4-Quarterly")
    assert result.exit_code == 2
    assert (
        "--train-dataset is for --method f-llm on M3 and M4, and for ts-memory and lora on" in result.stderr
    )
