"""Sundial's weights cannot be had here: its adapter meets a stand-in with its layout and its calls."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import tsbench
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.remote_code import CONSENT
from tsbench.backbones.sundial import Sundial, load
from tsbench.errors import TsbenchError

pytestmark = pytest.mark.usefixtures("remote_modules")

CONFIGURATION = """
from transformers import PretrainedConfig

class SundialConfig(PretrainedConfig):
    model_type = "sundial"

    def __init__(self, input_token_len=16, hidden_size=8, output_token_lens=(32,), **kwargs):
        self.input_token_len = input_token_len
        self.hidden_size = hidden_size
        self.output_token_lens = list(output_token_lens)
        super().__init__(**kwargs)
"""
# As in the published repository: generate() asks the decoder, named `model`, for one hidden state and adds
# noise as long as the longest path, which it cuts to the horizon.
MODELING = """
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from .configuration_sundial import SundialConfig

class SundialPreTrainedModel(PreTrainedModel):
    config_class = SundialConfig
    base_model_prefix = "model"

    def _init_weights(self, module):
        pass

class SundialModel(SundialPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_layer = torch.nn.Linear(config.input_token_len, config.hidden_size)

    def forward(self, input_ids=None, use_cache=None, return_dict=None):
        length = self.config.input_token_len
        padded = torch.nn.functional.pad(input_ids, (-input_ids.shape[1] % length, 0))
        tokens = self.embed_layer(padded.unfold(1, length, length)).cumsum(dim=1)
        return MoeModelOutputWithPast(last_hidden_state=tokens)

class SundialForPrediction(SundialPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = SundialModel(config)
        self.flow = torch.nn.Linear(config.hidden_size, config.output_token_lens[-1])
        self.post_init()

    @torch.no_grad()
    def generate(self, inputs=None, generation_config=None, revin=True, num_samples=1, **kwargs):
        mean = inputs.mean(dim=-1, keepdim=True)
        spread = inputs.std(dim=-1, keepdim=True, unbiased=False) + 1e-5
        tokens = self.model(input_ids=(inputs - mean) / spread, use_cache=True, return_dict=True)
        drift = self.flow(tokens.last_hidden_state[:, -1])[:, None]
        paths = drift + torch.randn(len(inputs), num_samples, drift.shape[-1])
        return (paths * spread[:, None] + mean[:, None])[..., : kwargs["max_new_tokens"]]
"""
CONFIG = {
    "model_type": "sundial",
    "architectures": ["SundialForPrediction"],
    "auto_map": {
        "AutoConfig": "configuration_sundial.SundialConfig",
        "AutoModelForCausalLM": "modeling_sundial.SundialForPrediction",
    },
}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from safetensors.torch import save_file

    monkeypatch.setenv(CONSENT, "1")
    directory = tmp_path / tmp_path.name  # names the module that the code is imported as
    directory.mkdir()
    for name, content in (
        ("config.json", json.dumps(CONFIG)),
        ("configuration_sundial.py", CONFIGURATION),
        ("modeling_sundial.py", MODELING),
    ):
        directory.joinpath(name).write_text(content)
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "model.embed_layer.weight": (8, 16),
        "model.embed_layer.bias": (8,),
        "flow.weight": (32, 8),
        "flow.bias": (32,),
    }
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


def options(checkpoint: Path) -> BackboneOptions:
    return BackboneOptions("sundial-base", checkpoint=str(checkpoint))


@pytest.fixture
def backbone(checkpoint: Path) -> Sundial:
    return load(options(checkpoint))


def test_deciles_are_those_of_100_drawn_paths_and_rows_do_not_depend_on_their_batch(
    backbone: Sundial, walks: torch.Tensor
) -> None:
    forecast = backbone.predict(walks, 5)
    paths = backbone.sample(walks, 5, 100, seed=0)
    assert paths.shape == (5, 100, 5)
    levels = torch.tensor(backbone.quantile_levels)
    assert torch.equal(forecast, torch.quantile(paths, levels, dim=1).movedim(0, 1))
    assert (forecast.diff(dim=1) >= 0).all()
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(backbone.predict(walks[order], 5), forecast[order])
    assert torch.equal(backbone.predict(walks[1:2], 5), forecast[1:2])
    assert not torch.equal(backbone.sample(walks, 5, 100, seed=1), paths)


def test_forecast_follows_units(backbone: Sundial, walks: torch.Tensor) -> None:
    expected = 5.0 * backbone.predict(walks, 20) + 20.0
    torch.testing.assert_close(backbone.predict(5.0 * walks + 20.0, 20), expected, rtol=1e-3, atol=1e-2)


def test_horizons_reach_as_far_as_one_draw_does(backbone: Sundial, walks: torch.Tensor) -> None:
    assert (backbone.block, backbone.rollout) == (32, "sample")
    assert backbone.predict(walks, 32).shape == (5, 9, 32)
    with pytest.raises(TsbenchError, match="'sundial-base' draws paths of at most 32 steps"):
        backbone.predict(walks, 33)


def test_embedding_is_the_hidden_state_that_the_paths_are_drawn_from(
    backbone: Sundial, walks: torch.Tensor
) -> None:
    seen: list[torch.Tensor] = []
    hook = backbone.model.model.register_forward_hook(
        lambda _, __, output: seen.append(output.last_hidden_state[:, -1])
    )
    backbone.sample(walks, 5, 1, seed=0)
    hook.remove()
    vectors = backbone.embed(walks)
    assert vectors.shape == (5, 8)
    torch.testing.assert_close(vectors, torch.cat(seen))
    torch.testing.assert_close(backbone.embed(5.0 * walks + 20.0), vectors, rtol=1e-3, atol=1e-3)


def test_identity_is_that_of_the_weights_whatever_the_folder(
    backbone: Sundial, checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / f"{tmp_path.name}_copy"
    shutil.copytree(checkpoint, copy)
    assert load(options(copy)).identity == backbone.identity
    weights = load_file(copy / "model.safetensors")
    weights["flow.bias"][0] += 1e-3
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert load(options(copy)).identity != backbone.identity


def test_remote_code_runs_only_when_allowed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONSENT)
    checkpoint.joinpath("modeling_sundial.py").write_text("raise SystemExit('ran')")
    with pytest.raises(TsbenchError, match=rf"read that code, then set {CONSENT}=1"):
        load(options(checkpoint))


@pytest.mark.parametrize(
    ("code", "broken", "cause"),
    [
        ("import torch\n", "from transformers.cache_utils import SinkCache\nimport torch\n", "SinkCache"),
        ("mean = inputs", "inputs.get_max_length(); mean = inputs", "no attribute 'get_max_length'"),
    ],
    ids=["when loaded", "when it first draws"],
)
def test_code_that_breaks_under_the_installed_transformers_says_so_when_loaded(
    checkpoint: Path, code: str, broken: str, cause: str
) -> None:
    checkpoint.joinpath("modeling_sundial.py").write_text(MODELING.replace(code, broken, 1))
    with pytest.raises(
        TsbenchError, match=rf"{cause}.*written for transformers 4\.40\.1, .* installed"
    ) as caught:
        load(options(checkpoint))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_decoder_of_its_own_cannot_embed(backbone: Sundial, walks: torch.Tensor) -> None:
    type(backbone.model).base_model_prefix = "decoder"
    with pytest.raises(TsbenchError, match="cannot embed with 'sundial-base'"):
        backbone.embed(walks)


def test_a_cell_runs_with_scores_of_its_paths(checkpoint: Path, tmp_path: Path) -> None:
    table = tsbench.run(
        "origin",
        backbone="sundial",
        checkpoint=str(checkpoint),
        dataset="demo",
        horizon=24,
        profile="quick",
        test_stride=400,
        samples=10,
        results=tmp_path / "results",
    )
    assert "sundial-base" in set(table["backbone"])
    assert table["mse"].notna().all()
