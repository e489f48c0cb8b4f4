from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def walks() -> torch.Tensor:
    """Five random walks of 200 steps [5, 200], one of them below zero throughout."""
    steps = torch.randn(5, 200, generator=torch.Generator().manual_seed(7))
    walks = steps.cumsum(dim=1)
    walks[1] -= 100.0
    return walks


@pytest.fixture(scope="session")
def remote_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remote code is imported from a folder of this run; the interpreter finds one such place per process."""
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", place)
        yield
