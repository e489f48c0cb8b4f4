import shutil
import sys
from pathlib import Path

import pytest
import torch
import toy
from typer.testing import Result

from tsbench.bench.store import ResultsStore

TOY = "--backbone toy --dataset demo --profile quick --lookback 48 --horizon 24"
NAIVE = "--backbone naive-last --method origin --profile quick"


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistakes are found before the first second of work: no cell may begin."""

    def begin(*args: object) -> None:
        raise AssertionError("a cell began")

    monkeypatch.setattr("tsbench.bench.runner.Bench.task", begin)


def errors(result: Result) -> list[str]:
    """The lines of a refusal, which must consist of nothing else."""
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def assert_nothing_written(folder: Path) -> None:
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("line", "cause", "remedy"),
    [
        (f"run {TOY} --dataset ETTh3", "unknown dataset 'ETTh3'", "did you mean ETTh1, ETTh2?"),
        (f"run {TOY} --dataset xyz", "unknown dataset 'xyz'", "known are demo, ETTh1"),
        (f"run {TOY} --backbone fracats", "unknown backbone 'fracats'", "did you mean fracast?"),
        (f"eval {TOY} --method tsmemory", "unknown method 'tsmemory'", "did you mean ts-memory?"),
        (
            f"run {TOY} --method xyz",
            "unknown method 'xyz'",
            "known: f-llm, flame, lora, origin, raft, supervised, ts-memory, ts-rag",
        ),
        (
            f"run {TOY} --horizon 801",
            "horizon 801 is longer than the test split of 800 rows",
            "use a shorter horizon",
        ),
        (
            f"run {TOY} --method supervised",
            "method 'supervised' needs an untrained architecture, not toy",
            "use --backbone dlinear",
        ),
        (
            f"run {TOY} --method origin --backbone dlinear",
            "'dlinear' is an untrained architecture",
            "forecasts only with --method supervised",
        ),
        (
            "run --method supervised --dataset demo --samples 10",
            "method 'supervised' forecasts points and draws no paths",
            "leave out --samples",
        ),
        (
            "run --method ts-rag --backbone naive-seasonal --dataset demo",
            "method 'ts-rag' needs a backbone with an encoder; naive-seasonal has none",
            "choose flame-small or chronos-bolt",
        ),
        (
            "run --method raft --backbone dlinear --dataset demo",
            "'dlinear' is an untrained architecture",
            "forecasts only with --method supervised",
        ),
        (
            "eval --method raft --backbone toy --dataset M4-Hourly",
            "method 'raft' learns from the windows of a long data set",
            "on M4-Hourly use --method origin",
        ),
        (
            f"run {TOY} --method ts-rag --lookback 2390",
            "lookback 2390 and horizon 24 need 2414 rows, but the train split has 2400",
            "use a shorter lookback or horizon",
        ),
        (
            f"run {TOY} --method raft --backbone toy-paths --samples 10",
            "method 'raft' fuses quantiles and draws no paths",
            "use --method origin",
        ),
        (f"build-teacher {TOY} --method ts-rag", "method 'ts-rag' has no teacher", "use --method ts-memory"),
        (
            f"run {TOY} --method lora",
            "adapts chronos-bolt-*, chronos-2 and FLAME, not toy",
            "use --backbone flame-small",
        ),
        (
            "eval --method origin --backbone chronos-2-multivariate --dataset M4-Hourly",
            "forecasts channels together, but a series of M4-Hourly has one",
            "use --backbone chronos-2",
        ),
        (
            "run --method lora --backbone smollm2 --dataset demo",
            "'smollm2' is a language model",
            "forecasts only with --method f-llm",
        ),
        (f"run {TOY} --horizon 0", "horizon is 0", "greater than or equal to 1; give another value"),
        (f"run {TOY} --seed -1", "seed is -1", "greater than or equal to 0; give another value"),
        (
            f"run {TOY} --lookback 2390",
            "lookback 2390 and horizon 24 need 2414 rows, but the train split has 2400",
            "use a shorter lookback or horizon",
        ),
        (
            f"eval {NAIVE} --dataset demo --lookback 3300",
            "lookback 3300 is longer than the 3200 rows before the test split",
            "use a shorter lookback",
        ),
        (f"run {TOY} --test-stride 0", "test_stride is 0", "give another value"),
        (f"run {TOY} --samples 1", "samples is 1", "greater than or equal to 2; give another value"),
        (f"run {TOY} --samples 10", "toy forecasts quantiles and draws no paths", "such as flame-small"),
        (
            f"run {TOY} --backbone toy-paths --samples 10",
            "method 'ts-memory' fuses quantiles and draws no paths",
            "use --method origin",
        ),
        (
            f"run {TOY} --drop-last 1000",
            "dropping the last incomplete batch of 1000 leaves no test window",
            "use a smaller batch",
        ),
        (f"run {TOY} --device tpu", "unknown device 'tpu'", "use cpu, cuda or cuda:N"),
        (f"run {TOY} --device mps", "unknown device 'mps'", "use cpu, cuda or cuda:N"),
        (
            "run --backbone naive-last --dataset demo",
            "method 'ts-memory' needs a backbone with an encoder; naive-last has none",
            "choose flame-small or chronos-bolt",
        ),
        (f"run {TOY} --plugmem-from tooy", "unknown backbone 'tooy'", "did you mean toy"),
        (
            f"run {TOY} --plugmem-from naive-last",
            "method 'ts-memory' needs a backbone with an encoder; naive-last has none",
            "choose flame-small or chronos-bolt",
        ),
        (
            f"run {TOY} --method raft --plugmem-from toy-paths",
            "--plugmem-from belongs to --method ts-memory, not to raft",
            "leave it out",
        ),
        (f"run {TOY} --train-dataset ETTh1 ETTh3", "unknown dataset 'ETTh3'", "did you mean ETTh1, ETTh2?"),
        (f"run {TOY} --train-dataset M3-Other", "M3-Other is a collection of short series", "such as ETTh1"),
        (
            f"run {TOY} --method origin --train-dataset ETTh1",
            "--train-dataset is for --method f-llm on M3 and M4, and for ts-memory and lora",
            "leave it out",
        ),
        (
            "run --csv sales.csv --freq 1D --backbone toy --train-dataset demo --lookback 48 --horizon 41",
            "horizon 41 is longer than the val split of 40 rows",
            "use a shorter horizon",
        ),
        (
            f"run {NAIVE} --dataset M4-Hourly --horizon 96",
            "M4-Hourly is scored on 48 steps, not 96",
            "leave out --horizon",
        ),
        (
            f"run {TOY} --recipe released --ablation no-delta-align",
            "the released recipe has no ablation 'no-delta-align'",
            "use none, no-distillation",
        ),
        (
            f"build-teacher {TOY} --method origin",
            "method 'origin' has no teacher",
            "use --method ts-memory",
        ),
        (
            f"build-teacher {TOY} --ablation no-retrieval",
            "ablation 'no-retrieval' has no teacher",
            "leave it out",
        ),
        (f"run {NAIVE} --csv sales.csv", "--csv sales.csv needs its step", "add --freq, such as --freq 1h"),
        (f"run {NAIVE} --csv none.csv --freq 1D", "cannot read none.csv", "check the path"),
        (f"run {NAIVE} --csv sales.csv --freq daily", "unknown frequency 'daily'", "such as 15min"),
        (f"run {NAIVE} --csv sales.csv --freq 1h", "not the frequency '1h'", "correct --freq"),
        (
            f"run {NAIVE} --csv sales.csv --freq 1D --split 0.7,0.2",
            "split '0.7,0.2' is not three numbers",
            "use shares such as 0.7,0.1,0.2",
        ),
        (
            f"run {NAIVE} --csv sales.csv --freq 1D --split 0.7,0.2,0.2",
            "split 0.7,0.2,0.2 sums to 1.1",
            "shares must sum to 1",
        ),
    ],
)
def test_a_mistake_is_one_line_with_cause_and_remedy(
    tsbench: toy.Cli, store: ResultsStore, sales: Path, line: str, cause: str, remedy: str
) -> None:
    (said,) = errors(tsbench(line))
    assert cause in said
    assert remedy in said
    assert_nothing_written(store.root)


@pytest.mark.parametrize(
    "options",
    [
        "--profile fast",
        "--exclusion future",
        "--exclusion self future",
        "--ablation everything",
        "--recipe own",
        "--plugmem huge",
        "--alpha-policy test",
        "--rollout mean",
        "--horizon ninety",
        "--threads 0",
        "--mirror nowhere",
        "--unknown",
    ],
)
def test_a_value_outside_its_choices_is_a_usage_error(
    tsbench: toy.Cli, store: ResultsStore, options: str
) -> None:
    result = tsbench(f"run {TOY} {options}")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert options.split()[0] in result.stderr
    assert "Usage: tsbench run" in result.stderr
    assert_nothing_written(store.root)


def test_an_unknown_command_is_answered_with_a_near_one(tsbench: toy.Cli) -> None:
    result = tsbench("evla")
    assert result.exit_code == 2
    assert "No such command 'evla'. Did you mean 'eval'?" in result.stderr


def test_all_mistakes_are_reported_together(tsbench: toy.Cli, workplace: Path) -> None:
    said = errors(tsbench("run --method foo --backbone bar --dataset ETTh9 EETm1"))
    assert [line.split(";")[0] for line in said] == [
        "unknown method 'foo'",
        "unknown backbone 'bar'",
        "unknown dataset 'ETTh9'",
        "unknown dataset 'EETm1'",
    ]
    said = errors(tsbench(f"run {TOY} --horizon 0 --horizon -5 --test-stride 0"))
    assert [line.split(":")[0] for line in said] == ["test_stride is 0", "horizon is 0", "horizon is -5"]
    (workplace / "file").touch()
    said = errors(tsbench(f"run {TOY} --horizon 801 --device tpu --results file"))
    assert len(said) == 2
    assert said[0].startswith("cannot write file/records")
    said = errors(tsbench(f"run {TOY} --horizon 801 900"))
    assert len(said) == 2


@pytest.mark.parametrize("cell", ["", "nan", "NA"])
def test_a_missing_value_in_the_users_csv_is_located(
    tsbench: toy.Cli, store: ResultsStore, sales: Path, cell: str
) -> None:
    lines = sales.read_text().splitlines()
    lines[50] = f"{lines[50].split(',')[0]},3,{cell}"
    sales.write_text("\n".join(lines))
    (said,) = errors(tsbench(f"run {NAIVE} --csv sales.csv --freq 1D"))
    assert said == (
        "sales.csv, line 51, column 'online': the value is missing; "
        "interpolate it or drop the row or the column"
    )
    assert_nothing_written(store.root)


def test_a_word_in_the_users_csv_is_located(tsbench: toy.Cli, sales: Path) -> None:
    sales.write_text(sales.read_text().replace(",10,", ",ten,", 1))
    (said,) = errors(tsbench(f"run {NAIVE} --csv sales.csv --freq 1D"))
    assert said.startswith("sales.csv, line 2, column 'store': 'ten' is not a finite number")


@pytest.mark.parametrize("command", ["run", "eval", "train", "build-teacher"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "fracast", None)
    (said,) = errors(tsbench(f"{command} --backbone fracast --dataset demo"))
    assert said == "backbone 'fracast' needs the package fracast; pip install 'tsbench[fracast]'"
    assert_nothing_written(store.root)


def test_cuda_without_cuda_is_refused(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (said,) = errors(tsbench(f"run {TOY} --device cuda"))
    assert "device 'cuda' is not available: PyTorch sees 0 CUDA devices" in said
    assert "use --device cpu or install a CUDA build of PyTorch" in said
    assert_nothing_written(store.root)


@pytest.mark.parametrize("command", ["run", "eval", "train", "build-teacher"])
def test_an_unwritable_results_directory_is_found_at_once(
    tsbench: toy.Cli, workplace: Path, command: str
) -> None:
    (workplace / "results").write_text("a file in the way")
    (said,) = errors(tsbench(f"{command} {TOY}"))
    assert said.startswith("cannot write results/records")
    assert said.endswith("choose a writable directory")
    assert (workplace / "results").read_text() == "a file in the way"


@pytest.mark.parametrize("text", ["abc", "", "inf", "nan", "-1"])
def test_a_cache_budget_that_is_no_size_is_refused(
    tsbench: toy.Cli, store: ResultsStore, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("TSBENCH_CACHE_GB", text)
    (said,) = errors(tsbench(f"run {TOY}"))
    assert said == f"TSBENCH_CACHE_GB is '{text}'; set it to a number of gigabytes"
    assert_nothing_written(store.root)


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_corrupted_file_of_the_mirror_is_refused_and_nothing_is_cached(
    tsbench: toy.Cli, store: ResultsStore, workplace: Path, command: str
) -> None:
    mirror = workplace / "mirror"
    (mirror / "ETT").mkdir(parents=True)
    prefix = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/"
    (mirror / "MANIFEST.toml").write_text(f'[[prefix]]\nurl = "{prefix}"\npath = "ETT/"\n')
    (mirror / "ETT" / "ETTh1.csv").write_text("date,OT\n2016-07-01 00:00:00,1.0\n")
    (said,) = errors(tsbench(f"{command} --backbone toy --dataset ETTh1 --mirror {mirror}"))
    assert f"{mirror / 'ETT' / 'ETTh1.csv'} has sha256 " in said
    assert "expected f18de3ad269c" in said
    assert "get it again with `tsbench download`" in said
    assert_nothing_written(store.root)
    assert_nothing_written(workplace / "home")


@pytest.mark.realdata
def test_one_changed_byte_of_real_data_is_caught(tsbench: toy.Cli, workplace: Path, mirror: Path) -> None:
    copy = workplace / "mirror"
    shutil.copytree(mirror / "ETDataset", copy / "ETDataset")
    shutil.copy(mirror / "MANIFEST.toml", copy)
    assert tsbench(f"download ETTh1 --mirror {copy}").exit_code == 0
    path = copy / "ETDataset" / "ETT-small" / "ETTh1.csv"
    content = bytearray(path.read_bytes())
    content[1_000_003] ^= 1
    path.write_bytes(content)
    for command in (f"download ETTh1 --mirror {copy}", f"run {NAIVE} --dataset ETTh1 --mirror {copy}"):
        (said,) = errors(tsbench(command))
        assert f"{path} has sha256 " in said


def test_a_damaged_download_is_refused(tsbench: toy.Cli, workplace: Path) -> None:
    path = workplace / "home" / "data" / "ETT" / "ETTh1.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of a fi")
    (said,) = errors(tsbench(f"run {NAIVE} --dataset ETTh1"))
    assert f"{path} has sha256 " in said
    assert "delete the file" in said


def test_debug_shows_the_traceback(tsbench: toy.Cli) -> None:
    result = tsbench(f"--debug run {TOY} --horizon 0")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: horizon is 0")
