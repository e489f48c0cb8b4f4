from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TSBENCH_HOME, and no mirror from the environment."""
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSBENCH_MIRROR", raising=False)
    return tmp_path / "home"
