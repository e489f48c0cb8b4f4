import pytest

from tsbench.backbones import hub


@pytest.fixture
def no_weights_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any weights, whatever this one has."""
    monkeypatch.setattr(hub, "is_here", lambda source: False)
