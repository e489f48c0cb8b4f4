import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import toy

from tsbench.bench.grid import default_settings, variants
from tsbench.bench.plan import Plan, SuiteCell, expand, plan_suite
from tsbench.bench.runner import Bench, run_cells
from tsbench.bench.store import ResultsStore
from tsbench.bench.suite import load_suite
from tsbench.config import PROFILES, FLlmOptions
from tsbench.errors import TsbenchError

SETTINGS = default_settings(PROFILES["quick"])
HEAD = """
title = "Mine"
datasets = ["demo"]
horizons = [12, 24]
lookback = 48
"""
TOY = HEAD + '[[rows]]\nmethod = "origin"\nbackbones = ["toy"]\n'


def row(method: str, backbone: str, more: str = "") -> str:
    return f'[[rows]]\nmethod = "{method}"\nbackbones = ["{backbone}"]\n{more}\n'


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    for name in ("TSBENCH_MIRROR", "TSBENCH_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    toy.install(monkeypatch)
    return tmp_path


@pytest.fixture
def bench(workplace: Path) -> Bench:
    """A bench with a mirror that holds nothing."""
    mirror = workplace / "mirror"
    mirror.mkdir()
    (mirror / "MANIFEST.toml").write_text('[[prefix]]\nurl = "https://huggingface.co/"\npath = "hf/"\n')
    return Bench(ResultsStore(workplace / "results"), mirror)


@pytest.fixture
def planned(bench: Bench, workplace: Path) -> Callable[..., Plan]:
    """Plan a suite of this text."""

    def plan(text: str, **options: Any) -> Plan:
        (workplace / "mine.toml").write_text(text)
        shared = {"only": [], "backbone": None, "settings": SETTINGS, "seeds": [0], "profile": "quick"}
        return plan_suite(bench, str(workplace / "mine.toml"), **shared | options)

    return plan


@pytest.fixture
def expanded(workplace: Path) -> Callable[..., list[SuiteCell]]:
    """Expand a suite of this text."""

    def cells(text: str, **options: Any) -> list[SuiteCell]:
        (workplace / "mine.toml").write_text(text)
        shared = {"settings": SETTINGS, "seeds": [0], "profile": "quick"}
        return expand(load_suite(str(workplace / "mine.toml")), **shared | options)

    return cells


def test_cells_stand_data_set_by_data_set_with_the_longest_horizon_first(
    expanded: Callable[..., list[SuiteCell]],
) -> None:
    text = HEAD.replace('"demo"', '"demo", "ETTh1"') + row("origin", "toy") + row("raft", "toy")
    found = [(cell.spec.dataset, cell.spec.method, cell.spec.horizon) for cell in expanded(text)]
    assert found == [
        (dataset, method, horizon)
        for dataset in ("demo", "ETTh1")
        for method in ("origin", "raft")
        for horizon in (24, 12)
    ]


def test_a_row_changes_the_settings_it_names_and_no_others(
    expanded: Callable[..., list[SuiteCell]],
) -> None:
    asked = {
        "ts-memory": variants(exclusions=["self", "window"], ablations=["none"], plugmem="tiny"),
        "f-llm": [FLlmOptions(observer_window=2)],
    }
    text = HEAD + row("ts-memory", "toy", 'options.plugmem = "large"') + row("ts-memory", "toy")
    memories = [cell.spec.options for cell in expanded(text, settings=asked) if cell.spec.horizon == 24]
    assert [(each.plugmem, each.teacher.exclusion) for each in memories if each] == [
        ("large", "self"),
        ("large", "window"),
        ("tiny", "self"),
        ("tiny", "window"),
    ]
    lines = 'lookback = 672\noptions = { form = "mlp", layers = 2 }'
    (loop, _) = (cell.spec.f_llm for cell in expanded(HEAD + row("f-llm", "gpt2", lines), settings=asked))
    assert loop == FLlmOptions(form="mlp", layers=2, observer_window=2)


def test_seeds_multiply_what_is_trained(expanded: Callable[..., list[SuiteCell]]) -> None:
    found = expanded(HEAD + row("origin", "toy") + row("ts-memory", "toy"), seeds=[0, 1])
    assert sorted((cell.spec.method, cell.spec.seed) for cell in found) == [
        *[("origin", 0)] * 2,
        *[("ts-memory", 0)] * 2,
        *[("ts-memory", 1)] * 2,
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (row("raft", "fracats"), "suite mine: unknown backbone 'fracats'; did you mean fracast?"),
        (row("tsmemory", "toy"), "suite mine: unknown method 'tsmemory'; did you mean ts-memory?"),
        (row("raft", "toy", "options.plugmem = 'base'"), "suite mine: method 'raft' takes no options"),
        (row("ts-memory", "toy", "options.plugmem = 'huge'"), "suite mine: plugmem is 'huge': input should"),
        (
            row("ts-memory", "toy", "options.size = 'base'"),
            "suite mine: size is 'base': extra inputs",
        ),
        (row("origin", "toy", "horizons = [0]"), "suite mine: horizon is 0: input should be greater"),
        (row("origin", "toy", "fine_tune = true"), "suite mine: --fine-tune belongs to --method flame"),
    ],
)
def test_a_mistake_in_a_row_names_the_suite(
    expanded: Callable[..., list[SuiteCell]], rows: str, said: str
) -> None:
    with pytest.raises(TsbenchError) as caught:
        expanded(HEAD + rows)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(said)


