"""Waiting for programs that tests start."""

import subprocess
import time
from collections.abc import Callable

LIMIT_S = 600
"""Ends what hangs; a crowded machine takes minutes for what takes seconds alone."""


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for the condition while the process runs."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended early with {process.returncode}")
