import os
from pathlib import Path

import pytest

# Tests work on tiny tensors, where a second thread only waits for the first. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The local mirror of the public data sets, or a skip."""
    location = os.environ.get("TSBENCH_MIRROR")
    if not location:
        pytest.skip("TSBENCH_MIRROR is not set")
    return Path(location)
