"""The documents say what the code does: commands parse, examples run, tables equal their source."""

import re
import runpy
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from tsbench.bench.columns import COLUMNS
from tsbench.bench.store import ResultsStore
from tsbench.cli import app, audit, bench, data, figures, latency, page, pretrain, report
from tsbench.config import PROFILES, CellSpec, Profile
from tsbench.data.catalog import LongEntry, catalogue
from tsbench.data.splits import Borders, split_borders
from tsbench.data.windows import WindowGrid
from tsbench.methods.task import Task
from tsbench.methods.ts_memory.losses import PaperRecipe, Recipe, ReleasedRecipe
from tsbench.models.flame.model import PRESETS, Flame
from tsbench.models.plugmem import PlugMemConfig, parameter_count
from tsbench.report.render import render
from tsbench.report.select import select
from tsbench.report.summary import summary_tables
from tsbench.stages import is_cost

# importing them registers the commands
assert audit and bench and data and figures and latency and page and pretrain and report

ROOT = Path(__file__).parents[1]
PATHS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def quoted_commands(text: str) -> list[str]:
    """Command lines whose program is tsbench: those of shell blocks and those between backticks."""
    in_blocks = "".join(fenced(text, "sh")).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    candidates = [*in_blocks, *re.findall(r"`([^`]+)`", prose)]
    return [" ".join(line.split()) for line in candidates if re.match(r"(\w+=\S+\s+)*tsbench\s", line)]


def parse(command: str) -> None:
    """Parse a command line as the console script would, without running it."""
    words = shlex.split(command, comments=True)
    name, *arguments = words[words.index("tsbench") + 1 :]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    group.commands[name].make_context(name, arguments)


def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def check_table(document: str, headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    table = markdown_table(headings, rows)
    assert table in DOCUMENTS[document], f"{document} must hold this table:\n\n{table}"


QUOTED = [(name, command) for name, text in DOCUMENTS.items() for command in quoted_commands(text)]


@pytest.mark.parametrize(("document", "command"), QUOTED)
def test_quoted_command_parses(document: str, command: str) -> None:
    parse(command)


@pytest.mark.parametrize(
    "command", ["tsbench walk", "tsbench run --profile quickest", "tsbench run --nope 1"]
)
def test_when_a_command_is_wrong_then_parsing_it_fails(command: str) -> None:
    with pytest.raises(Exception, match=r"walk|quickest|nope"):
        parse(command)


def test_readme_quotes_every_command() -> None:
    quoted = {line.split("tsbench ")[1].split()[0] for line in quoted_commands(DOCUMENTS["README.md"])}
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert quoted >= set(group.commands)


@pytest.mark.parametrize("example", fenced(DOCUMENTS["README.md"], "python"))
def test_readme_python_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path))
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_link_leads_to_a_file(document: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", DOCUMENTS[document]):
        assert (ROOT / document).parent.joinpath(target).exists(), target


def test_results_document_describes_every_column_of_a_record() -> None:
    rows = ((f"`{name}`", column.dtype.__name__, column.meaning) for name, column in COLUMNS.items())
    check_table("docs/results.md", ("column", "type", "meaning"), rows)


def test_results_document_names_every_stored_metric() -> None:
    stored = ResultsStore(ROOT / "results").table()["metric"].unique().to_list()
    metrics = [name for name in stored if not is_cost(name)]
    assert [name for name in metrics if f"| `{name}` |" not in DOCUMENTS["docs/results.md"]] == []


def test_every_stage_of_stored_costs_is_described() -> None:
    stored = ResultsStore(ROOT / "results").table()["metric"].unique().to_list()
    stages = {name.partition("_")[2] for name in stored if is_cost(name)}
    assert stages, "no record has costs"
    assert [name for name in sorted(stages) if f"| `{name}` |" not in DOCUMENTS["docs/performance.md"]] == []


def test_protocol_document_shows_the_profiles() -> None:
    def shown(value: object) -> str:
        return "all" if value == 2**62 else f"{value:,}" if isinstance(value, int) else str(value)

    fields = [field for field in Profile.model_fields if field != "name"]
    rows = ((f"`{field}`", *(shown(getattr(p, field)) for p in PROFILES.values())) for field in fields)
    check_table("docs/protocol.md", ("setting", *PROFILES), rows)


def test_protocol_document_shows_the_windows_and_strides() -> None:
    rows = []
    for entry in catalogue().entries.values():
        if isinstance(entry, LongEntry):
            borders = split_borders(entry.split, entry.rows)
            sizes = (f"{end - begin:,}" for begin, end in (borders.train, borders.val, borders.test))
            grids = [standard_test_windows(entry, borders, horizon) for horizon in entry.horizons]
            cells = (f"{grid.horizon}: {grid.total:,} / {grid.stride}" for grid in grids)
            rows.append((entry.name, *sizes, ", ".join(cells)))
    headings = ("data set", "train", "val", "test", "H: test windows / `standard` stride")
    check_table("docs/protocol.md", headings, rows)


def standard_test_windows(entry: LongEntry, borders: Borders, horizon: int) -> WindowGrid:
    """The test windows of a cell; they depend on the shape of the data only."""
    spec = CellSpec(method="origin", backbone="naive-last", dataset=entry.name, horizon=horizon, lookback=96)
    zeros = np.broadcast_to(np.float32(0), (entry.rows, entry.channels))
    task = Task(spec, PROFILES["standard"], None, borders, None, zeros, Path())  # type: ignore[arg-type]
    return task.test_windows()


def test_ts_memory_document_shows_the_sizes_of_plugmem() -> None:
    rows = []
    for size in ("tiny", "small", "base", "large"):
        config = PlugMemConfig.preset(size, lookback=512, horizon=720)
        counts = (parameter_count(PlugMemConfig.preset(size, 512, horizon)) for horizon in (96, 720))
        layers = (config.width, config.encoder_layers, config.decoder_layers)
        rows.append((f"`{size}`", *layers, *(f"{count:,}" for count in counts)))
    headings = ("size", "d", "encoder", "decoder", "parameters, H = 96", "H = 720")
    check_table("docs/ts-memory.md", headings, rows)


@pytest.mark.parametrize("recipe", [PaperRecipe(), ReleasedRecipe()])
def test_ts_memory_document_shows_the_weights_of_a_recipe(recipe: Recipe) -> None:
    rows = [(f"`{name}`", value) for name, value in asdict(recipe).items() if value is not None]
    check_table("docs/ts-memory.md", ("weight", "value"), rows)


def test_the_readme_table_is_that_of_the_committed_records() -> None:
    wanted = "profile=standard horizon=96 rollout=median lookback=512 train_dataset=none plugmem_from=none"
    shown_backbones = "backbone=naive-last,naive-seasonal,flame-small"
    chosen = select(ResultsStore(ROOT / "results").records(), f"{wanted} {shown_backbones}")
    records = [each for each in chosen if each.spec.options is None or each.spec.options.plugmem == "tiny"]
    tables = [render(summary_tables(records, score), "markdown") for score in ("mse", "crps")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("<!-- results:start -->")[2].partition("<!-- results:end -->")[0]
    assert shown.strip() == "\n".join(tables).strip()


def test_flame_document_and_model_card_show_the_committed_zero_shot_figures() -> None:
    table = runpy.run_path(str(ROOT / "benchmarks" / "flame_zero_shot.py"))["table"](ROOT / "results")
    document = (ROOT / "docs" / "flame.md").read_text(encoding="utf-8")
    shown = document.partition("<!-- zero-shot:start -->")[2].partition("<!-- zero-shot:end -->")[0]
    assert shown.strip() == table
    assert len(table.splitlines()) == 2 + 6 * 4
    weights = ROOT / "tsbench" / "models" / "flame" / "weights" / "flame-small"
    card = (weights / "README.md").read_text(encoding="utf-8")
    for line in table.splitlines():
        assert "|".join(line.split("|")[:7]) in card


def test_readme_shows_the_committed_gains() -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "adapter_tables.py"))
    table = tables["gains_table"](ROOT / "results", "flame-small")
    shown = DOCUMENTS["README.md"].partition("<!-- gains:start -->")[2].partition("<!-- gains:end -->")[0]
    assert shown.strip() == table
    assert len(table.splitlines()) == 2 + 6


