"""Real workers: processes of this machine and a Ray cluster started here."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import toy
from programs import LIMIT_S, wait_until

from tsbench.bench.store import ResultsStore
from tsbench.config import PROFILES

RAY = "--executor ray --jobs 2"
QUICK = PROFILES["quick"]  # as other processes know it, before it is shrunk for this one

# A package of its own, so that every process finds the backbone by its entry point.
MORTAL = """
import os, signal
from dataclasses import dataclass
from tsbench.backbones.naive import SeasonalNaive
from tsbench.data.paths import home

@dataclass(frozen=True)
class Mortal(SeasonalNaive):
    def predict(self, context, horizon):
        if horizon == 12 and (home() / "die").exists():
            (home() / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if horizon == 12 and (home() / "wait").exists():
            (home() / "waiting").write_text(str(os.getpid()))
            signal.pause()
        return super().predict(context, horizon)

def load(options):
    return Mortal(options.name, season=24)
"""
CELLS = "--backbone mortal --profile quick --test-stride 37 --lookback 48 --horizon 24 12"


@pytest.fixture(autouse=True)
def mortal(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package of the backbone `mortal` for this process and those it starts."""
    site = workplace / "site"
    (site / "mortal-1.dist-info").mkdir(parents=True)
    (site / "mortal.py").write_text(MORTAL)
    (site / "mortal-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mortal\nVersion: 1\n")
    points = "[tsbench.backbones]\nmortal = mortal:load\n"
    (site / "mortal-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ["PYTHONPATH"]]))
    (workplace / "home").mkdir()


def start(line: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tsbench", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A test run in the background ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def metrics(store: ResultsStore) -> dict[str, dict[str, str]]:
    """Metrics to the last bit by cell; a NaN equals itself."""
    return {
        record.key: {name: value.hex() for name, value in record.metrics.items()}
        for record in store.records()
    }


@pytest.mark.parametrize("workers", ["--jobs 2", RAY])
def test_two_workers_of_which_one_is_killed_leave_the_records_of_an_undisturbed_run(
    workplace: Path,
    tsbench: toy.Cli,
    store: ResultsStore,
    sales: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
) -> None:
    monkeypatch.setitem(PROFILES, "quick", QUICK)
    line = f"run --method raft {CELLS} --csv {sales} --freq 1D"
    (workplace / "home" / "die").touch()
    if workers == RAY:  # in a process of its own, which Ray may change as it likes
        pytest.importorskip("ray")
        running = start(f"{line} --threads 1 {workers}")
        stdout, stderr = running.communicate(timeout=LIMIT_S)
        if "The current node timed out during startup" in stderr:
            pytest.skip("the machine is too busy for Ray, whose node has 30 seconds to start")
        assert running.returncode == 0, stderr
    else:
        result = tsbench(f"{line} --threads 1 {workers}")
        assert result.exit_code == 0, result.stderr
        stdout, stderr = result.stdout, result.stderr

    with monkeypatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(workplace / "other-home"))
        reference = tsbench(f"{line} --results reference")
    assert reference.exit_code == 0, reference.stderr
    assert metrics(store) == metrics(ResultsStore(workplace / "reference"))
    assert stdout == reference.stdout
    assert {record.provenance.threads for record in store.records()} == {1}
    lines = stderr.splitlines()
    assert sum(" (attempt 1 of 3)" in line for line in lines) == 1
    assert not any("attempt 2" in line or "already done" in line for line in lines)
    begun = sorted(line.partition("]")[0] for line in lines if line.startswith("["))
    assert begun == sorted(f"[{number}/8" for number in range(1, 9))
    assert 8 <= sum("test windows" in line for line in lines) <= 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command_and_the_next_one_continues(
    workplace: Path, tsbench: toy.Cli, store: ResultsStore, number: signal.Signals
) -> None:
    line = f"eval --method origin --dataset demo {CELLS} --jobs 2"
    (workplace / "home" / "wait").touch()
    waiting = workplace / "home" / "waiting"
    running = start(line)
    wait_until(lambda: waiting.exists() and waiting.read_text() != "", running)
    worker = psutil.Process(int(waiting.read_text()))
    assert worker.pid != running.pid
    running.send_signal(number)
    _, stderr = running.communicate(timeout=LIMIT_S)
    assert "Traceback" not in stderr
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert stderr.splitlines()[-1] == "interrupted; run the same command again to continue"
    worker.wait(timeout=LIMIT_S)
    assert [record.spec.horizon for record in store.records()] == [24]
    (workplace / "home" / "wait").unlink()
    continued = tsbench(line.replace("--jobs 2", ""))
    assert continued.exit_code == 0
    assert continued.stderr.count("already done") == 1


def test_a_cluster_that_does_not_answer_is_named(tsbench: toy.Cli) -> None:
    pytest.importorskip("ray")
    with socket.socket() as unused:  # bound, so nobody else listens there
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        refused = tsbench(f"eval --method origin --dataset demo {CELLS} --executor ray --address {address}")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: cannot join the Ray cluster at {address} (")
    assert "start it with `ray start --head`" in refused.stderr


def test_an_address_that_is_none_is_refused(tsbench: toy.Cli) -> None:
    pytest.importorskip("ray")
    result = tsbench(f"eval --method origin --dataset demo {CELLS} --executor ray --address nonsense")
    assert result.exit_code == 2
    assert "--address nonsense is no Ray cluster; use host:port of its head node, or auto" in result.stderr
