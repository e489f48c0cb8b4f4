import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import toy
from programs import LIMIT_S, wait_until

import tsbench as package
from tsbench.bench.records import Record
from tsbench.bench.store import ResultsStore

HEAVY = {
    "torch",
    "pandas",
    "polars",
    "faiss",
    "numpy",
    "scipy",
    "transformers",
    "chronos",
    "fracast",
}

# Waits for input after its first checkpoint, so that the kill falls into the training whatever the machine.
HALTING_PROGRAM = """
import sys
import pytest, toy
from tsbench.cli import main
from tsbench.training import loop
take_step = loop._take_step

def halt(*args):
    if args[-2] == 2:
        sys.stdin.read()
    return take_step(*args)

loop._take_step = halt
toy.install(pytest.MonkeyPatch())
main()
"""


def start(*command: str, home: Path) -> "subprocess.Popen[str]":
    paths = [str(Path(toy.__file__).parent), os.environ["PYTHONPATH"]]
    environment = os.environ | {"TSBENCH_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, stderr
    return stdout, stderr


def test_what_is_started_is_the_package_under_test(tmp_path: Path) -> None:
    stdout, _ = finish(start("-c", "import tsbench; print(tsbench.__file__)", home=tmp_path))
    assert stdout.strip() == package.__file__


def test_the_module_and_the_console_script_are_the_same_program(tmp_path: Path) -> None:
    by_module, _ = finish(start("-m", "tsbench", "--version", home=tmp_path))
    assert by_module == f"tsbench {version('tsbench')}\n"
    script = Path(sys.executable).with_name("tsbench")
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert by_script.stdout == by_module


def test_a_mistake_ends_the_program_with_one_line_and_status_2(tmp_path: Path) -> None:
    process = start("-m", "tsbench", "run", "--backbone", "fracats", "--dataset", "demo", home=tmp_path)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, stdout) == (2, "")
    assert stderr == "error: unknown backbone 'fracats'; did you mean fracast?\n"


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], HEAVY | {"pydantic"}),
        (["--version"], HEAVY | {"pydantic"}),
        (["run", "--help"], HEAVY),  # typer reads a command's parameters with pydantic
        (["list", "methods"], HEAVY),
    ],
)
def test_help_and_lists_load_nothing_heavy(tmp_path: Path, arguments: list[str], heavy: set[str]) -> None:
    program = (
        "import sys\nfrom tsbench.cli import main\n"
        f"try: main()\nfinally: print(sorted({heavy!r} & sys.modules.keys()), file=sys.stderr)"
    )
    stdout, stderr = finish(start("-c", program, *arguments, home=tmp_path))
    assert stdout
    assert stderr.strip() == "[]"


def test_a_run_killed_in_training_ends_with_the_record_of_an_undisturbed_one(
    tmp_path: Path, tsbench: toy.Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arguments(name: str) -> tuple[str, ...]:
        cell = ("--method", "ts-memory", "--horizon", "24", "--threads", "1", *toy.CELL)
        return ("eval", *cell, "--results", str(tmp_path / name / "results"))

    def run(name: str) -> str:
        monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / name))
        result = tsbench(*arguments(name))
        assert result.exit_code == 0, result.stderr
        return result.stderr

    def steps(progress: str) -> list[str]:
        lines = progress.splitlines()
        return [line[9:].partition(",")[0] for line in lines if line.startswith("plugmem: step ")]

    def record(name: str) -> Record:
        store = ResultsStore(tmp_path / name / "results")
        (found,) = store.records()
        loaded = store.load(found.key)
        assert loaded is not None
        return loaded

    killed = start("-c", HALTING_PROGRAM, *arguments("killed"), home=tmp_path / "killed")
    assert steps(run("undisturbed")) == ["step 2", "step 4"]
    wait_until(lambda: any((tmp_path / "killed").rglob("checkpoint.safetensors")), killed)
    killed.kill()
    killed.communicate(timeout=LIMIT_S)
    assert killed.returncode == -signal.SIGKILL
    assert not ResultsStore(tmp_path / "killed" / "results").records()
    progress = run("killed")
    assert "teacher: already built" in progress
    assert steps(progress) == ["step 4"]

    again, undisturbed = record("killed"), record("undisturbed")
    assert again.key == undisturbed.key
    assert again.alpha == undisturbed.alpha
    assert again.metrics == undisturbed.metrics
    assert again.window_scores is not None
    assert undisturbed.window_scores is not None
    for name, scores in vars(undisturbed.window_scores).items():
        np.testing.assert_array_equal(getattr(again.window_scores, name), scores)
