"""Where, when and from what a figure was made."""

import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tsbench.bench.records import Provenance
from tsbench.choices import Precision

# Packages whose version can move a score.
_PACKAGES = (
    "torch",
    "numpy",
    "faiss-cpu",
    "faiss-gpu",
    "chronos-forecasting",
    "transformers",
    "fracast",
    "timesfm",
    "statsforecast",
)


def provenance(data_sha256: str, backbone_identity: str, device: str, wall_s: float) -> Provenance:
    """The birth certificate of a cell that finished now.

    Args:
        data_sha256: Checksum of the data set's source.
        backbone_identity: Identity of the backbone.
        device: Device the cell ran on, "cpu" or "cuda".
        wall_s: Seconds it took.
    """
    import torch

    return Provenance(
        data_sha256=data_sha256,
        backbone_identity=backbone_identity,
        code_version=code_version(),
        versions=package_versions(),
        device=device_name(device),
        threads=torch.get_num_threads(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=round(wall_s, 3),
        peak_rss_mb=round(peak_rss_mb(), 1),
    )


@cache
def code_version() -> str:
    """The installed version of tsbench; in a clone also the commit, with "+" where files differ from it."""
    installed = version("tsbench")
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return installed
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return installed
    return f"{installed} ({described.stdout.strip()})"


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that can move a score."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def preferred_precision(device: str) -> Precision:
    """bf16 on GPUs and on processors with matrix units for it, where it halves the training time."""
    if device.startswith("cuda"):
        return "bf16"
    cpuinfo = Path("/proc/cpuinfo")
    return "bf16" if cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text() else "fp32"


@cache
def device_name(device: str) -> str:
    """Model name of the processor or GPU, so that figures of different devices never share a column."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"cpu: {line.partition(':')[2].strip()}"
    return f"cpu: {_listed_model() or platform.processor() or platform.machine()}"


def _listed_model() -> str:
    """Model name by lscpu, which knows the numbers that stand for it in an ARM's cpuinfo; "" if it does not.

    A processor with cores of several models has a name of all of them.
    """
    try:
        listed = subprocess.run(
            ["lscpu"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    fields = (line.partition(":") for line in listed.stdout.splitlines())
    models = [value.strip() for name, _, value in fields if name.strip() == "Model name"]
    return " + ".join(model for model in models if model != "-")


def score_device(name: str) -> str:
    """What of a device must be equal for scores to compare: a GPU's name; processors are all "cpu".

    Frozen forecasts of two processors agree but for the last digits, weights trained on them drift a little
    (docs/footguns.md). Timings never compare across processors and do not use this.
    """
    return "cpu" if name.startswith("cpu:") else name


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MiB.

    On Linux from /proc: getrusage starts a process with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
