"""A LLaMA model's GGUF file as a Hugging Face checkpoint: dequantised once, then kept."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tsbench.data.paths import home
from tsbench.errors import TsbenchError

CONVERTER_VERSION = 1  # raise it when the same file would be converted to other content

_CHECKSUMS = "checksums.json"
_NAMES = {"token_embd": "embed_tokens", "output_norm": "norm"}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_or_convert(name: str, path: Path) -> Path:
    """Directory of the checkpoint with a GGUF file's weights, converted now unless it was before.

    The directory is ``<home>/language-models/<name>-<key>/``; the key comes from the file's checksum and the
    converter's version. It gets that name when it is complete. Checksums beside the weights are compared on
    every call, and a damaged directory is converted anew. A lock lets one process convert while others wait.

    Args:
        name: Name of the language model.
        path: GGUF file of the architecture "llama".

    Returns:
        Directory with config.json and model.safetensors, float32.

    Raises:
        TsbenchError: The file cannot be read or is no LLaMA's, or the directory cannot be written.
    """
    try:
        key = hashlib.sha256(f"{_sha256(path)} {CONVERTER_VERSION}".encode()).hexdigest()[:12]
        directory = home() / "language-models" / f"{name}-{key}"
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(directory.with_name(f"{directory.name}.lock")):
            if not _is_intact(directory):
                temporary = directory.with_name(f"{directory.name}.tmp")
                for remains in (temporary, directory):
                    shutil.rmtree(remains, ignore_errors=True)
                temporary.mkdir()
                convert(path, temporary)
                _seal(temporary)
                temporary.replace(directory)
    except (OSError, SafetensorError) as error:
        raise TsbenchError(
            f"cannot keep the weights of '{name}' in {home()}: {error}; "
            "set TSBENCH_HOME to a directory you can write"
        ) from error
    return directory


def convert(path: Path, directory: Path) -> None:
    """Write a GGUF file's weights as config.json and model.safetensors, dequantised to float32.

    Args:
        path: GGUF file of the architecture "llama"; its tokenizer is left out.
        directory: Existing directory to write to.

    Raises:
        TsbenchError: The package gguf is missing, or the file is damaged or not a plain LLaMA model.

    Source:
        The GGUF format of llama.cpp. Its converter reorders the rows of the query and key projections, so
        that the two dimensions that RoPE turns together are neighbours; here they are put back.
    """
    try:
        from gguf import GGUFReader, dequantize
    except ImportError as error:
        raise TsbenchError(
            f"reading {path.name} needs the package gguf; pip install 'tsbench[f-llm]'"
        ) from error
    try:
        reader = GGUFReader(path)
        config = _read_config(reader)
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        weights = {}
        for tensor in reader.tensors:
            weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
            part = tensor.name.split(".")[-2]
            if part in heads:
                weight = _undo_rope_order(weight, heads[part])
            weights[_checkpoint_name(tensor.name)] = np.ascontiguousarray(weight)
        config["vocab_size"] = len(weights["embed_tokens.weight"])
    except (ValueError, KeyError, IndexError) as error:
        raise TsbenchError(
            f"cannot read {path} as a LLaMA model ({error}); reinstall the package that brought it"
        ) from error
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _read_config(reader: Any) -> dict[str, Any]:
    """The model's shape under the names of Hugging Face's LlamaConfig, without its vocabulary size."""

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    if (architecture := value("general.architecture")) != "llama":
        raise ValueError(f"its architecture is {architecture}")
    return {
        "model_type": "llama",
        "architectures": ["LlamaModel"],
        "dtype": "float32",
        "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": value("llama.attention.head_count"),
        "num_key_value_heads": value("llama.attention.head_count_kv"),
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": value("llama.rope.freq_base")},
    }


def _checkpoint_name(name: str) -> str:
    match name.split("."):
        case [part, "weight"] if part in _NAMES:
            return f"{_NAMES[part]}.weight"
        case ["blk", block, part, "weight"] if part in _BLOCK_NAMES:
            return f"layers.{block}.{_BLOCK_NAMES[part]}.weight"
    raise ValueError(f"it has a tensor {name}")


def _undo_rope_order(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from pairs (2i, 2i+1) back to halves (i, i + d/2); weight [heads * d, D]."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _seal(directory: Path) -> None:
    """Add the checksums of all files, and make sure that everything is on the disk."""
    checksums = {file.name: _sha256(file) for file in sorted(directory.iterdir())}
    (directory / _CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")
    for path in directory.iterdir():
        path.chmod(0o644)
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _is_intact(directory: Path) -> bool:
    try:
        checksums = json.loads((directory / _CHECKSUMS).read_text(encoding="utf-8"))
        return all(_sha256(directory / name) == checksum for name, checksum in checksums.items())
    except (FileNotFoundError, ValueError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
