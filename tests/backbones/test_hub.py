from pathlib import Path

import pytest
import requests

pytest.importorskip("huggingface_hub")

from tsbench.backbones.hub import require_source
from tsbench.errors import TsbenchError


def test_when_the_hub_does_not_answer_then_one_line_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "head", refuse)
    with pytest.raises(TsbenchError, match=r"hub does not answer; .*--checkpoint DIR"):
        require_source("chronos-bolt-base", "amazon/a-model-nobody-cached")


def test_a_local_directory_and_a_cached_model_need_no_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(requests, "head", fail)
    require_source("chronos-bolt-base", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/somewhere/config.json")
    require_source("chronos-bolt-base", "amazon/chronos-bolt-base")