def test_one_checkpoint_is_for_one_backbone_and_not_for_supervised_rows(
    expanded: Callable[..., list[SuiteCell]],
) -> None:
    text = HEAD + row("origin", "flame-base") + row("supervised", "dlinear")
    found = {cell.spec.backbone: cell.spec.checkpoint for cell in expanded(text, checkpoint="here")}
    assert found == {"flame-base": "here", "dlinear": None}
    with pytest.raises(TsbenchError, match="of one backbone, but suite mine has flame-base, toy; choose one"):
        expanded(text + row("raft", "toy"), checkpoint="here")


def test_what_is_stored_is_done_and_the_rest_is_ready(
    bench: Bench, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TOY + row("raft", "toy")
    first = planned(text)
    assert (len(first.cells), first.done, first.missing) == (4, frozenset(), {})
    run_cells(bench, first.cells[:1])
    lines: list[str] = []
    monkeypatch.setattr(bench, "progress", lines.append)
    second = planned(text)
    assert second.cells == first.cells
    assert second.done == {first.cells[0]}
    assert lines == ["mine: 4 cells: 1 done before, 3 to run, 0 missing"]


def test_cells_that_are_done_need_neither_data_nor_weights(
    bench: Bench, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cells(bench, planned(TOY).cells)

    def fail(*_: object) -> None:
        raise AssertionError("something was loaded for a cell that is done")

    monkeypatch.setattr(Bench, "backbone", fail)
    monkeypatch.setattr("tsbench.bench.checks._check_cell", fail)
    assert len(planned(TOY).done) == 2


def test_missing_cells_are_counted_by_reason(
    planned: Callable[..., Plan], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_network(url: str, **_: object) -> None:
        asked.append(url)
        raise requests.ConnectionError

    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(requests, "head", no_network)
    monkeypatch.setitem(sys.modules, "fracast", None)
    text = (
        HEAD.replace('"demo"', '"demo", "Electricity"')
        + row("origin", "toy")
        + row("origin", "chronos-bolt-base")
        + row("ts-memory", "chronos-bolt-base")
        + row("ts-memory", "toy", 'datasets = ["demo"]\nplugmem_from = "chronos-bolt-base"')
        + row("ts-memory", "toy", 'datasets = ["demo"]\ntrain_datasets = ["Electricity", "demo"]')
        + row("origin", "fracast")
        + row("origin", "flame-base")
        + row("ts-memory", "naive-last", 'datasets = ["demo"]')
        + row("origin", "naive-last", 'datasets = ["demo"]\nhorizons = [900]')
        + '[[absent]]\nmethods = ["lvicl", "simpletm"]\nreason = "LVICL and SimpleTM are not in tsbench"\n'
    )
    found = planned(text)
    reasons = {reason.split(";")[0]: count for reason, count in found.missing.items()}
    assert reasons == {
        f"the mirror {bench.mirror} lacks electricity/electricity.csv of Electricity": 6,
        "cannot load 'chronos-bolt-base' from 'amazon/chronos-bolt-base': no such directory here, and the "
        "Hugging Face hub does not answer": 10,
        "backbone 'fracast' needs the package fracast": 4,
        "backbone 'flame-base' ships no weights": 2,
        "method 'ts-memory' needs a backbone with an encoder": 2,
        "horizon 900 is longer than the test split of 800 rows": 1,
        "LVICL and SimpleTM are not in tsbench": 8,
    }
    assert len(asked) == 1
    assert [cell.backbone for cell in found.cells] == ["toy", "toy"]


def test_what_concerns_every_cell_is_an_error(planned: Callable[..., Plan]) -> None:
    with pytest.raises(TsbenchError, match="unknown device 'tpu'"):
        planned(TOY, device="tpu")
