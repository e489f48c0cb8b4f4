import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tsbench

# Tests work on tiny tensors, where a second thread only waits for the first. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs that tests start import the package under test, whatever else is installed beside this Python.
CHECKOUT = str(Path(tsbench.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [CHECKOUT, os.environ.get("PYTHONPATH")]))
# How long an example takes is the machine's affair.
settings.register_profile("tsbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tsbench")

DECILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A TSBENCH_HOME of this process, so that tests neither find nor leave anything in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


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


@pytest.fixture(scope="session")
def tiny_bolt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Chronos-Bolt in the published on-disk format: context 256, blocks of 64."""
    pytest.importorskip("chronos")
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    config = T5Config(
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        vocab_size=2,
        feed_forward_proj="relu",
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        initializer_factor=0.05,
        architectures=["ChronosBoltModelForForecasting"],
        chronos_pipeline_class="ChronosBoltPipeline",
        chronos_config={
            "context_length": 256,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "prediction_length": 64,
            "quantiles": DECILES,
            "use_reg_token": True,
        },
    )
    return _save(ChronosBoltModelForForecasting, config, tmp_path_factory.mktemp("tiny-bolt"))


@pytest.fixture(scope="session")
def tiny_chronos2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Chronos-2 in the published on-disk format: context 512, at most 8 patches of 16 steps."""
    pytest.importorskip("chronos")
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    config = Chronos2CoreConfig(
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        architectures=["Chronos2Model"],
        chronos_pipeline_class="Chronos2Pipeline",
        chronos_config={
            "context_length": 512,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "output_patch_size": 16,
            "max_output_patches": 8,
            "quantiles": [0.01, *(i / 20 for i in range(1, 20)), 0.99],
            "use_reg_token": True,
            "use_arcsinh": True,
            "time_encoding_scale": 512,
        },
    )
    return _save(Chronos2Model, config, tmp_path_factory.mktemp("tiny-chronos2"))


def _save(model_class: type, config: object, folder: Path) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config)
        # As initialised, patches barely reach the output; larger weights make contexts tell.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder
