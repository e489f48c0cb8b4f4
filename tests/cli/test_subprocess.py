import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import toy

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

TOY_PROGRAM = """
import pytest, toy
from tsbench.cli import main
toy.install(pytest.MonkeyPatch())
main()
"""
# Waits for input after its first checkpoint, so that the kill falls into the training whatever the machine.
HALTING_PROGRAM = (
    """
import sys
from tsbench.training import loop
take_step = loop._take_step

def halt(*args):
    if args[-2] == 2:
        sys.stdin.read()
    return take_step(*args)

loop._take_step = halt
"""
    + TOY_PROGRAM
)


def start(*command: str, home: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {
        "TSBENCH_HOME": str(home),
        "PYTHONPATH": str(Path(toy.__file__).parent),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return stdout, stderr


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for the condition while the process runs, at most two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        try:
            process.wait(timeout=0.005)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended early with {process.returncode}")


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
    stdout, stderr = process.communicate(timeout=120)
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


def test_a_run_killed_in_training_ends_with_the_record_of_an_undisturbed_one(tmp_path: Path) -> None:
    def run(name: str, program: str = TOY_PROGRAM) -> "subprocess.Popen[str]":
        command = ("eval", "--method", "ts-memory", "--horizon", "24", "--threads", "1", *toy.CELL)
        results = str(tmp_path / name / "results")
        return start("-c", program, *command, "--results", results, home=tmp_path / name)

    def steps(progress: str) -> list[str]:
        lines = progress.splitlines()
        return [line[9:].partition(",")[0] for line in lines if line.startswith("plugmem: step ")]

    def record(name: str) -> Record:
        store = ResultsStore(tmp_path / name / "results")
        (found,) = store.records()
        loaded = store.load(found.key)
        assert loaded is not None
        return loaded

    other = run("undisturbed")
    killed = run("killed", HALTING_PROGRAM)
    wait_until(lambda: any((tmp_path / "killed").rglob("checkpoint.safetensors")), killed)
    killed.kill()
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not ResultsStore(tmp_path / "killed" / "results").records()
    assert steps(finish(other)[1]) == ["step 2", "step 4"]
    _, progress = finish(run("killed"))
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
