"""The hub's FLAME cannot be had here: its adapter meets a stand-in in the hub's on-disk format."""

from pathlib import Path

import pytest
import torch

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.flame_hub import FlameHub, load
from tsbench.backbones.remote_code import CONSENT
from tsbench.errors import TsbenchError

CONFIGURATION = """
from transformers import PretrainedConfig

class FlameConfig(PretrainedConfig):
    model_type = "flame"
"""
MODELING = """
import torch
from transformers import PreTrainedModel

from .configuration_flame import FlameConfig

class FlameForPrediction(PreTrainedModel):
    config_class = FlameConfig

    def __init__(self, config):
        super().__init__(config)
        self.spread = torch.nn.Parameter(torch.tensor(1.0))
        self.post_init()

    def _init_weights(self, module):
        pass

    @torch.no_grad()
    def generate(self, inputs=None, num_samples=1, max_output_length=96, **kwargs):
        noise = torch.randn(len(inputs), num_samples, max_output_length)
        return inputs[:, -1:, None] + inputs.std(-1)[:, None, None] * self.spread * noise
"""
CONFIG = """{"model_type": "flame", "architectures": ["FlameForPrediction"], "auto_map": {
"AutoConfig": "configuration_flame.FlameConfig",
"AutoModelForCausalLM": "modeling_flame.FlameForPrediction"}}"""


pytestmark = pytest.mark.usefixtures("remote_modules")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from safetensors.torch import save_file

    monkeypatch.setenv(CONSENT, "1")
    directory = tmp_path / tmp_path.name  # names the module that the code is imported as
    directory.mkdir()
    for name, content in (
        ("config.json", CONFIG),
        ("configuration_flame.py", CONFIGURATION),
        ("modeling_flame.py", MODELING),
    ):
        directory.joinpath(name).write_text(content)
    save_file({"spread": torch.tensor(2.0)}, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.fixture
def backbone(checkpoint: Path) -> FlameHub:
    return load(BackboneOptions("flame-hub", checkpoint=str(checkpoint)))


def test_deciles_are_those_of_the_drawn_paths_and_rows_do_not_depend_on_their_batch(
    backbone: FlameHub,
) -> None:
    context = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    forecast = backbone.predict(context, 5)
    assert forecast.shape == (3, 9, 5)
    assert (forecast.diff(dim=1) >= 0).all()
    paths = backbone.sample(context, 5, 100, seed=0)
    torch.testing.assert_close(forecast[:, 4], paths.median(dim=1).values, atol=0.3, rtol=0)
    assert torch.equal(backbone.predict(context[1:2], 5), forecast[1:2])
    assert torch.equal(backbone.predict(context, 5), forecast)
    assert not torch.equal(backbone.sample(context, 5, 100, seed=1), paths)


def test_drawing_leaves_the_global_generator_alone(backbone: FlameHub) -> None:
    state = torch.get_rng_state()
    backbone.predict(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)), 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_those_of_the_checkpoint_and_make_the_identity(
    backbone: FlameHub, checkpoint: Path
) -> None:
    from safetensors.torch import save_file

    assert backbone.model.spread.item() == 2
    save_file({"spread": torch.tensor(3.0)}, checkpoint / "model.safetensors", {"format": "pt"})
    other = load(BackboneOptions("flame-hub", checkpoint=str(checkpoint)))
    assert other.identity != backbone.identity


def test_remote_code_runs_only_when_allowed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONSENT)
    with pytest.raises(TsbenchError, match=rf"read that code, then set {CONSENT}=1"):
        load(BackboneOptions("flame-hub", checkpoint=str(checkpoint)))


def test_code_of_another_version_is_one_line(checkpoint: Path) -> None:
    code = checkpoint / "modeling_flame.py"
    code.write_text(MODELING.replace("num_samples, max_output_length)", "max_output_length, num_samples)"))
    backbone = load(BackboneOptions("flame-hub", checkpoint=str(checkpoint)))
    with pytest.raises(TsbenchError, match="of another version"):
        backbone.predict(torch.zeros(1, 64), 5)


def test_code_that_fails_is_one_line(checkpoint: Path) -> None:
    failing = "raise ImportError('needs a package\\nthat is absent')"
    checkpoint.joinpath("modeling_flame.py").write_text(failing)
    with pytest.raises(TsbenchError, match="needs a package that is absent") as caught:
        load(BackboneOptions("flame-hub", checkpoint=str(checkpoint)))
    assert "\n" not in str(caught.value)


def test_there_is_no_embedding(backbone: FlameHub) -> None:
    with pytest.raises(TsbenchError, match="no encoder"):
        backbone.embed(torch.zeros(1, 64))