def generated(document: str, block: str) -> str:
    """What stands between the marks of a block."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return text.partition(f"<!-- {block}:start -->")[2].partition(f"<!-- {block}:end -->")[0].strip()


def test_adapter_document_shows_the_committed_figures() -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "adapter_tables.py"))
    results = ROOT / "results"
    for backbone in ("flame-small", "fracast"):
        scores, gains = (
            tables["scores_table"](results, backbone),
            tables["gains_table"](results, backbone, ""),
        )
        assert generated("adapters.md", f"scores-{backbone}") == scores
        assert generated("adapters.md", f"gains-{backbone}") == gains
        for dataset in ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "Weather"):
            assert f"| {dataset}" in scores and f"| {dataset}" in gains
    assert generated("adapters.md", "sizes") == tables["sizes_table"](results, "flame-small")
    assert generated("adapters.md", "transfer") == tables["transfer_table"](results)


def test_supervised_document_shows_the_committed_figures() -> None:
    table = runpy.run_path(str(ROOT / "benchmarks" / "supervised_table.py"))["table"](ROOT / "results")
    assert generated("supervised.md", "supervised") == table
    assert len(table.splitlines()) > 12


def test_latency_document_shows_the_committed_figures() -> None:
    table = runpy.run_path(str(ROOT / "benchmarks" / "latency_table.py"))["table"](ROOT / "results")
    assert generated("latency.md", "latency") == table
    assert len(table.splitlines()) > 2 + 4 * 4


def test_f_llm_document_shows_the_committed_figures() -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "f_llm_tables.py"))
    document = (ROOT / "docs" / "f-llm.md").read_text(encoding="utf-8")
    for name in ("long", "transfer"):
        shown = document.partition(f"<!-- f-llm-{name}:start -->")[2].partition(f"<!-- f-llm-{name}:end -->")[
            0
        ]
        table = tables[f"{name}_table"](ROOT / "results")
        assert shown.strip() == table
        assert len(table.splitlines()) > 3


def test_flame_document_shows_the_sizes() -> None:
    rows = []
    for name, config in PRESETS.items():
        count = sum(parameter.numel() for parameter in Flame(config).parameters())
        shape = (config.width, config.encoder_layers, config.decoder_layers)
        rows.append((f"`{name}`", *shape, f"{count:,}"))
    check_table("docs/flame.md", ("size", "d", "encoder", "decoder", "parameters"), rows)
