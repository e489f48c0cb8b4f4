import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from tsbench.bench import provenance as module
from tsbench.bench.provenance import (
    code_version,
    device_name,
    package_versions,
    peak_rss_mb,
    preferred_precision,
    provenance,
)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for cached in (code_version, package_versions, device_name):
        cached.cache_clear()
    yield
    for cached in (code_version, package_versions, device_name):
        cached.cache_clear()


def read_as(monkeypatch: pytest.MonkeyPatch, cpuinfo: str) -> None:
    """Let /proc/cpuinfo read as the given text."""
    read = Path.read_text

    def read_text(self: Path, *args: Any, **kwargs: Any) -> str:
        return cpuinfo if str(self) == "/proc/cpuinfo" else read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(Path, "exists", lambda self: True)


def test_a_certificate_says_what_made_the_figure_and_when() -> None:
    made = provenance("d" * 64, "naive-last-m1-v1", "cpu", 1.23456)
    assert (made.data_sha256, made.backbone_identity) == ("d" * 64, "naive-last-m1-v1")
    assert made.wall_s == 1.235
    assert made.threads == torch.get_num_threads()
    created = datetime.fromisoformat(made.created)
    assert created.tzinfo is not None
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)
    assert made.code_version.startswith(version("tsbench"))
    assert made.device.startswith("cpu: ")
    assert made.device != "cpu: "
    assert made.versions["torch"] == torch.__version__


def test_peak_memory_is_that_of_this_process_in_mib() -> None:
    resident = psutil.Process().memory_info().rss / 2**20
    assert 0.5 * resident < peak_rss_mb() < psutil.virtual_memory().total / 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_peak_memory_is_not_that_of_the_process_before() -> None:
    """The peak that getrusage reports is handed on from the process that starts another."""
    large = np.ones(2**27 // 8 * 4)  # 512 MiB
    program = "from tsbench.bench.provenance import peak_rss_mb; print(peak_rss_mb())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(child.stdout) < large.nbytes / 2**20


def test_only_installed_packages_have_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("torch", "a-package-nobody-has"))
    assert package_versions().keys() == {"python", "torch"}


def test_in_a_clone_the_code_version_names_the_commit_and_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "tsbench" / "bench" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.write_text("first")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(module, "__file__", str(source))
    commit = git("rev-parse", "--short=12", "HEAD")
    assert code_version() == f"{version('tsbench')} ({commit})"
    source.write_text("second")
    code_version.cache_clear()
    assert code_version() == f"{version('tsbench')} ({commit}+)"


def test_outside_a_clone_the_code_version_is_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "tsbench" / "bench" / "provenance.py"))
    assert code_version() == version("tsbench")


def test_without_git_the_code_version_is_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "tsbench" / "bench" / "provenance.py"))
    monkeypatch.setenv("PATH", "")
    assert code_version() == version("tsbench")


@pytest.mark.parametrize(
    ("device", "flags", "precision"),
    [
        ("cpu", "fpu amx_bf16 amx_tile", "bf16"),
        ("cpu", "fpu avx512f avx512_bf16", "fp32"),
        ("cuda", "fpu", "bf16"),
        ("cuda:1", "fpu", "bf16"),
    ],
)
def test_bf16_is_preferred_where_there_are_matrix_units_for_it(
    monkeypatch: pytest.MonkeyPatch, device: str, flags: str, precision: str
) -> None:
    read_as(monkeypatch, f"model name : A\nflags : {flags}\n")
    assert preferred_precision(device) == precision


def test_a_processor_is_named_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    read_as(monkeypatch, "processor\t: 0\nmodel name\t: Some: CPU 9000\nflags\t: fpu\n")
    assert device_name("cpu") == "cpu: Some: CPU 9000"


ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        (
            ["Architecture: aarch64", "Vendor ID: ARM", "  Model name: Neoverse-N1", "    Model: 1"],
            "Neoverse-N1",
        ),
        (["  Model name: Cortex-A55", "    Model: 0", "  Model name: Cortex-A76"], "Cortex-A55 + Cortex-A76"),
        (["BIOS Model name: board", "  Model name: -"], None),
    ],
)
def test_an_arm_processor_is_named_as_lscpu_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: list[str], name: str | None
) -> None:
    program = tmp_path / "lscpu"
    program.write_text("\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in listed)]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    read_as(monkeypatch, ARM)
    assert device_name("cpu") == f"cpu: {name or platform.processor() or platform.machine()}"


@pytest.mark.skipif(shutil.which("lscpu") is None, reason="no lscpu")
def test_lscpu_and_cpuinfo_agree_on_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    if "model name" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("cpuinfo names no model")
    named = device_name("cpu")
    device_name.cache_clear()
    read_as(monkeypatch, ARM)
    assert device_name("cpu") == named


def test_without_cpuinfo_the_architecture_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    monkeypatch.setenv("PATH", "")
    assert preferred_precision("cpu") == "fp32"
    assert device_name("cpu") == f"cpu: {platform.processor() or platform.machine()}"


def test_a_gpu_is_named_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name("cuda:1") == "GPU 1"
