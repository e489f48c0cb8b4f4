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


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random LLaMA of 16 channels in the Hugging Face format."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=32,
    )
    directory = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return str(directory)
