import json
from pathlib import Path

import pytest
import toy

from tsbench.bench.store import ResultsStore
from tsbench.models.flame.model import PRESETS, FlameConfig

TINY = FlameConfig(width=16, encoder_layers=1, decoder_layers=1, patch=12, heads=2, state=4, legendre_order=4)
QUICK = "--steps 2 --batch-size 2"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "flame-small", TINY)


def test_pretrained_weights_run_as_a_method_and_under_an_adapter(
    tsbench: toy.Cli, store: ResultsStore, workplace: Path
) -> None:
    result = tsbench(f"pretrain --out flame {QUICK}")
    assert result.exit_code == 0, result.output
    assert "validation loss" in result.output
    cell = "--checkpoint flame --dataset demo --profile quick --lookback 48 --horizon 12 --results results"
    for line in (f"run --method flame {cell}", f"run --method flame --fine-tune {cell}"):
        result = tsbench(line)
        assert result.exit_code == 0, result.output
    assert "FLAME fine-tuned" in result.output
    kinds = {(record.spec.method, record.spec.backbone) for record in store.records()}
    assert kinds == {
        ("origin", "naive-last"),
        ("origin", "naive-seasonal"),
        ("origin", "flame-small"),
        ("flame", "flame-small"),
    }
    result = tsbench(f"run --method ts-memory --backbone flame-small {cell}")
    assert result.exit_code == 0, result.output
    assert any(record.spec.method == "ts-memory" for record in store.records())


def test_the_card_says_what_the_weights_are_made_from(tsbench: toy.Cli, workplace: Path) -> None:
    assert tsbench(f"pretrain --out flame --ablation quantile-head {QUICK}").exit_code == 0
    written = json.loads((workplace / "flame" / "flame.json").read_text())
    assert written["config"]["head"] == "quantile"
    assert written["card"]["windows"] == 4
    assert sum(written["card"]["synthetic_corpus"].values()) == pytest.approx(1)
    assert [evaluation["step"] for evaluation in written["card"]["validation"]] == [2]


def test_training_goes_on_from_earlier_weights(tsbench: toy.Cli, workplace: Path) -> None:
    assert tsbench(f"pretrain --out first {QUICK}").exit_code == 0
    result = tsbench(f"pretrain --out second --initial first {QUICK}")
    assert result.exit_code == 0, result.output
    assert json.loads((workplace / "second" / "flame.json").read_text())["card"]["from_earlier_weights"]


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("pretrain --out x --model flame-smal", "did you mean flame-small?"),
        ("pretrain --out x --batch-size 3 --processes 2", "use a multiple"),
        ("pretrain --out x --initial nowhere", "tsbench pretrain` finished"),
        ("pretrain --out x --real ETTh1", "choose a collection"),
        ("run --method ts-memory --fine-tune --dataset demo", "leave it out"),
        ("run --method flame --backbone fracast --dataset demo", "use --backbone flame-small"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(tsbench: toy.Cli, line: str, remedy: str) -> None:
    result = tsbench(line)
    assert result.exit_code == 2
    assert remedy in result.output
    assert "Traceback" not in result.output
