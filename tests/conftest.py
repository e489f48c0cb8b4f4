import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The local mirror of the public data sets, or a skip."""
    location = os.environ.get("TSBENCH_MIRROR")
    if not location:
        pytest.skip("TSBENCH_MIRROR is not set")
    return Path(location)
